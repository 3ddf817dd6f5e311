"""The best placement, proved: by pricing all there are, or as a program over the steps of a placement.

A graph with few cuts has few placements (`enumeration`). Of others, the objective is a program: for each block v, a_v
says whether it runs beyond the device and b_v whether it runs in the cloud. A tensor's reach is the largest a (or b)
among its readers; it crosses a link where its reach exceeds its producer's. A link is used when any block stands beyond
it, and used back when an output does. The busiest stage or link is at least each of them. So the objective is exactly
that of `pipeline.cost.predict`. For latency, bytes and prices alone the program is linear and its corners are
placements (the polytope is that of Ishikawa's min-cut, PAMI 2003); limits and the period make it mixed-integer. What
the edge takes to handle a frame, if it has a block at all, no such row can say: the program is solved once with it and
once without the edge.

A tensor's cheapest codec, and what it takes with it, is a constant for each of its three ways, device to edge, edge to
cloud and device to cloud, so placement and codecs are chosen together. Where the last is not the sum of the other two
(nothing is decoded and encoded again at the edge), the product of "made on the device" and "read in the cloud" is an
unknown of its own.

What no placement as good as the best known one can do is settled before: a tensor that alone takes longer to send than
there is left does not cross.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.coding import WAYS, Way, back_over, over
from pipeline.cost import LINKS, Costs, predict
from pipeline.errors import Infeasible
from pipeline.graph import ModelGraph
from pipeline.partition.codings import Codings, Shares
from pipeline.partition.conflicts import explained, smallest_conflict
from pipeline.partition.constraints import Constraint, Limit, broken
from pipeline.partition.crossing import Crossings
from pipeline.partition.cut_family import Bools, all_cuts_of
from pipeline.partition.cuts import CutPrices, best_cuts
from pipeline.partition.enumeration import best_placement
from pipeline.partition.narrowing import Narrowed, narrowed
from pipeline.partition.objective import LATENCY, Objective
from pipeline.partition.program import PROOF, Program
from pipeline.partition.steps import Expression, Steps, ancestors
from pipeline.partition.worth import fixed_worth, overhead_worth
from pipeline.placement import Placement, Tier

_LEAST = 1e-12
"""Nothing is measured below a picosecond; keeps scales finite when everything is free."""
_SECONDARY = 1e-6
"""Where latency does not count, it decides between placements that differ by less than about this share."""
_ROUNDING = 1e-9
_MOST_REPAIRS = 5
_NARROWED_BRANCHES = 40
"""What is left when a program was narrowed down is worth a fraction of a percent, which more branches hardly prove."""


@dataclass(frozen=True, slots=True)
class Solution:
    """A placement, and by what share of its value a better one could be better at most."""

    placement: Placement
    gap: float


def partition(
    graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint] = (), objective: Objective = LATENCY
) -> Placement:
    """The placement with the least `objective.value(predict(...))` among all that respect the constraints.

    Tiers that `costs` has no times for get no blocks. Raises Infeasible, with a smallest set of conflicting
    constraints, when there is none, PlanError when the costs do not fit the graph.
    """
    return solve(graph, costs, constraints, objective).placement


def solve(
    graph: ModelGraph,
    costs: Costs,
    constraints: Sequence[Constraint] = (),
    objective: Objective = LATENCY,
    *,
    explain: bool = True,
) -> Solution:
    """Plan like `partition`, and give the gap to which the optimum was proved.

    Raises Infeasible (which names a smallest conflict only with `explain`, since finding it takes time), PlanError.
    """
    costs.check(graph)
    costs = objective.judging(costs)
    try:
        return _solve(graph, costs, constraints, objective)
    except Infeasible:
        if not explain:
            raise
        conflict = smallest_conflict(graph, costs, constraints, lambda some: feasible(graph, costs, some))
        raise explained(graph, costs, conflict) from None


def feasible(graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint]) -> Placement | None:
    """Some placement that respects the constraints (the earliest if they only say what runs where), else None."""
    try:
        if any(constraint.limits(graph, costs) for constraint in constraints):
            return _solve(graph, costs, constraints, LATENCY).placement
        steps = _allowed_steps(graph, costs, constraints)
        steps.settle()
        return steps.placement({steps.one: 1})
    except Infeasible:
        return None


def _solve(graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint], objective: Objective) -> Solution:
    family = all_cuts_of(graph)
    if family is None:
        return programmed(graph, costs, constraints, objective)
    judged = objective if objective.latency else with_latency(graph, costs, objective)
    placement, _ = best_placement(graph, CutPrices.under(graph, family, costs, judged), constraints)
    return Solution(placement, 0.0)


def programmed(
    graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint], objective: Objective = LATENCY
) -> Solution:
    """The optimum as a program, whatever the graph; costs are checked and judge by the objective. Raises Infeasible."""
    found = _solve_uncharged(graph, costs, constraints, objective)
    if not (overhead_worth(costs, objective, Tier.EDGE) and Tier.EDGE in found.placement):
        return found
    others = {tier: costs.seconds[tier] for tier in (Tier.DEVICE, Tier.CLOUD) if tier in costs.seconds}
    cores = tuple(shared.among(others) for shared in costs.cores)
    try:
        without = _solve_uncharged(graph, replace(costs, seconds=others, cores=cores), constraints, objective)
    except Infeasible:
        return found
    values = {s.placement: objective.value(predict(graph, s.placement, costs)) for s in (found, without)}
    best = min(values, key=lambda placement: values[placement])
    # the one that is dearer may still hide a better one than the best
    bound = min(values[solution.placement] * (1 - solution.gap) for solution in (found, without))
    return Solution(best, gap_between(bound, values[best]))


def gap_between(bound: float, value: float) -> float:
    """By what share of `value` something better could be better, when nothing is worth less than `bound`."""
    gap = max(0.0, 1 - bound / value) if value > 0 else 0.0
    return gap if gap > PROOF else 0.0


def _solve_uncharged(
    graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint], objective: Objective
) -> Solution:
    """The optimum without the edge's send and receive overhead, so the true optimum if the edge has no blocks."""
    limits = [limit for constraint in constraints for limit in constraint.limits(graph, costs)]
    known = _best_known(graph, costs, constraints, objective)
    judged = _judged_by(objective, graph, known.guide, costs)
    if known.allowed is not None and judged.period and len(costs.seconds) == len(Tier):
        within = narrowed(graph, costs, constraints, judged, known.allowed)
        if within.first is None:
            return Solution(within.placement, 0.0)
        known = replace(known, allowed=within.placement, within=within)
    for _ in range(_MOST_REPAIRS):
        placement, bound = _solve_program(graph, costs, constraints, limits, judged, known)
        exceeded = [number for number, limit in enumerate(limits) if not limit.is_met(graph, placement)]
        if not exceeded:
            value = judged.value(predict(graph, placement, costs))
            bound += overhead_worth(costs, judged, Tier.EDGE) * (Tier.EDGE in placement)
            return Solution(placement, gap_between(bound, value))
        # within the solver's tolerance of a limit, but beyond it
        for number in exceeded:
            limits[number] = replace(limits[number], bound=_a_little_less(limits[number].bound))
    raise Infeasible("no placement respects all constraints")


@dataclass(frozen=True, slots=True)
class _Known:
    """Placements known before solving: one that the constraints allow, if any, and one that may break them as
    a scale.
    """

    allowed: Placement | None
    guide: Placement
    within: Narrowed | None = None
    """Where a better placement has its cuts, if that was looked for."""


def _best_known(graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint], objective: Objective) -> _Known:
    candidates = list(best_cuts(graph, costs, objective))
    allowed = next((placement for placement in candidates if not broken(graph, placement, costs, constraints)), None)
    return _Known(allowed, candidates[0])


def with_latency(graph: ModelGraph, costs: Costs, objective: Objective) -> Objective:
    """The objective with a little weight on latency, which decides where all else is about equal."""
    return _judged_by(objective, graph, _best_known(graph, costs, (), objective).guide, costs)


def _judged_by(objective: Objective, graph: ModelGraph, guide: Placement, costs: Costs) -> Objective:
    if objective.latency:
        return objective
    predicted = predict(graph, guide, costs)
    value = objective.value(predicted) or 1.0
    return replace(objective, latency=_SECONDARY * value / max(predicted.seconds, _LEAST))


def _solve_program(
    graph: ModelGraph,
    costs: Costs,
    constraints: Sequence[Constraint],
    limits: Sequence[Limit],
    objective: Objective,
    known: _Known,
) -> tuple[Placement, float]:
    """The program's placement or, where it was narrowed down, the one known before if that is better; and a bound."""
    most = math.inf if known.allowed is None else objective.value(predict(graph, known.allowed, costs))
    try:
        steps = _settled_steps(graph, costs, constraints, objective, known, most)
        program = _program(steps, costs, limits, objective, known, most)
        values, bound = program.solve()
    except Infeasible:
        if known.within is None:
            raise
        return known.within.placement, most
    found = steps.placement(values)
    if known.within is None:
        return found, bound
    if objective.value(predict(graph, found, costs)) >= most:
        found = known.within.placement
    return found, max(min(bound, most), known.within.bound)


def _settled_steps(
    graph: ModelGraph,
    costs: Costs,
    constraints: Sequence[Constraint],
    objective: Objective,
    known: _Known,
    most: float,
) -> Steps:
    """The steps that are left of placements worth at most `most`, where these have their cuts."""
    steps = _allowed_steps(graph, costs, constraints)
    if known.allowed is not None:
        _rule_out(steps, costs, objective, most * (1 + _ROUNDING) + _LEAST)
    if known.within is not None:
        known.within.settle(steps)
    steps.settle()
    return steps


def _program(
    steps: Steps, costs: Costs, limits: Sequence[Limit], objective: Objective, known: _Known, most: float
) -> Program:
    scale = objective.value(predict(steps.graph, known.guide, costs)) if known.allowed is None else most
    program = Program(steps, max(scale, _LEAST))
    if known.within is not None:
        program.most_branches = _NARROWED_BRANCHES
    _price(program, costs, objective, most)
    for limit in limits:
        _add_limit(program, limit)
    return program


def _allowed_steps(graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint]) -> Steps:
    steps = Steps(graph)
    for tier in Tier:
        if tier not in costs.seconds:
            steps.forbid((block, tier) for block in range(1, len(graph)))
    for constraint in constraints:
        steps.forbid(constraint.forbidden(graph))
    return steps


def _a_little_less(bound: float) -> float:
    return bound - max(abs(bound), _LEAST) * 2e-6


def _rule_out(steps: Steps, costs: Costs, objective: Objective, most: float) -> None:
    """Settle what would make a placement worth more than `most`.

    Whatever is chosen, each block takes at least its cheapest tier's time: a crossing has what that leaves of `most`.
    """
    graph, tiers = steps.graph, sorted(costs.seconds)
    most -= fixed_worth(costs, objective)
    worth = [np.asarray(costs.seconds[tier]) * objective.per_second(costs, tier) for tier in tiers]
    taken = np.array(worth).min(axis=0).sum()
    codings = Codings.under(graph, costs)

    def is_too_dear(ways: Sequence[Way], lower: Tier) -> Bools:
        """For each tensor (or output) that goes any of these ways."""
        least = np.min([codings.worth(costs, objective, way) for way in ways], axis=0)
        sent_s = np.min([codings.ways[way].nbytes for way in ways], axis=0) / costs.link(lower).bandwidth_bytes_per_s
        return np.asarray((taken + least > most) | (objective.period * sent_s > most))

    for lower in LINKS:
        for tensor in np.flatnonzero(is_too_dear(over(lower), lower)).tolist():
            for reader in graph.consumers[tensor]:
                steps.tie(steps.passed(lower, reader), steps.passed(lower, graph.producer[tensor]))
        for output in np.flatnonzero(is_too_dear(back_over(lower), lower)).tolist():
            steps.tie(steps.passed(lower, graph.producer[graph.results[output]]), steps.zero)
    if objective.period:
        before = ancestors(graph)
        for tier, order in ((Tier.DEVICE, before), (Tier.CLOUD, before.T)):
            if tier in costs.seconds:
                # who is on the device has all before it there, who is in the cloud all after it
                busy_s = order @ np.asarray(costs.seconds[tier], float)
                steps.forbid((v, tier) for v in np.flatnonzero(busy_s * objective.period > most).tolist())


def _price(program: Program, costs: Costs, objective: Objective, most: float) -> None:
    """The objective, term by term as `pipeline.cost.predict` and `Objective.value` have it."""
    steps = program.steps
    program.add_cost({steps.one: 1.0}, fixed_worth(costs, objective))
    stages = {tier: steps.stage(tier, seconds) for tier, seconds in costs.seconds.items()}
    for tier, computed in stages.items():
        program.add_cost(computed, objective.per_second(costs, tier))
    if Tier.EDGE in stages:
        stages[Tier.EDGE] = _sum(stages[Tier.EDGE], {steps.one: -costs.waiting_s})
    busy = list(stages.values())
    for shared in costs.cores:
        taken = (_times(stages[tier], share) for tier, share in shared.shares.items())
        busy.append(_sum({steps.one: shared.tiles_s}, *taken))
    if costs.tiles is not None:
        busy.append({steps.one: costs.tiles.busy_seconds})
    codings = Codings.under(steps.graph, costs)
    crossing = Crossings(program, is_peaked=objective.period > 0)
    program.add_cost(crossing.sum(codings.worths(costs, objective)))
    for lower in LINKS:
        link = costs.link(lower)
        handled = overhead_worth(costs, objective, Tier.DEVICE if lower == Tier.DEVICE else Tier.CLOUD)
        program.add_cost(_used(program, lower), objective.latency * link.latency_s + handled)
        program.add_cost(_used_back(program, lower), objective.latency * link.latency_s)
        if objective.period:
            moved = crossing.sum(codings.link_bytes(lower))
            busy.append({unknown: nbytes / link.bandwidth_bytes_per_s for unknown, nbytes in moved.items()})
    if objective.period and codings.is_coded:
        busy += [crossing.sum(coder) for coder in codings.coders()]
    if objective.period:
        unit = program.scale / objective.period
        program.add_cost(program.peak(busy, unit, max(most, _LEAST) / objective.period), objective.period)


def _used(program: Program, lower: Tier) -> Expression:
    """1 if any block stands beyond a link."""
    steps, graph = program.steps, program.steps.graph
    feeding = {before for before, _ in graph.edges}
    return program.largest(steps.passed(lower, v) for v in range(len(graph)) if v not in feeding)


def _used_back(program: Program, lower: Tier) -> Expression:
    """1 if any output comes back over it."""
    steps, graph = program.steps, program.steps.graph
    return program.largest(steps.passed(lower, graph.producer[t]) for t in graph.outputs)


def _add_limit(program: Program, limit: Limit) -> None:
    steps = program.steps
    total: Expression = {}
    for tier, weights in limit.blocks.items():
        total = _sum(total, steps.stage(tier, weights))
    if limit.tensors:
        nothing = np.zeros(len(steps.graph.tensors))
        sent = Shares.adding(*(np.asarray(limit.tensors.get(way, nothing), float) for way in WAYS))
        total = _sum(total, Crossings(program, is_peaked=bool((sent.beyond < 0).any())).sum(sent))
    for lower, once in limit.beyond.items():
        total = _sum(total, {unknown: once * factor for unknown, factor in _used(program, lower).items()})
    for tier, weights in limit.peaks.items():
        single = (steps.on(tier, block, weight) for block, weight in enumerate(weights))
        total = _sum(total, program.peak(single, max(limit.bound, 1.0)))
    program.limit(total, limit.bound)


def _times(sum_: Expression, factor: float) -> Expression:
    return {unknown: factor * each for unknown, each in sum_.items()}


def _sum(*parts: Expression) -> Expression:
    made: Expression = {}
    for part in parts:
        for unknown, factor in part.items():
            made[unknown] = made.get(unknown, 0.0) + factor
    return made
