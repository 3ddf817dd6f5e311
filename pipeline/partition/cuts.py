"""The objective of placements made of two cuts, for all pairs of a family at once.

With the chain of the blocks' order these are the placements with the device up to i, the edge up to j, and the rest in
the cloud: all of a chain's, and good ones of any other graph's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from pipeline.coding import WAYS, back_over
from pipeline.cost import LINKS, Costs
from pipeline.graph import ModelGraph
from pipeline.partition.codings import Codings, Returned, Shares
from pipeline.partition.cut_family import CutFamily, Floats, Ints, chain_of
from pipeline.partition.objective import MEGABYTE, Objective
from pipeline.partition.worth import fixed_worth, overhead_worth
from pipeline.placement import Placement, Tier

_MOST = 20

Cuts: TypeAlias = "Ints | slice"
ALL = slice(None)


def placement_of(graph: ModelGraph, edge_from: int, cloud_from: int) -> Placement:
    """The device has blocks below `edge_from` (at least 1), the edge those below `cloud_from`, the cloud the rest."""
    first, second = sorted((edge_from, cloud_from))
    return (Tier.DEVICE,) * first + (Tier.EDGE,) * (second - first) + (Tier.CLOUD,) * (len(graph) - second)


def values(graph: ModelGraph, costs: Costs, objective: Objective) -> Floats:
    """`[i - 1, j - 1]`: the objective of `placement_of(graph, i, j)`, i and j from 1 to len(graph).

    Infinite where j < i, or where a tier without a node would have blocks. With `costs.tiles` right only where the
    stack is on the edge.
    """
    return CutPrices.under(graph, chain_of(graph), costs, objective).values()


def best_cuts(graph: ModelGraph, costs: Costs, objective: Objective) -> Iterator[Placement]:
    """The single tiers and the best such placements, cheapest first."""
    n, found = len(graph), values(graph, costs, objective)
    flat = found.ravel()
    order = np.argpartition(flat, min(_MOST, flat.size - 1))[: _MOST + 1]
    single = [at for at in (n * n - 1, n - 1, 0) if np.isfinite(flat[at])]  # device, edge, cloud
    for at in sorted({*order.tolist(), *single}, key=lambda at: (flat[at], -at)):
        if np.isfinite(flat[at]):
            yield placement_of(graph, at // n + 1, at % n + 1)


@dataclass(frozen=True, slots=True)
class CutPrices:
    """What the cuts of a family are worth under some costs: parts of the objective that depend on one cut alone.

    `first` and `second`, float64 `[cut]`, add up to an objective's value but for the period, `apart` (what it takes to
    have the edge at all) and tensors that go all the way, whose sums are in `worth`.
    """

    family: CutFamily
    costs: Costs
    objective: Objective
    codings: Codings
    first: Floats
    second: Floats
    apart: float
    worth: Shares

    @classmethod
    def under(cls, graph: ModelGraph, family: CutFamily, costs: Costs, objective: Objective) -> CutPrices:
        """Price the cuts of a graph's family."""
        return cls.under_each(graph, family, [costs], objective)[0]

    @classmethod
    def under_each(
        cls, graph: ModelGraph, family: CutFamily, costs: Sequence[Costs], objective: Objective
    ) -> list[CutPrices]:
        """Price the cuts under several costs at once; seconds that are the same object are summed once."""
        sums = _Sums(graph, family)
        ways = [sums.add(each, objective) for each in costs]
        made = []
        for each, (codings, worth), first, second in zip(costs, ways, *sums.of_cuts(), strict=True):
            if Tier.CLOUD not in each.seconds:
                second[:-1] = np.inf
            apart = overhead_worth(each, objective, Tier.EDGE) if Tier.EDGE in each.seconds else np.inf
            made.append(cls(family, each, objective, codings, first, second, apart, worth))
        return made

    def values(self, rows: Cuts = ALL, columns: Cuts = ALL) -> Floats:
        """`[row, column]`: the objective of placements with these first and second cuts; inf for none."""
        total: Floats = self.first[rows, None] + self.second[None, columns]
        if self.worth.beyond.any():
            total = total + self._all_the_way(self.worth, rows, columns)
        numbers = np.arange(len(self.family))
        total += np.where(numbers[rows, None] != numbers[None, columns], self.apart, 0.0)
        if self.objective.period:
            total += self.objective.period * self._period(rows, columns)
        total[~self.family.within[rows][:, columns]] = np.inf
        return total

    @property
    def scale(self) -> float:
        """The largest sum that a value is made of: rounding goes with it."""
        second = self.second[np.isfinite(self.second)]
        return float(max(np.abs(self.first).max(), np.abs(second).max()))

    def least_by_cut(self) -> tuple[Floats, Floats]:
        """`[cut]`: what no placement with this first cut, or with this second, is worth less than."""
        least = _Least.of([self])
        return least.by_first()[0], least.by_second()[0]

    @classmethod
    def least_of_each(cls, prices: Sequence[CutPrices]) -> list[float]:
        """What no placement under each is worth less than; all of one family and objective."""
        least = _Least.of(prices)
        found = least.by_first().min(axis=1)
        if prices[0].objective.period:
            found = np.maximum(found, least.by_second().min(axis=1))
        return [float(value) for value in found]

    def taken_off(self) -> Floats:
        """`[cut]`: what tensors that go all the way take off at most."""
        less = np.minimum(self.worth.beyond, 0.0)
        least: Floats = self.family.crossing @ less if less.any() else np.zeros(len(self.family))
        return least

    def busy_s(self, tier: Tier) -> Floats:
        """`[cut]`: what the first cut keeps the device busy for at least, or the second the cloud; or its link."""
        family, way, lower = self.family, WAYS[0], Tier.DEVICE
        if tier is Tier.CLOUD:
            way, lower = WAYS[2], Tier.EDGE
        ways = self.codings.ways[way], self.codings.ways[WAYS[1]]
        back = np.min([self.codings.ways[way].nbytes for way in back_over(lower)], axis=0)
        sent = family.crossing @ np.minimum(*(taken.nbytes for taken in ways)) + family.returned @ back
        busy_s: Floats = sent / self.costs.link(lower).bandwidth_bytes_per_s
        if self.codings.is_coded:
            coding_s = (taken.encode_s if tier is Tier.DEVICE else taken.decode_s for taken in ways)
            busy_s = np.maximum(busy_s, family.crossing @ np.minimum(*coding_s))
        if tier not in self.costs.seconds:
            busy_s[:-1] = np.inf
            return busy_s
        before = family.inside @ np.asarray(self.costs.seconds[tier], float)
        return np.asarray(np.maximum(busy_s, before if tier is Tier.DEVICE else before[-1] - before))

    def weighted_s(self) -> Floats:
        """`[sum, side, cut]`, of first and of second cuts: weighted sums of the tiers' seconds, which are no more than
        the period.

        One is their mean, the slower one's counting for less: the longest is no less than that, so work that is shared
        out such that all are busy for as long has a bound as tight as can be. The others are those of shared cores.
        """
        whole = {tier: sum(seconds) for tier, seconds in self.costs.seconds.items()}
        found = [self._weighted_s(shared.shares, shared.tiles_s) for shared in self.costs.cores]
        if min(whole.values()) > 0:
            weights = {tier: 1 / total / sum(1 / total for total in whole.values()) for tier, total in whole.items()}
            found.append(self._weighted_s(weights))
        return np.array(found).reshape(-1, 2, len(self.family))

    def _weighted_s(self, weights: Mapping[Tier, float], besides_s: float = 0.0) -> tuple[Floats, Floats]:
        device, edge, cloud = (
            self.family.inside @ np.asarray(self.costs.seconds[tier], float) * weights[tier]
            if tier in weights
            else np.zeros(len(self.family))
            for tier in Tier
        )
        second = edge + cloud[-1] - cloud + besides_s - weights.get(Tier.EDGE, 0.0) * self.costs.waiting_s
        if Tier.CLOUD not in self.costs.seconds:
            second[:-1] = np.inf
        return device - edge, second

    def _period(self, rows: Cuts, columns: Cuts) -> Floats:
        family, costs = self.family, self.costs
        busy: Floats = np.full((1, 1), costs.tiles.busy_seconds if costs.tiles else 0.0)
        stages: dict[Tier, Floats] = {}
        for tier, seconds in costs.seconds.items():
            before = family.inside @ np.asarray(seconds, float)
            if tier is Tier.DEVICE:
                stages[tier] = before[rows, None]
            elif tier is Tier.CLOUD:
                stages[tier] = (before[-1] - before)[None, columns]
            else:
                stages[tier] = before[None, columns] - before[rows, None] - costs.waiting_s
            busy = np.maximum(busy, stages[tier])
        for shared in costs.cores:
            taken = (share * stages[tier] for tier, share in shared.shares.items())
            busy = np.maximum(busy, sum(taken, np.full((1, 1), shared.tiles_s)))
        for lower in LINKS:
            sent = self._sent(self.codings.link_bytes(lower), rows, columns)
            busy = np.maximum(busy, sent / costs.link(lower).bandwidth_bytes_per_s)
        for coder in self.codings.coders() if self.codings.is_coded else ():
            busy = np.maximum(busy, self._sent(coder, rows, columns))
        return busy

    def _sent(self, shares: Shares, rows: Cuts, columns: Cuts) -> Floats:
        """The sum over what crosses and comes back, `[row, column]`, or of length 1 where one cut alone says it."""
        total: Floats = np.zeros((1, 1))
        if shares.below.any():
            total = total + (self.family.crossing[rows] @ shares.below)[:, None]
        if shares.above.any():
            total = total + (self.family.crossing[columns] @ shares.above)[None, :]
        if shares.returned.below.any():
            total = total + (self.family.returned[rows] @ shares.returned.below)[:, None]
        if shares.returned.above.any():
            total = total + (self.family.returned[columns] @ shares.returned.above)[None, :]
        return total + self._all_the_way(shares, rows, columns) if shares.beyond.any() else total

    def _all_the_way(self, shares: Shares, rows: Cuts, columns: Cuts) -> Floats:
        """The sum over what is made before the first cut and read behind the second."""
        which, family = np.flatnonzero(shares.beyond), self.family
        found: Floats = (family.made[rows][:, which] * shares.beyond[which]) @ family.wanted[columns][:, which].T
        return found


@dataclass(frozen=True, slots=True)
class _Least:
    """Bounds of several costs at once, `[costs, cut]` each: of a first cut with the best second one, and the reverse.

    Besides sums, the parts of the period that one cut has alone, and weighted sums of the tiers' seconds.
    """

    family: CutFamily
    period: float
    apart: Floats
    """`[costs, 1]`"""
    taken_off: Floats
    sums: tuple[Floats, Floats]
    busy_s: tuple[Floats, Floats] | None
    weighted_s: Floats
    """`[side, sum, costs, cut]`"""

    @classmethod
    def of(cls, prices: Sequence[CutPrices]) -> _Least:
        """All of one family and objective."""
        family, period = prices[0].family, prices[0].objective.period
        busy_s, weighted_s = None, np.zeros((2, 0, len(prices), len(family)))
        if period:
            device, cloud = (np.stack([each.busy_s(tier) for each in prices]) for tier in (Tier.DEVICE, Tier.CLOUD))
            busy_s, weighted = (device, cloud), [each.weighted_s() for each in prices]
            weighted_s = np.zeros((2, max(map(len, weighted)), len(prices), len(family)))
            for number, sums in enumerate(weighted):
                weighted_s[:, : len(sums), number] = sums.swapaxes(0, 1)
        sums_of = np.stack([each.first for each in prices]), np.stack([each.second for each in prices])
        apart = np.array([[each.apart] for each in prices])
        return cls(family, period, apart, np.stack([each.taken_off() for each in prices]), sums_of, busy_s, weighted_s)

    def by_first(self) -> Floats:
        """What no placement with each first cut is worth less than."""
        return self._joined(0, self.family.least_behind)

    def by_second(self) -> Floats:
        """What no placement with each second cut is worth less than."""
        return self._joined(1, self.family.least_before)

    def _joined(self, side: int, least: Callable[[Floats], Floats]) -> Floats:
        other = 1 - side
        worth = self.sums[other]
        total = self.sums[side] + np.minimum(worth, self.apart + least(worth)) + self.taken_off
        if self.busy_s is None:
            return total
        apart = np.where(np.isfinite(self.apart), 0.0, np.inf)
        busy = self.busy_s[other]
        busy = np.maximum(self.busy_s[side], np.minimum(busy, apart + least(busy)))
        for own, others in zip(self.weighted_s[side], self.weighted_s[other], strict=True):
            busy = np.maximum(busy, own + np.minimum(others, apart + least(others)))
        return np.asarray(total + self.period * busy)


class _Sums:
    """First and second cuts' worth as weighted sums over cuts, `[cut]`: most are the same for several costs."""

    def __init__(self, graph: ModelGraph, family: CutFamily) -> None:
        is_left = (np.arange(len(family)) < len(family) - 1).astype(float)
        self.graph, self.family = graph, family
        self._left, self._uses, self._one, self._back = range(4)
        uses = is_left + family.returned.any(axis=1)
        self._rows: list[Floats] = [is_left, uses, np.ones(len(family)), *family.returned.T]
        self._known: dict[int, int] = {}
        self._plain: tuple[Codings, int] | None = None
        self._weights: tuple[list[dict[int, float]], list[dict[int, float]]] = ([], [])

    def add(self, costs: Costs, objective: Objective) -> tuple[Codings, Shares]:
        """Note the weights under some costs; returns the tensors' ways, and what they are worth."""
        codings, worth, first, second = self._sent(costs, objective)
        for lower, side, handles in ((Tier.DEVICE, first, Tier.DEVICE), (Tier.EDGE, second, Tier.CLOUD)):
            for tier, sign in ((lower, 1.0), (Tier(lower + 1), -1.0)):
                if tier in costs.seconds:
                    row = self._before(costs.seconds[tier])
                    side[row] = side.get(row, 0.0) + sign * objective.per_second(costs, tier)
            returned = worth.returned.below if lower is Tier.DEVICE else worth.returned.above
            side.update(enumerate(returned.tolist(), start=self._back))
            side[self._uses] = objective.latency * costs.link(lower).latency_s
            side[self._left] = overhead_worth(costs, objective, handles)
        second[self._one] = fixed_worth(costs, objective)
        if Tier.CLOUD in costs.seconds:
            whole = self._rows[self._before(costs.seconds[Tier.CLOUD])][-1]
            second[self._one] += whole * objective.per_second(costs, Tier.CLOUD)
        for weights, side in zip(self._weights, (first, second), strict=True):
            weights.append(side)
        return codings, worth

    def of_cuts(self) -> tuple[Floats, Floats]:
        """`[costs, cut]` of first cuts and of second ones."""
        rows = np.stack(self._rows)
        made = []
        for sides in self._weights:
            weights = np.zeros((len(sides), len(rows)))
            for number, side in enumerate(sides):
                weights[number, list(side)] = list(side.values())
            made.append(weights @ rows)
        return made[0], made[1]

    def _before(self, seconds: Sequence[float]) -> int:
        """The row with the seconds of the blocks before each cut."""
        if id(seconds) not in self._known:
            self._known[id(seconds)] = self._add_row(self.family.inside @ np.asarray(seconds, float))
        return self._known[id(seconds)]

    def _sent(self, costs: Costs, objective: Objective) -> tuple[Codings, Shares, dict[int, float], dict[int, float]]:
        """What tensors that cross are worth, and the weights that say so."""
        family = self.family
        is_fixed = costs.fixed is not None and costs.fixed.names
        if is_fixed or objective.energy or (costs.codecs is not None and costs.codecs.ratios):
            codings = Codings.under(self.graph, costs, family.nbytes)
            worth = codings.worths(costs, objective)
            below, above = (self._add_row(family.crossing @ share) for share in (worth.below, worth.above))
            return codings, worth, {below: 1.0}, {above: 1.0}
        if self._plain is None:  # all tensors are sent as they are, whatever the links
            codings = Codings.under(self.graph, replace(costs, fixed=None), family.nbytes)
            self._plain = codings, self._add_row(family.crossing @ family.nbytes)
        codings, row = self._plain
        device_byte, edge_byte = (objective.latency / costs.link(lower).bandwidth_bytes_per_s for lower in LINKS)
        edge_byte += objective.backbone / MEGABYTE
        results = family.nbytes[list(self.graph.results)]
        returned = Returned(device_byte * results, edge_byte * results)
        worth = Shares(device_byte * family.nbytes, edge_byte * family.nbytes, np.zeros(len(family.nbytes)), returned)
        return codings, worth, {row: device_byte}, {row: edge_byte}

    def _add_row(self, row: Floats) -> int:
        self._rows.append(row)
        return len(self._rows) - 1
