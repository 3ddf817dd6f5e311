"""Baselines for every plan: the single tiers, and the planners of earlier papers. Each has the same signature.

The two-tier planners take the best of the pairs of tiers that have nodes, which is more than their papers claim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from pipeline.cost import Costs, predict
from pipeline.errors import Infeasible
from pipeline.frames.input_blocks import first_block
from pipeline.graph import ModelGraph
from pipeline.partition import cuts, exact
from pipeline.partition.constraints import Constraint, Forbid, broken
from pipeline.partition.cut_family import Floats
from pipeline.partition.objective import LATENCY, THROUGHPUT, Objective
from pipeline.placement import Placement, Tier

Ints = npt.NDArray[np.int_]
NOTHING: Sequence[Constraint] = ()


def device_only(
    graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint] = NOTHING, objective: Objective = LATENCY
) -> Placement:
    """Everything on the device. Raises Infeasible when the constraints do not allow it."""
    return _only(Tier.DEVICE, graph, costs, constraints, objective)


def edge_only(
    graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint] = NOTHING, objective: Objective = LATENCY
) -> Placement:
    """The network on the edge, its input there or on the device. Raises Infeasible when that is not allowed."""
    return _only(Tier.EDGE, graph, costs, constraints, objective)


def cloud_only(
    graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint] = NOTHING, objective: Objective = LATENCY
) -> Placement:
    """The network in the cloud, its input there or on the device. Raises Infeasible when that is not allowed."""
    return _only(Tier.CLOUD, graph, costs, constraints, objective)


def neurosurgeon(
    graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint] = NOTHING, objective: Objective = LATENCY
) -> Placement:
    """The best single cut of the blocks' order, two tiers (Kang et al., ASPLOS 2017). Raises Infeasible."""
    costs = _judged(graph, costs, objective)
    n = len(graph)
    at = np.arange(1, n + 1)
    # device and cloud, device and edge, edge and cloud
    first, second = np.concatenate([at, at, np.ones(n, int)]), np.concatenate([at, np.full(n, n), at])
    values = cuts.values(graph, costs, objective)[first - 1, second - 1]
    return _cheapest_cuts(graph, costs, constraints, values, first, second, 1, "neurosurgeon")[0]


def dads_light(
    graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint] = NOTHING, objective: Objective = LATENCY
) -> Placement:
    """The cut of the graph with the least latency, two tiers (Hu et al., "DADS", INFOCOM 2019). Raises Infeasible."""
    return _dads(graph, costs, constraints, objective, LATENCY)


def dads_heavy(
    graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint] = NOTHING, objective: Objective = LATENCY
) -> Placement:
    """The cut of the graph with the least busy bottleneck, two tiers (DADS under heavy load). Raises Infeasible."""
    return _dads(graph, costs, constraints, objective, THROUGHPUT)


def scission(
    graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint] = NOTHING, objective: Objective = LATENCY
) -> Placement:
    """The best placement that Scission considers (Lockhart et al., UCC 2020). Raises Infeasible."""
    return scission_best(graph, costs, constraints, objective, count=1)[0]


def scission_best(
    graph: ModelGraph,
    costs: Costs,
    constraints: Sequence[Constraint] = NOTHING,
    objective: Objective = LATENCY,
    *,
    count: int = 5,
) -> list[Placement]:
    """The best `count` placements that cut the blocks' order where a single tensor crosses. Raises Infeasible."""
    costs = _judged(graph, costs, objective)
    at = single_tensor_cuts(graph)
    first, second = np.repeat(at, len(at)), np.tile(at, len(at))
    values = cuts.values(graph, costs, objective)[first - 1, second - 1]
    return _cheapest_cuts(graph, costs, constraints, values, first, second, count, "scission")


def single_tensor_cuts(graph: ModelGraph) -> Ints:
    """Block numbers, ascending, before which the order may be cut: one tensor crosses, or everything is below.

    The first (1) is always there: the input crosses, however many tensors it has.
    """
    live = np.zeros(len(graph) + 1, int)
    for tensor, readers in enumerate(graph.consumers):
        if readers:
            live[graph.producer[tensor] + 1 : readers[-1] + 1] += 1
    found = {1, len(graph), *np.flatnonzero(live == 1).tolist()} - {0}
    return np.array(sorted(found))


def _cheapest_cuts(
    graph: ModelGraph,
    costs: Costs,
    constraints: Sequence[Constraint],
    values: Floats,
    first: Ints,
    second: Ints,
    count: int,
    name: str,
) -> list[Placement]:
    """The `count` cheapest different placements that respect the constraints, of those that cut at (first, second)."""
    found: dict[Placement, None] = {}
    for index in np.argsort(values, kind="stable").tolist():
        if not np.isfinite(values[index]) or len(found) == count:
            break
        placement = cuts.placement_of(graph, int(first[index]), int(second[index]))
        if placement not in found and not broken(graph, placement, costs, constraints):
            found[placement] = None
    if not found:
        raise Infeasible(f"{name}: none of its placements respects the constraints; release one, or plan with exact")
    return list(found)


def _judged(graph: ModelGraph, costs: Costs, objective: Objective) -> Costs:
    costs.check(graph)
    return objective.judging(costs)


def _only(
    tier: Tier, graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint], objective: Objective
) -> Placement:
    """The network on one tier, and its input's blocks there or on the device, whichever is worth most."""
    costs = _judged(graph, costs, objective)
    if tier not in costs.seconds:
        raise Infeasible(f"the {tier.label} has no node; start one, or plan without it")
    first = range(1, 1 + first_block(graph))
    placements = [(Tier.DEVICE,) * begin + (tier,) * (len(graph) - begin) for begin in first]
    allowed = [placement for placement in placements if not broken(graph, placement, costs, constraints)]
    if not allowed:
        against = broken(graph, placements[-1], costs, constraints)
        described = "; ".join(constraint.describe(graph) for constraint in against)
        raise Infeasible(f"not everything on the {tier.label}: {described}")
    if len(allowed) == 1:
        return allowed[0]
    return min(allowed, key=lambda placement: objective.value(predict(graph, placement, costs)))


def _pairs(costs: Costs) -> Iterator[tuple[Tier, Tier]]:
    tiers = sorted(costs.seconds)
    return combinations(tiers, 2) if len(tiers) > 1 else iter([(tiers[0], tiers[0])])


def _dads(
    graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint], objective: Objective, own: Objective
) -> Placement:
    """Its own objective within each pair of tiers; the objective at hand chooses between the pairs."""
    costs = _judged(graph, costs, objective)
    found = []
    for pair in _pairs(costs):
        try:
            placement = _between(pair, graph, costs, constraints, own)
        except Infeasible:
            continue
        # its own objective may choose other codecs, with which limits on what is sent were kept
        if not broken(graph, placement, costs, constraints):
            found.append(placement)
    if not found:
        raise Infeasible("dads: no two tiers respect the constraints; release one, or plan with exact")
    return min(found, key=lambda placement: objective.value(predict(graph, placement, costs)))


def _between(
    pair: tuple[Tier, Tier], graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint], objective: Objective
) -> Placement:
    others = [tier for tier in costs.seconds if tier not in pair]
    within = [Forbid(v, tier) for tier in others for v in range(1, len(graph))]
    return exact.solve(graph, costs, [*constraints, *within], objective, explain=False).placement
