"""The placement of least latency, proved: a linear program whose corners are placements.

For each block v, a_v says whether it runs beyond the device and b_v whether it runs in the cloud, b_v <= a_v, both
growing along the graph's edges. A tensor's reach is the largest a (or b) among its readers; it crosses a link where its
reach exceeds its producer's. A link is used when any block stands beyond it, and used back when an output does. Each
of these is a variable that is at least another, so every row of the matrix holds one +1 and one -1: it is totally
unimodular, and a corner of the polytope has only zeros and ones (Hoffman and Kruskal, 1956). The objective is exactly
`pipeline.cost.predict`. The same polytope is the min-cut of Ishikawa's construction (PAMI 2003).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.cost import Costs, predict
from pipeline.graph import ModelGraph
from pipeline.partition.constraints import NONE, Allowed, Constraints, allowed, earliest
from pipeline.placement import Placement, Tier

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIE = 1e-9
"""Placements whose latencies differ by less than this share of the best are a tie: the earlier tiers win."""

_SCALE = 1e6  # the best known placement's cost in the solver's units; its tolerances are absolute, 1e-10
_LEAST_S = 1e-12  # nothing is measured below a picosecond; keeps the scale finite when everything is free
_INTEGRAL = 1e-6


def partition(graph: ModelGraph, costs: Costs, constraints: Constraints = NONE) -> Placement:
    """The placement with the least `predict(...).seconds` among all that `constraints` allow.

    Tiers that `costs` has no times for get no blocks. Raises Infeasible when nothing is allowed, PlanError when the
    costs do not fit the graph.
    """
    costs.check(graph)
    choices = allowed(graph, costs.seconds.keys(), constraints)
    known_s = _best_known_s(graph, costs, choices)
    program = _program(graph, costs, choices, worst_s=2 * known_s)
    solution = _solve(program, _SCALE / known_s)
    beyond_device, in_cloud = np.rint(solution[: 2 * len(graph)]).astype(int).reshape(2, len(graph))
    return tuple(Tier(a + b) for a, b in zip(beyond_device.tolist(), in_cloud.tolist(), strict=True))


def _best_known_s(graph: ModelGraph, costs: Costs, choices: Allowed) -> float:
    """Seconds of the best placement that needs no solver: the earliest feasible one or a single tier."""
    candidates = [earliest(graph, choices)]
    for tier in costs.seconds:
        single = (Tier.DEVICE, *[tier] * (len(graph) - 1))
        if all(t in free for t, free in zip(single, choices, strict=True)):
            candidates.append(single)
    return max(_LEAST_S, min(predict(graph, candidate, costs).seconds for candidate in candidates))


@dataclass
class _Program:
    """Minimise `cost @ x` with `lower <= x <= upper` (all within 0..1) and x[above] >= x[below] for each of `rows`."""

    cost: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    rows: list[tuple[int, int]] = field(default_factory=list)

    def variable(self, cost: float = 0.0, lower: bool = False, upper: bool = True) -> int:
        self.cost.append(cost)
        self.lower.append(float(lower))
        self.upper.append(float(upper))
        return len(self.cost) - 1

    def at_least(self, above: int, below: int) -> None:
        self.rows.append((above, below))

    def largest(self, of: Iterable[int], cost: float) -> None:
        """Add a price for the largest of some variables: exact, because a minimum pushes it down onto them."""
        of = list(dict.fromkeys(of))
        if len(of) == 1:
            self.cost[of[0]] += cost
        elif of:
            largest = self.variable(cost)
            for variable in of:
                self.at_least(largest, variable)


def _program(graph: ModelGraph, costs: Costs, choices: Allowed, worst_s: float) -> _Program:
    """The program; no single price exceeds `worst_s`, which is dearer than a known placement as a whole.

    Bounding prices so changes no optimum and keeps hours and microseconds out of the same floating-point sum.
    """
    program = _Program()
    seconds = {tier: np.minimum(times, worst_s) for tier, times in costs.seconds.items()}
    zeros = np.zeros(len(graph))
    device = seconds[Tier.DEVICE]
    edge = seconds.get(Tier.EDGE, zeros)  # cancels where a block must skip the edge: there a_v == b_v
    cloud = seconds.get(Tier.CLOUD, zeros)
    beyond_device = [
        program.variable(float(edge[v] - device[v]), lower=Tier.DEVICE not in free, upper=free != {Tier.DEVICE})
        for v, free in enumerate(choices)
    ]
    in_cloud = [
        program.variable(float(cloud[v] - edge[v]), lower=free == {Tier.CLOUD}, upper=Tier.CLOUD in free)
        for v, free in enumerate(choices)
    ]
    for v, free in enumerate(choices):
        program.at_least(beyond_device[v], in_cloud[v])
        if Tier.EDGE not in free:
            program.at_least(in_cloud[v], beyond_device[v])
    for lower, passed in ((Tier.DEVICE, beyond_device), (Tier.EDGE, in_cloud)):
        for before, after in graph.edges:
            program.at_least(passed[after], passed[before])
        _price_link(program, graph, costs, lower, passed, worst_s)
    return program


def _price_link(
    program: _Program, graph: ModelGraph, costs: Costs, lower: Tier, passed: Sequence[int], worst_s: float
) -> None:
    """Add what the link above `lower` costs, where `passed[v]` says that block v stands beyond it."""
    link = costs.link(lower)
    latency_s = min(link.latency_s, worst_s)

    def transfer_s(tensor: int) -> float:
        return min(graph.tensors[tensor].nbytes / link.bandwidth_bytes_per_s, worst_s)

    for tensor, readers in enumerate(graph.consumers):
        if readers:
            program.largest((passed[reader] for reader in readers), transfer_s(tensor))
            program.cost[passed[graph.producer[tensor]]] -= transfer_s(tensor)
    returning = [passed[graph.producer[tensor]] for tensor in sorted(set(graph.outputs))]
    for tensor, producer in zip(sorted(set(graph.outputs)), returning, strict=True):
        program.cost[producer] += transfer_s(tensor)
    feeding = {before for before, _ in graph.edges}
    program.largest((passed[v] for v in range(len(graph)) if v not in feeding), latency_s)
    program.largest(returning, latency_s)


def _solve(program: _Program, scale: float) -> NDArray[np.float64]:
    """A corner of the program, every variable within 1e-6 of 0 or 1; of equally cheap ones the smallest."""
    cost = np.asarray(program.cost) * scale + TIE * _SCALE / len(program.cost)
    solution = _highs(program, cost, integrality=0)
    if np.abs(solution - np.rint(solution)).max() > _INTEGRAL:
        # Not a corner after all: numerical trouble in the solver. Branching costs time, never optimality.
        solution = _highs(program, cost, integrality=1)
    return solution


def _highs(program: _Program, cost: NDArray[np.float64], integrality: int) -> NDArray[np.float64]:
    # SciPy takes 0.4 s to import: a process that plans nothing does not pay for it.
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    count = len(program.rows)
    above, below = np.asarray(program.rows, dtype=np.int32).reshape(count, 2).T
    matrix = csr_array(
        (np.repeat([-1.0, 1.0], count), (np.tile(np.arange(count), 2), np.concatenate([above, below]))),
        shape=(count, len(cost)),
    )
    options: dict[str, Any] = {"mip_rel_gap": 0.0} if integrality else {"dual_feasibility_tolerance": 1e-10}
    result = linprog(
        cost,
        A_ub=matrix,
        b_ub=np.zeros(count),
        bounds=np.column_stack([program.lower, program.upper]),
        method="highs" if integrality else "highs-ds",
        integrality=integrality,
        options=options,
    )
    if result.x is None:
        raise AssertionError(f"a feasible program was not solved: {result.message}")
    return np.asarray(result.x, dtype=np.float64)
