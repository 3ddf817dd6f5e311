"""Conflicts: a smallest set of constraints that no placement respects together.

The implicit hitting set algorithm (Ignatiev et al., "Smallest MUS extraction with minimal hitting set dualization",
CP 2015): a conflict must hit every set of constraints whose release makes the rest feasible; a smallest set that hits
all such sets known so far is either a conflict, so a smallest one, or shows the next set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.cost import Costs
from pipeline.errors import Infeasible
from pipeline.graph import ModelGraph
from pipeline.partition.constraints import Constraint, broken
from pipeline.placement import Placement, Tier

Feasible = Callable[[Sequence[Constraint]], Placement | None]
"""A placement that respects them, if there is one."""


def smallest_conflict(
    graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint], feasible: Feasible
) -> tuple[Constraint, ...]:
    """A smallest set of the constraints that no placement respects together.

    All of them together must be infeasible; `feasible` finds a placement for a subset, or None.
    """
    constraints = list(dict.fromkeys(constraints))
    corrections: list[list[int]] = []
    while True:
        hitting = _smallest_hitting_set(len(constraints), corrections)
        chosen = [constraints[i] for i in hitting]
        placement = feasible(chosen)
        if placement is None:
            return tuple(chosen)
        corrections.append(_released(graph, costs, constraints, hitting, placement, feasible))


def explained(graph: ModelGraph, costs: Costs, conflict: Sequence[Constraint]) -> Infeasible:
    """The error to raise for a conflict: names its constraints, the facts they meet, and the way out."""
    absent = [f"the {tier.label} has no node" for tier in Tier if tier not in costs.seconds]
    described = "; ".join(constraint.describe(graph) for constraint in conflict)
    which = "this cannot be had" if len(conflict) == 1 else f"these {len(conflict)} constraints conflict"
    remedy = "release it" if len(conflict) == 1 else "release one of them"
    facts = ", ".join(["data only flows device -> edge -> cloud", "the input stands on the device", *absent])
    return Infeasible(f"no placement: {which}: {described} ({facts}); {remedy}")


def _released(
    graph: ModelGraph,
    costs: Costs,
    constraints: Sequence[Constraint],
    kept: Sequence[int],
    placement: Placement,
    feasible: Feasible,
) -> list[int]:
    """The fewest more that must be released for the kept ones to be respected, found by adding one after the other."""
    respected = set(kept)
    for i, constraint in enumerate(constraints):
        if i in respected:
            continue
        if broken(graph, placement, costs, [constraint]):
            other = feasible([constraints[k] for k in sorted(respected)] + [constraint])
            if other is None:
                continue
            placement = other
        respected.add(i)
    return [i for i in range(len(constraints)) if i not in respected]


def _smallest_hitting_set(count: int, sets: Sequence[Sequence[int]]) -> list[int]:
    if not sets:
        return []
    from scipy.optimize import Bounds, LinearConstraint, milp

    hits = np.zeros((len(sets), count))
    for row, members in enumerate(sets):
        hits[row, list(members)] = 1
    result = milp(
        np.ones(count), integrality=np.ones(count), bounds=Bounds(0, 1), constraints=LinearConstraint(hits, 1, np.inf)
    )
    return np.flatnonzero(np.rint(result.x)).tolist()
