"""Which nodes, and which placement on them: every combination of node sets is planned, the cheapest first.

A tier has one node in a plan, so the best over all nodes is the best over combinations. Knows neither registry nor
broker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.cost import Costs, Prediction, predict
from pipeline.errors import Infeasible
from pipeline.graph import ModelGraph
from pipeline.partition import exact, tiled
from pipeline.partition.constraints import Constraint
from pipeline.partition.objective import LATENCY, Objective
from pipeline.placement import Placement, Tier
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


def priced(
    graph: ModelGraph, placement: Placement, node_set: NodeSet, objective: Objective = LATENCY, gap: float = 0.0
) -> PricedPlan:
    """The placement on the node set's nodes, those without blocks left out."""
    predicted = predict(graph, placement, node_set.costs)
    used = {tier: node_set.nodes[tier] for tier in sorted({*placement, Tier.DEVICE})}
    return PricedPlan(placement, used, predicted, node_set.costs, objective.value(predicted), gap)


def rank(priced_plan: PricedPlan) -> tuple[float, float, int]:
    """What choices are ordered by: the objective, then latency, then how few nodes they need."""
    return priced_plan.value, priced_plan.predicted.seconds, len(priced_plan.nodes)


def choose(
    graph: ModelGraph,
    node_sets: Iterable[NodeSet],
    constraints: Sequence[Constraint] = (),
    objective: Objective = LATENCY,
) -> list[PricedPlan]:
    """The exact plan of each combination of nodes, by `rank`.

    Raises Infeasible, with the conflict of the combination that has most nodes, when there is none.
    """
    found: list[PricedPlan] = []
    node_sets = sorted(node_sets, key=lambda node_set: -len(node_set.nodes))
    for node_set in node_sets:
        try:
            solution = exact.solve(
                graph, node_set.costs, [*constraints, *node_set.constraints], objective, explain=False
            )
        except Infeasible:
            continue
        whole = priced(graph, solution.placement, node_set, objective, solution.gap)
        found.append(whole)
        shared = _shared_out(graph, node_set, constraints, objective, whole)
        found += [shared] if shared is not None else []
    if node_sets and not found:
        exact.solve(graph, node_sets[0].costs, [*constraints, *node_sets[0].constraints], objective)
    return list(_distinct(sorted(found, key=rank)))


def _shared_out(
    graph: ModelGraph, node_set: NodeSet, constraints: Sequence[Constraint], objective: Objective, whole: PricedPlan
) -> PricedPlan | None:
    """The best choice with tiles, where it beats the best without."""
    if node_set.pool is None or not node_set.tiled_stack_costs:
        return None
    asked = [*constraints, *node_set.constraints]
    costs, pool = node_set.costs, node_set.pool
    found = tiled.best(graph, costs, pool, node_set.tiled_stack_costs, asked, objective, whole.value)
    if found is not None and node_set.in_use is not None:
        found = tiled.kept(graph, costs, pool, node_set.in_use, asked, objective, found)
    if found is None:
        return None
    repriced = replace(node_set, costs=found.costs)
    shared = replace(priced(graph, found.placement, repriced, objective, found.gap), tiling=found.tiling)
    return shared if shared.value < whole.value else None


def _distinct(priced_plans: Sequence[PricedPlan]) -> Iterator[PricedPlan]:
    """Each placement on the same nodes once, the first of it: beside nodes that get no block it may be dearer."""
    seen = set()
    for priced_plan in priced_plans:
        key = (priced_plan.placement, tuple(priced_plan.nodes.items()), priced_plan.tiling)
        if key not in seen:
            seen.add(key)
            yield priced_plan
