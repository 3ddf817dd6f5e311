"""Placement and tiles together: which stack shared out on the edge, with all other blocks placed exactly around it.

For a stack that is to be shared out, its blocks are pinned to the edge and take there what they take in tiles; what is
left is `exact`'s program. Stacks are tried in the order of what the best two cuts around them give; with an objective
that adds seconds up, one whose gain, taken off the best placement without tiles, cannot beat the best found is
passed over, which is a proof. How far the rest is proved is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.cost import Costs, predict
from pipeline.errors import Infeasible
from pipeline.graph import ModelGraph
from pipeline.partition import cuts, exact
from pipeline.partition.constraints import Constraint, Pin
from pipeline.partition.objective import Objective
from pipeline.placement import Placement, Tier
from pipeline.tiles.tile_codings import coded
from pipeline.tiles.tiled_stack_cost import TiledStackCost, balanced, cost, tiled_stack_cost
from pipeline.tiles.tiling import Tiling
from pipeline.tiles.worker_pool import WorkerPool
from pipeline.tiles_cost import TilesCost

MOST_RANKED = 48
"""Stacks that are looked at: those that save most."""
MOST_SOLVED = 8
"""Of these, programs that are solved."""
KEPT = 0.05
"""By how much of the best the stack in use may be dearer and still be kept: another has to be compiled and proven."""


@dataclass(frozen=True, slots=True)
class Tiled:
    """A placement with a tiling, the costs that it was priced with, and by what share a better one could be better."""

    placement: Placement
    tiling: Tiling
    costs: Costs
    gap: float


def with_tiles(graph: ModelGraph, costs: Costs, tiling: Tiling, tiles: TilesCost) -> Costs:
    """Costs of placements that have the tiling's stack on the edge, shared out: its blocks' seconds scaled to that."""
    factor = tiles.seconds / tiles.alone_seconds if tiles.alone_seconds else 1.0
    stack = set(tiling.stack(graph).blocks)
    seconds = tuple(s * factor if block in stack else s for block, s in enumerate(costs.seconds[Tier.EDGE]))
    cores = tuple(shared.with_tiles(tiles.cores_seconds) for shared in costs.cores)
    return replace(costs, seconds={**costs.seconds, Tier.EDGE: seconds}, tiles=tiles, cores=cores)


def best(
    graph: ModelGraph,
    costs: Costs,
    pool: WorkerPool,
    tiled_stack_costs: Sequence[TiledStackCost],
    constraints: Sequence[Constraint],
    objective: Objective,
    whole_s: float,
) -> Tiled | None:
    """The best placement with tiles found, its borders balanced; None where no stack can be had on the edge.

    `whole_s` is the objective's value of the best placement without tiles.
    """
    by_promise = sorted(tiled_stack_costs, key=lambda s: -_promise(objective, s))
    tried = by_promise[:MOST_RANKED]
    ranked = sorted(((_cut_value(graph, costs, objective, s), place) for place, s in enumerate(tried)))
    found: tuple[float, TiledStackCost, Placement] | None = None
    solved = 0
    passed = min((least(costs, objective, given, whole_s) for given in by_promise[MOST_RANKED:]), default=np.inf)
    for _, place in ranked:
        given = tried[place]
        bound = least(costs, objective, given, whole_s)
        if found is not None and bound >= found[0]:
            continue
        if solved == MOST_SOLVED:
            passed = min(passed, bound)
            continue
        solved += 1
        solution = _placed(graph, _priced(graph, costs, given), given.tiling, constraints, objective)
        if solution is not None:
            value = objective.value(predict(graph, solution.placement, _priced(graph, costs, given)))
            passed = min(passed, value * (1 - solution.gap))
            new = value, given, solution.placement
            found = min(found, new, key=lambda f: f[0]) if found else new
    if found is None:
        return None
    even = balanced(graph, pool, found[1], latency=objective.latency, period=objective.period)
    priced = with_tiles(graph, costs, even.tiling, cost(graph, pool, even))
    balance = _placed(graph, priced, even.tiling, constraints, objective)
    # balance is of the stack by itself: a coordinator whose other blocks are the bottleneck may have got too much of it
    if balance is None or (value := objective.value(predict(graph, balance.placement, priced))) > found[0]:
        gap = exact.gap_between(passed, found[0])
        return Tiled(found[2], found[1].tiling, _priced(graph, costs, found[1]), gap)
    return Tiled(balance.placement, even.tiling, priced, exact.gap_between(passed, value))


def kept(
    graph: ModelGraph,
    costs: Costs,
    pool: WorkerPool,
    in_use: Tiling,
    constraints: Sequence[Constraint],
    objective: Objective,
    found: Tiled,
) -> Tiled:
    """The stack in use with its grid on its nodes, borders balanced again, if that is nearly as good as what was found.

    The nodes are all in the pool.
    """
    present = tiled_stack_cost(graph, pool, coded(graph, pool, in_use))
    even = balanced(graph, pool, present, latency=objective.latency, period=objective.period)
    priced = with_tiles(graph, costs, even.tiling, cost(graph, pool, even))
    solution = _placed(graph, priced, even.tiling, constraints, objective)
    least = objective.value(predict(graph, found.placement, found.costs))
    if solution is None or (value := objective.value(predict(graph, solution.placement, priced))) > (1 + KEPT) * least:
        return found
    return Tiled(solution.placement, even.tiling, priced, exact.gap_between(least * (1 - found.gap), value))


def pins(graph: ModelGraph, tiling: Tiling) -> list[Pin]:
    """Constraints that keep a tiling's stack on the edge."""
    return [Pin(block, Tier.EDGE) for block in tiling.stack(graph).blocks]


def _priced(graph: ModelGraph, costs: Costs, given: TiledStackCost) -> Costs:
    times = given.seconds, given.alone_seconds, given.own_seconds, given.busy_seconds
    tiles = TilesCost(*times, joules=given.joules, cores_seconds=given.cores_seconds)
    return with_tiles(graph, costs, given.tiling, tiles)


def _placed(
    graph: ModelGraph, costs: Costs, tiling: Tiling, constraints: Sequence[Constraint], objective: Objective
) -> exact.Solution | None:
    asked = [*constraints, *pins(graph, tiling)]
    try:
        return exact.solve(graph, costs, asked, objective, explain=False)
    except Infeasible:
        return None


def _promise(objective: Objective, given: TiledStackCost) -> float:
    return (
        (objective.latency + objective.price) * given.gain_s
        + objective.period * (given.alone_seconds - given.period_s)
        + objective.energy * (given.alone_joules - given.joules)
    )


def least(costs: Costs, objective: Objective, given: TiledStackCost, whole: float) -> float:
    """A lower bound on the objective of placements with this stack in tiles, if none without them is below `whole`."""
    if objective.period:
        return objective.period * given.period_s
    per_second = objective.latency + objective.price * costs.prices.get(Tier.EDGE, 0.0)
    return whole - per_second * given.gain_s - objective.energy * (given.alone_joules - given.joules)


def _cut_value(graph: ModelGraph, costs: Costs, objective: Objective, given: TiledStackCost) -> float:
    """The best of the placements that cut the blocks' order twice with the stack between."""
    tiling = given.tiling
    values = cuts.values(graph, _priced(graph, costs, given), objective)
    return float(values[: tiling.first, tiling.last :].min())
