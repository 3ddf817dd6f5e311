"""Which nodes, and which placement on them: every combination of candidates is planned, the cheapest first.

A tier has one node in a plan, so the best over all nodes is the best over combinations. Knows no roster and no broker.
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
from pipeline.tiles.choice import Sharing
from pipeline.tiles.team import Team
from pipeline.tiles.tiling import Tiling


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node for the device and for some other tiers, what they cost together, and what limits just them.

    `team` are the edge's node and those that compute tiles for it, `sharings` the stacks that pay for it by themselves,
    `in_use` the tiles that there are now.
    """

    nodes: Mapping[Tier, str]
    costs: Costs
    constraints: tuple[Constraint, ...] = ()
    team: Team | None = None
    sharings: tuple[Sharing, ...] = ()
    in_use: Tiling | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A placement, the nodes of the tiers that it uses, and its price.

    `costs` is what it was priced with, `value` what the objective makes of the price, `gap` the share by which a better
    one could be better at most (0.0 when the optimum is proved): on these nodes, and for the first of `choose` on any.
    """

    placement: Placement
    nodes: Mapping[Tier, str]
    predicted: Prediction
    costs: Costs
    value: float
    gap: float = 0.0
    tiling: Tiling | None = None


def priced(
    graph: ModelGraph, placement: Placement, candidate: Candidate, objective: Objective = LATENCY, gap: float = 0.0
) -> Choice:
    """The placement on the candidate's nodes, those without blocks left out."""
    predicted = predict(graph, placement, candidate.costs)
    used = {tier: candidate.nodes[tier] for tier in sorted({*placement, Tier.DEVICE})}
    return Choice(placement, used, predicted, candidate.costs, objective.value(predicted), gap)


def rank(choice: Choice) -> tuple[float, float, int]:
    """What choices are ordered by: the objective, then latency, then how few nodes they need."""
    return choice.value, choice.predicted.seconds, len(choice.nodes)


def choose(
    graph: ModelGraph,
    candidates: Iterable[Candidate],
    constraints: Sequence[Constraint] = (),
    objective: Objective = LATENCY,
) -> list[Choice]:
    """The exact plan of each combination of nodes, by `rank`.

    Raises Infeasible, with the conflict of the combination that has most nodes, when there is none.
    """
    found: list[Choice] = []
    bounds: list[float] = []
    candidates = sorted(candidates, key=lambda candidate: -len(candidate.nodes))
    for candidate in candidates:
        try:
            solution = exact.solve(
                graph, candidate.costs, [*constraints, *candidate.constraints], objective, explain=False
            )
        except Infeasible:
            continue
        whole = priced(graph, solution.placement, candidate, objective, solution.gap)
        shared, bound = _shared_out(graph, candidate, constraints, objective, whole)
        here = [whole, shared] if shared is not None and shared.value < whole.value else [whole]
        found += [replace(choice, gap=exact.gap_between(bound, choice.value)) for choice in here]
        bounds.append(bound)
    if candidates and not found:
        exact.solve(graph, candidates[0].costs, [*constraints, *candidates[0].constraints], objective)
    ranked = list(_distinct(sorted(found, key=rank)))
    return [replace(first, gap=exact.gap_between(min(bounds), first.value)) for first in ranked[:1]] + ranked[1:]


def _shared_out(
    graph: ModelGraph, candidate: Candidate, constraints: Sequence[Constraint], objective: Objective, whole: Choice
) -> tuple[Choice | None, float]:
    """The best choice with tiles, if there is one, and what no choice of this candidate can be below, tiles or not."""
    least = whole.value * (1 - whole.gap)
    if candidate.team is None or not candidate.sharings:
        return None, least
    asked = [*constraints, *candidate.constraints]
    costs, team = candidate.costs, candidate.team
    found, bound = tiled.best(graph, costs, team, candidate.sharings, asked, objective, least)
    if found is not None and candidate.in_use is not None:
        found = tiled.kept(graph, costs, team, candidate.in_use, asked, objective, found)
    if found is None:
        return None, min(least, bound)
    on_terms = replace(candidate, costs=found.costs)
    shared = replace(priced(graph, found.placement, on_terms, objective), tiling=found.tiling)
    return shared, min(least, bound)


def _distinct(choices: Sequence[Choice]) -> Iterator[Choice]:
    """Each placement on the same nodes once, the first of it: beside nodes that get no block it may be dearer."""
    seen = set()
    for choice in choices:
        key = (choice.placement, tuple(choice.nodes.items()), choice.tiling)
        if key not in seen:
            seen.add(key)
            yield choice
