"""What parts of a placement are worth under an objective, but for the period: constants of a program."""

from __future__ import annotations

from pipeline.cost import Costs
from pipeline.partition.objective import MEGABYTE, Objective
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


def answer_worth(costs: Costs, objective: Objective, lower: Tier) -> float:
    """What a byte of an output made above a link adds to an objective there, but for the period.

    An output from the cloud comes down both links; what the edge would take to send it is charged at the first, so the
    second has the difference between the cloud's joules and the edge's, which may be below 0.
    """
    edge_j, at_link = costs.draw(Tier.EDGE).joules_per_byte, objective.latency / costs.link(lower).bandwidth_bytes_per_s
    if lower == Tier.DEVICE:
        return at_link + objective.energy * (costs.draw(Tier.DEVICE).joules_per_byte + edge_j)
    per_byte_j = costs.draw(Tier.CLOUD).joules_per_byte - edge_j
    return at_link + objective.backbone / MEGABYTE + objective.energy * per_byte_j
