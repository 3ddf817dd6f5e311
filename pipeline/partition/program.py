"""A program over the steps of a placement: columns, rows and what the solver makes of them. Knows no seconds or bytes.

Without limits and peaks every row says that one column is at least another; such a matrix is totally unimodular, and a
corner of its polytope has only zeros and ones (Hoffman and Kruskal, 1956), so a linear program is enough. Otherwise it
is a mixed-integer program. HiGHS solves both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import Infeasible
from pipeline.partition.steps import Expression, Steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIE = 1e-9
"""Placements whose values differ by less than this share of the best are a tie: the earlier tiers win."""
PROOF = 1e-6
"""A mixed-integer program ends when no placement can be better by more than this share..."""
MOST_WORK = 30_000
"""...or after this many branches times columns, about half a second of work; the gap that is proved by then
is known.
"""

_SCALE = 1e6  # the best known value in the linear solver's units; its tolerances are absolute, 1e-10
_INTEGRAL = 1e-6
_INFEASIBLE = 2


@dataclass
class Program:
    """Columns, the steps first, with the least cost among those that keep every row `sum <= bound`."""

    steps: Steps
    scale: float
    """Of the objective: about what the best placement costs. The solver's tolerances are absolute."""
    most_branches: int = MOST_WORK
    """After so many the gap that is proved by then is taken, even if MOST_WORK would allow for more."""
    _column: dict[int, int] = field(init=False)
    _cost: list[float] = field(init=False)
    _upper: list[float] = field(init=False)
    _constant: float = 0.0
    _rows: list[tuple[list[int], list[float], float]] = field(init=False, default_factory=list)
    _largest: dict[frozenset[int], int] = field(init=False, default_factory=dict)
    _products: dict[tuple[int, int], int] = field(init=False, default_factory=dict)
    _is_linear: bool = True

    def __post_init__(self) -> None:
        kept = sorted({u for u in map(self.steps.find, range(self.steps.zero)) if u < self.steps.zero})
        self._column = {unknown: column for column, unknown in enumerate(kept)}
        self._step_count = len(kept)
        self._cost, self._upper = [0.0] * len(kept), [1.0] * len(kept)
        self._rows = [([self._column[less], self._column[more]], [1.0, -1.0], 0.0) for less, more in self.steps.edges]

    def largest(self, unknowns: Iterable[int]) -> Expression:
        """The largest of some unknowns, right wherever it is to be small."""
        steps = self.steps
        merged = {steps.find(unknown) for unknown in unknowns} - {steps.zero}
        if steps.one in merged:
            return {steps.one: 1.0}
        if len(merged) <= 1:
            return dict.fromkeys(merged, 1.0)
        key = frozenset(merged)
        if key not in self._largest:
            self._largest[key] = self._new_column()
            for unknown in merged:
                self._rows.append(([self._column[unknown], self._column[self._largest[key]]], [1.0, -1.0], 0.0))
        return {self._largest[key]: 1.0}

    def product(self, reach: Expression, inside: int, *, is_up: bool, is_down: bool) -> Expression:
        """1 where `reach`, of one unknown at most, is 1 and `inside` is 0: right where it is pulled up, down, or both.

        Where it is pulled up (its cost is below 0) the rows are no differences any more: the solution of the linear
        program may be no corner of placements then, which is seen, and solved as a mixed-integer one.
        """
        steps = self.steps
        if not reach or inside == steps.one:
            return {}
        (of,) = reach
        if inside == steps.zero:
            return {of: 1.0}
        if of == steps.one:
            return {steps.one: 1.0, inside: -1.0}
        if (of, inside) not in self._products:
            self._products[of, inside] = self._new_column()
        made = self._products[of, inside]
        if is_down:
            self._add_row({of: 1.0, inside: -1.0, made: -1.0}, 0.0)
        if is_up:
            self._add_row({made: 1.0, of: -1.0}, 0.0)
            self._add_row({made: 1.0, inside: 1.0}, 1.0)
        return {made: 1.0}

    def no_larger_than_sum(self, reach: Expression, unknowns: Iterable[int]) -> None:
        """The largest of the unknowns, as `largest` has it, is none that stands above all of them."""
        of = {self.steps.find(unknown) for unknown in unknowns} - {self.steps.zero}
        if len(of) > 1 and self.steps.one not in reach:
            (largest,) = reach
            self._add_row({largest: 1.0, **dict.fromkeys(of, -1.0)}, 0.0)

    def peak(self, sums: Iterable[Expression], unit: float, most: float = np.inf) -> Expression:
        """The largest of some sums, right wherever it is to be small; about as large as `unit`, at most `most`."""
        self._is_linear = False
        unknown = self._new_column(most / unit)
        for part in sums:
            self._add_row({**part, unknown: -unit}, 0.0)
        return {unknown: unit}

    def limit(self, expression: Expression, bound: float) -> None:
        """A sum may not exceed a bound."""
        self._is_linear = False
        self._add_row(expression, bound)

    def add_cost(self, expression: Expression, weight: float = 1.0) -> None:
        """Count a sum in the objective."""
        for unknown, factor in expression.items():
            if unknown == self.steps.one:
                self._constant += weight * factor
            else:
                self._cost[self._column[unknown]] += weight * factor

    def solve(self) -> tuple[dict[int, int], float]:
        """The value of each representative (the constants' too), and a lower bound of the objective.

        Raises Infeasible when there is none.
        """
        steps = self.steps
        found, bound = {steps.zero: 0, steps.one: 1}, self._constant
        if self._cost:
            solution, bound = self._linear() if self._is_linear else self._integer()
            values = np.rint(solution[: self._step_count]).astype(int).tolist()
            found |= dict(zip(self._column, values, strict=False))
        return found, bound

    def _new_column(self, upper: float = 1.0) -> int:
        unknown = self.steps.one + 1 + len(self._cost)
        self._column[unknown] = len(self._cost)
        self._cost.append(0.0)
        self._upper.append(upper)
        return unknown

    def _add_row(self, expression: Expression, bound: float) -> None:
        bound -= expression.get(self.steps.one, 0.0)
        terms = [(self._column[u], factor) for u, factor in expression.items() if u != self.steps.one and factor]
        size = max([abs(bound), *(abs(factor) for _, factor in terms)], default=0.0)
        if size > 0:  # the solver's tolerances are absolute
            self._rows.append(([c for c, _ in terms], [factor / size for _, factor in terms], bound / size))

    def _linear(self) -> tuple[NDArray[np.float64], float]:
        """A corner, every column within 1e-6 of 0 or 1; of equally cheap ones the smallest."""
        from scipy.optimize import linprog  # SciPy takes 0.4 s to import: a process that plans nothing does not pay

        matrix, upper = self._matrix()
        result = linprog(
            self._tied_cost(_SCALE),
            A_ub=matrix,
            b_ub=upper,
            bounds=(0, 1),  # a linear program has no peaks
            method="highs-ds",
            options={"dual_feasibility_tolerance": 1e-10},
        )
        if result.x is None:
            raise AssertionError(f"a feasible program was not solved: {result.message}")
        if np.abs(result.x - np.rint(result.x)).max() > _INTEGRAL:
            # Not a corner after all: numerical trouble in the solver. Branching costs time, never optimality.
            return self._integer()
        return np.asarray(result.x, dtype=np.float64), self._constant + float(np.dot(self._cost, result.x))

    def _integer(self) -> tuple[NDArray[np.float64], float]:
        from scipy.optimize import Bounds, LinearConstraint, milp

        matrix, upper = self._matrix()
        integrality = np.zeros(len(self._cost))
        integrality[: self._step_count] = 1
        rows = LinearConstraint(matrix, -np.inf, upper) if upper.size else ()
        options: dict[str, Any] = {"mip_rel_gap": PROOF, "node_limit": self._most_branches()}

        def solved() -> Any:
            bounds = Bounds(0, self._upper)
            cost = self._tied_cost(1.0)
            # of its own: SciPy takes some out of those that it is given
            return milp(cost, integrality=integrality, bounds=bounds, constraints=rows, options=dict(options))

        result = solved()
        if result.x is None and result.status != _INFEASIBLE:
            del options["node_limit"]  # nothing found yet: go on until there is
            result = solved()
        if result.x is None:
            raise Infeasible("no placement respects all constraints")
        proved = result.fun if result.mip_dual_bound is None else result.mip_dual_bound  # None: no integers were left
        bound = float(proved) * self.scale + self._constant
        return np.asarray(result.x, dtype=np.float64), bound

    def _most_branches(self) -> int:
        return max(1, min(MOST_WORK // len(self._cost), self.most_branches))

    def _tied_cost(self, unit: float) -> NDArray[np.float64]:
        return np.asarray(self._cost) * (unit / self.scale) + TIE * unit / len(self._cost)

    def _matrix(self) -> tuple[Any, NDArray[np.float64]]:
        from scipy.sparse import csr_array

        counts = [len(columns) for columns, _, _ in self._rows]
        rows = np.repeat(np.arange(len(counts)), counts)
        columns = np.array([c for row in self._rows for c in row[0]], dtype=np.int32)
        factors = np.array([f for row in self._rows for f in row[1]], dtype=np.float64)
        upper = np.array([bound for _, _, bound in self._rows], dtype=np.float64)
        return csr_array((factors, (rows, columns)), shape=(len(counts), len(self._cost))), upper
