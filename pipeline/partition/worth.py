"""What parts of a placement are worth under an objective, but for the period: constants of a program."""

from __future__ import annotations

from pipeline.cost import Costs
from pipeline.partition.objective import Objective
from pipeline.placement import Tier


def fixed_worth(costs: Costs, objective: Objective) -> float:
    """What every placement has: the frame overhead; and, with a stack in tiles, their joules in place of the edge's."""
    fixed = (objective.latency + objective.energy * costs.draw(Tier.DEVICE).watts) * costs.frame_overhead_s
    if costs.tiles is not None:
        fixed += objective.energy * (costs.tiles.joules - costs.draw(Tier.EDGE).joules(costs.tiles.seconds))
    return fixed


def overhead_worth(costs: Costs, objective: Objective, tier: Tier) -> float:
    """What receiving and sending takes a tier's node, if it is on a frame's path."""
    per_second = objective.latency + objective.energy * costs.draw(tier).watts
    return per_second * costs.send_receive_overhead.get(tier, 0.0)
