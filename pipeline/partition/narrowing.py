"""Where the best placement for throughput can be: a Lagrangian of the period over intervals of a graph's cuts.

The period is the largest of a few sums, so for any weights of these that add up to 1 their mean is no more than it.
With fixed weights the objective falls into a part of the first cut and one of the second, each a minimum cut (Picard,
1976). A mean over all cuts would be loose: a relaxed plan cuts a little everywhere. So each pair of intervals of cuts
has a bound of its own, the largest over the weights that were tried; those for the loosest pair come from a small
program over its cuts so far (Kelley, 1960). The cuts that are found make good placements too, and pairs that cannot
beat the best of these are left out. What then is left is searched to its end (`cut_pairs`), with the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.cost import LINKS, Costs, predict
from pipeline.graph import ModelGraph
from pipeline.partition.codings import Codings
from pipeline.partition.constraints import Constraint, broken
from pipeline.partition.cut_diagram import CutDiagram
from pipeline.partition.cut_family import Bools, Floats
from pipeline.partition.cut_intervals import CutIntervals, intervals_of
from pipeline.partition.cut_pairs import NESTED_ROOM, PairSearch, Side
from pipeline.partition.objective import Objective
from pipeline.partition.program import PROOF
from pipeline.partition.steps import Steps
from pipeline.partition.worth import fixed_worth
from pipeline.placement import Placement, Tier

_MOST_WEIGHTS = 6
"""Weights are tried so often at most; each takes some 10 ms on a graph of 500 blocks."""
_PROMISING = 2
"""Pairs of cuts that are priced in full for each."""
_LEAST = 1e-300
"""Of seconds, so that a sum of their reciprocals is finite."""
_FIRST_LINK, _FIRST_SHARED, _REST = len(Tier), len(Tier) + len(LINKS), -1
"""Columns of sums: tiers, links, cores that nodes share, and the rest."""


@dataclass(frozen=True, slots=True)
class Narrowed:
    """The best placement that was found, and intervals of its cuts in which a better one would have to have its own.

    Without intervals there is none that is better by more than PROOF.
    """

    placement: Placement
    first: tuple[Bools, Bools] | None = None
    """The least and the largest set of blocks on the device."""
    second: tuple[Bools, Bools] | None = None
    """The same of device and edge together."""
    bound: float = 0.0
    """No placement is worth less."""

    def settle(self, steps: Steps) -> None:
        """Rule out what lies outside."""
        for lower, bounds in zip(LINKS, (self.first, self.second), strict=True):
            for inside, constant in zip(bounds or (), (steps.zero, steps.one), strict=False):
                is_known = inside if constant == steps.zero else ~inside
                for block in np.flatnonzero(is_known).tolist():
                    steps.tie(steps.passed(lower, block), constant)


def narrowed(
    graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint], objective: Objective, known: Placement
) -> Narrowed:
    """Search from a placement that the constraints allow, for an objective with a period and costs of all tiers."""
    return _Search(graph, costs, constraints, objective, known).run()


@dataclass(frozen=True, slots=True)
class _Sums:
    """What one cut adds to each sum, in columns: tiers and links of the period by number, cores that nodes share, and
    last all that is added up.

    A crossing tensor adds at least 0; what would be below is in the constant, since no cut has less than that.
    """

    inside: Floats
    """`[block, sum]`"""
    crossing: Floats
    """`[tensor, sum]`"""
    constant: Floats
    """`[sum]`"""

    def of(self, network: CutIntervals, graph: ModelGraph, found: Bools) -> Floats:
        """`[cut, sum]`."""
        crossing = network.crossing(graph, found).astype(float)
        made: Floats = found.astype(float) @ self.inside + crossing @ self.crossing + self.constant
        return made

    @classmethod
    def empty(cls, graph: ModelGraph, columns: int) -> _Sums:
        """All zero."""
        return cls(np.zeros((len(graph), columns)), np.zeros((len(graph.tensors), columns)), np.zeros(columns))

    def share(self, column: int, shares: Mapping[Tier, float]) -> None:
        """Put the sum of the tiers' shares into a column."""
        for tier, share in shares.items():
            self.inside[:, column] += share * self.inside[:, tier]
            self.constant[column] += share * self.constant[tier]


def _sums(graph: ModelGraph, costs: Costs, objective: Objective) -> tuple[_Sums, _Sums]:
    """Of the first cut and of the second: device, edge, cloud, both links, shared cores, the rest of the objective."""
    codings = Codings.under(graph, costs)
    worth = codings.worths(costs, objective)
    seconds = {tier: np.asarray(costs.seconds[tier], float) for tier in Tier}
    on = {tier: seconds[tier] * objective.per_second(costs, tier) for tier in Tier}
    makers = [graph.producer[tensor] for tensor in graph.results]
    columns = _FIRST_SHARED + len(costs.cores) + 1
    first, second = _Sums.empty(graph, columns), _Sums.empty(graph, columns)
    for lower, sums in zip(LINKS, (first, second), strict=True):
        sums.inside[:, lower] = seconds[lower]
        sums.inside[:, lower + 1] = -seconds[Tier(lower + 1)]
        link, per_byte = _FIRST_LINK + lower, 1 / costs.link(lower).bandwidth_bytes_per_s
        sent, is_first = codings.link_bytes(lower), lower is Tier.DEVICE
        sums.crossing[:, link] = ((sent.below if is_first else sent.above) + np.minimum(sent.beyond, 0.0)) * per_byte
        sums.crossing[:, _REST] = worth.below + np.minimum(worth.beyond, 0.0) if is_first else worth.above
        sums.inside[:, _REST] = on[lower] - on[Tier(lower + 1)]
        back = (sent.returned.at_least() if is_first else sent.returned.above) * per_byte
        for column, answers in ((link, back), (_REST, worth.returned.below if is_first else worth.returned.above)):
            np.subtract.at(sums.inside[:, column], makers, answers)
            sums.constant[column] = answers.sum()
        sums.constant[:] += np.minimum(sums.crossing, 0.0).sum(axis=0)
        np.maximum(sums.crossing, 0.0, out=sums.crossing)
    first.constant[Tier.EDGE] -= costs.waiting_s
    second.constant[Tier.CLOUD] += seconds[Tier.CLOUD].sum()
    second.constant[_REST] += on[Tier.CLOUD].sum() + fixed_worth(costs, objective)
    for column, shared in enumerate(costs.cores, start=_FIRST_SHARED):
        first.share(column, shared.shares)
        second.share(column, shared.shares)
        second.constant[column] += shared.tiles_s
    return first, second


class _Search:
    """Bounds by pairs of intervals, and the best placement, as more weights are tried."""

    def __init__(
        self, graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint], objective: Objective, known: Placement
    ) -> None:
        self.graph, self.costs, self.constraints, self.objective = graph, costs, constraints, objective
        self.network = intervals_of(graph)
        self.sums = _sums(graph, costs, objective)
        self.count = _FIRST_SHARED + len(costs.cores)
        """Sums of which the period is the largest."""
        self.best, self.value = known, objective.value(predict(graph, known, costs))
        self.weights: list[Floats] = []
        self.tried: list[tuple[Floats, Floats]] = []
        self.bound = self._plain_bound()
        self.is_final = np.zeros_like(self.bound, bool)

    def run(self) -> Narrowed:
        """Try weights until no pair is left, or none whose bound would grow."""
        weights = self._first_weights()
        for _ in range(_MOST_WEIGHTS):
            self._try(weights)
            is_open = self._is_live() & ~self.is_final
            if not is_open.any():
                break
            loosest = np.where(is_open, self.bound, np.inf)
            weights = self._weights_for(*np.unravel_index(loosest.argmin(), loosest.shape))
        is_live = self._is_live()
        if not is_live.any():
            return Narrowed(self.best)
        first, second = (np.flatnonzero(is_live.any(axis=axis)) for axis in (1, 0))
        low, up = self.network.low, self.network.up
        within = (low[first[0]], up[first[-1]]), (low[second[0]], up[second[-1]])
        bound = self._search_within(*within)
        if bound >= self.value * (1 - PROOF):
            return Narrowed(self.best)
        return Narrowed(self.best, *within, bound=bound)

    def _search_within(self, first: tuple[Bools, Bools], second: tuple[Bools, Bools]) -> float:
        """What no placement with its cuts there is worth less than, 0 if that was not found out; keeps the best one."""
        one, other = self._side(Tier.DEVICE, first), self._side(Tier.EDGE, second)
        if one is None or other is None:
            return 0.0
        search = PairSearch(one, other, self.value, self._joined, is_nested=False)
        bound, may_be_apart = search.run(), (first[1] & ~second[0]).any()
        if 0 < bound < self.value * (1 - PROOF) and may_be_apart and search.room in NESTED_ROOM:
            bound = max(bound, PairSearch(one, other, self.value, self._joined, is_nested=True).run())
        return bound

    def _side(self, lower: Tier, bounds: tuple[Bools, Bools]) -> Side | None:
        """The cuts within bounds that say what stands beyond a tier, None if they are too many."""
        diagram = CutDiagram.between(self.graph, *bounds)
        if diagram is None:
            return None
        own = (Tier.DEVICE, Tier.CLOUD)[lower], Tier.EDGE, _FIRST_LINK + lower
        sums, stages = self.sums[lower], [*own, *range(_FIRST_SHARED, self.count)]
        unit = np.array([self.objective.period] * len(stages) + [1.0])
        inside, crossing, constant = (
            part[..., [*stages, _REST]] * unit for part in (sums.inside, sums.crossing, sums.constant)
        )
        weights = np.vstack([*self.weights, np.eye(self.count)])  # each stage and link by itself, too
        rates = np.vstack([weights[:, stages].T, np.ones(len(weights))])
        return Side(diagram, inside, crossing, constant, rates)

    def _joined(self, first: Bools, second: Bools) -> float:
        """Keep the placement of two cuts if it is the best; the best one's value."""
        self._offer(first & second, second)
        return self.value

    def _plain_bound(self) -> Floats:
        """What each pair has for certain: blocks within both ends of an interval, tensors that cross at any."""
        network, (first, second) = self.network, self.sums
        certain, low, up = (
            network.certain(self.graph).astype(float),
            network.low.astype(float),
            network.up.astype(float),
        )
        sides = []
        for lower, sums in zip(LINKS, self.sums, strict=True):
            link = _FIRST_LINK + lower
            sent_s = certain @ sums.crossing[:, link] + up @ sums.inside[:, link] + sums.constant[link]
            before, behind = low @ first.inside[:, Tier.DEVICE], (up - 1) @ second.inside[:, Tier.CLOUD]
            sides.append(np.maximum(sent_s, before if lower is Tier.DEVICE else behind))
        between = (1 - up) @ (second.inside[:, Tier.EDGE, None] * low.T) + first.constant[Tier.EDGE]
        bound = self.objective.period * np.maximum(np.maximum(sides[0][:, None], sides[1][None, :]), between)
        bound[np.tri(len(bound), k=-1) > 0] = np.inf  # the second cut reaches as far as the first
        return np.asarray(bound)

    def _is_live(self) -> Bools:
        alive: Bools = self.bound < self.value * (1 - PROOF)
        return alive

    def _first_weights(self) -> Floats:
        """Such that each tier would take as long for all blocks, and each link for its largest tensor; shared cores
        come with the weights that the bounds ask for.
        """
        first, second = self.sums
        computed = (np.abs(second.inside if tier else first.inside)[:, tier].sum() for tier in Tier)
        sent = (sums.crossing[:, _FIRST_LINK + lower].max() for lower, sums in zip(LINKS, self.sums, strict=True))
        weights = 1 / np.maximum([*computed, *sent], _LEAST)
        return np.append(weights / weights.sum(), np.zeros(len(self.costs.cores)))

    def _try(self, weights: Floats) -> None:
        """Find the least cuts under some weights of the stages and links, and what follows from them."""
        weighted = np.append(weights * self.objective.period, 1.0)
        is_live = self._is_live()
        sides = np.flatnonzero(is_live.any(axis=1)), np.flatnonzero(is_live.any(axis=0))
        found, values, least = [], [], []
        for sums, live in zip(self.sums, sides, strict=True):
            some, lost = self.network.least(live, sums.inside @ weighted, sums.crossing @ weighted)
            found.append(some)
            values.append(np.full((len(is_live), len(weighted)), np.inf))
            values[-1][live] = sums.of(self.network, self.graph, some)
            least.append(values[-1][live] @ weighted - lost)
        self.weights.append(weights)
        self.tried.append((values[0], values[1]))
        pairs = np.ix_(*sides)
        self.bound[pairs] = np.maximum(self.bound[pairs], least[0][:, None] + least[1][None, :])
        sums = values[0][sides[0]][:, None] + values[1][sides[1]][None, :]
        about = self.objective.period * sums[..., :-1].max(axis=-1) + sums[..., -1]
        self._look_at(found[0], found[1], np.where(is_live[pairs], about, np.inf))

    def _look_at(self, first: Bools, second: Bools, about: Floats) -> None:
        """Price the pairs of cuts that are worth least, about, in full, and keep the best placement."""
        flat = np.argsort(about, axis=None)[:_PROMISING]
        for row, column in zip(*np.unravel_index(flat, about.shape), strict=True):
            if about[row, column] >= self.value:
                break
            one, other = first[row], second[column]
            self._offer(one & other, other)
            if (one & ~other).any():
                self._offer(one, one | other)

    def _offer(self, first: Bools, second: Bools) -> None:
        placement = tuple(map(Tier, (2 - first.astype(int) - second).tolist()))
        value = self.objective.value(predict(self.graph, placement, self.costs))
        if value < self.value and not broken(self.graph, placement, self.costs, self.constraints):
            self.best, self.value = placement, value

    def _weights_for(self, first: Any, second: Any) -> Floats:
        """Weights under which the cuts of this pair that are known are worth most; notes when none would help it."""
        from scipy.optimize import linprog

        unit, count, stages = self.value, len(self.tried), self.count
        rows = np.zeros((2 * count, stages + 2))
        rest = np.zeros(2 * count)
        for number, values in enumerate(self.tried):
            for side, of in enumerate((values[0][first], values[1][second])):
                row = number + side * count
                rows[row, :stages], rows[row, stages + side] = -of[:-1] * self.objective.period / unit, 1.0
                rest[row] = of[-1] / unit
        made = linprog(
            [0.0] * stages + [-1.0, -1.0],
            A_ub=rows,
            b_ub=rest,
            A_eq=[[1.0] * stages + [0.0, 0.0]],
            b_eq=[1.0],
            bounds=[(0, 1)] * stages + [(None, None)] * 2,
            method="highs-ds",
        )
        self.is_final[first, second] = -made.fun < self.bound[first, second] / unit + 1e-4
        weights = np.maximum(made.x[:stages], 0.0)  # within the solver's tolerance they are below
        return np.asarray(weights / weights.sum())
