"""A set of nodes that a plan may use, and a placement on it with its price. Knows neither registry nor broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.codecs import NONE
from pipeline.coding import PlannedCodecs
from pipeline.cost import Costs, Prediction, coding_of, predict
from pipeline.graph import ModelGraph
from pipeline.partition.constraints import Constraint
from pipeline.partition.objective import LATENCY, Objective
from pipeline.placement import Crossing, Placement, Tier, crossings, returning
from pipeline.tiles.tiled_stack_cost import TiledStackCost
from pipeline.tiles.tiling import Tiling
from pipeline.tiles.worker_pool import WorkerPool


@dataclass(frozen=True, slots=True)
class NodeSet:
    """A node for the device and for some other tiers, what they cost together, and what limits just them.

    `pool` are the edge's node and those that compute tiles for it, `tiled_stack_costs` the stacks that pay for it by
    themselves, `in_use` the tiles that there are now.
    """

    nodes: Mapping[Tier, str]
    costs: Costs
    constraints: tuple[Constraint, ...] = ()
    pool: WorkerPool | None = None
    tiled_stack_costs: tuple[TiledStackCost, ...] = ()
    in_use: Tiling | None = None


@dataclass(frozen=True, slots=True)
class PricedPlan:
    """A placement, the nodes of the tiers that it uses, and its price.

    `costs` is what it was priced with, `value` what the objective makes of the price, `gap` the share by which a better
    placement on these nodes could be better at most (0.0 when the optimum is proved).
    """

    placement: Placement
    nodes: Mapping[Tier, str]
    predicted: Prediction
    costs: Costs
    value: float
    gap: float = 0.0
    tiling: Tiling | None = None

    def codecs(self, graph: ModelGraph) -> PlannedCodecs:
        """The codecs of all that is sent coded."""
        up, back = crossings(graph, self.placement), returning(graph, self.placement)
        return PlannedCodecs(self._coded(graph, up), self._coded(graph, back))

    def _coded(self, graph: ModelGraph, sent: Sequence[Crossing]) -> dict[int, str]:
        codings = {crossing.tensor: coding_of(graph, self.costs, crossing) for crossing in sent}
        return {tensor: coding.codec for tensor, coding in codings.items() if coding.codec != NONE}


def priced(
    graph: ModelGraph, placement: Placement, node_set: NodeSet, objective: Objective = LATENCY, gap: float = 0.0
) -> PricedPlan:
    """The placement on the node_set's nodes, those without blocks left out."""
    costs = objective.judging(node_set.costs)
    predicted = predict(graph, placement, costs)
    used = {tier: node_set.nodes[tier] for tier in sorted({*placement, Tier.DEVICE})}
    return PricedPlan(placement, used, predicted, costs, objective.value(predicted), gap)


def rank(priced_plan: PricedPlan) -> tuple[float, float, int]:
    """Sort key of priced plans: the objective's value, then latency in seconds, then the number of nodes."""
    return priced_plan.value, priced_plan.predicted.seconds, len(priced_plan.nodes)
