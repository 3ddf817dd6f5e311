"""The best placement of a graph with few cuts: all pairs of them are priced, but for those that a bound rules out.

What each first cut is worth at least is known for all at once; the rows of the most promising ones give a value that
rules out most others, and what is left is priced in full. So the optimum is found for every objective and every
constraint, without a program.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.coding import WAYS
from pipeline.cost import Costs, predict
from pipeline.errors import Infeasible
from pipeline.graph import ModelGraph
from pipeline.partition.codings import Shares
from pipeline.partition.constraints import Blocked, Constraint, Limit
from pipeline.partition.cut_family import Bools, CutFamily, Floats, Ints
from pipeline.partition.cuts import CutPrices
from pipeline.partition.program import TIE
from pipeline.placement import Placement, Tier

PROMISING = 16
"""First cuts that are priced before all that their least value rules out are left out."""
_ROUNDING = 1e-13
"""Of the largest sum: by so much values may be off."""
_SLACK = 1e-6
"""A sum that exceeds its limit by a smaller share is looked at again, term by term."""


def best_placement(graph: ModelGraph, prices: CutPrices, constraints: Sequence[Constraint]) -> tuple[Placement, float]:
    """The placement of least value, and that; of those within TIE of it, the one with most on early tiers.

    Raises Infeasible, PlanError for a constraint on a block that the graph does not have.
    """
    family, rules = prices.family, _Rules(graph, prices.family, prices.costs, constraints)
    blur = _ROUNDING * prices.scale
    parts = list(_priced(prices, rules, blur))
    least = min((part.least for part in parts), default=np.inf)
    if np.isfinite(least) and blur > TIE * least:  # far larger sums blur the small ones: price the best term by term
        for part in parts:
            for row, column in np.argwhere(part.values <= least + blur).tolist():
                predicted = predict(graph, part.placement(family, row, column), prices.costs)
                part.values[row, column] = prices.objective.value(predicted)
    for part, row, column in _in_order(family, parts):
        placement = part.placement(family, row, column)
        if rules.are_met(placement):
            return placement, float(part.values[row, column])
    raise Infeasible("no placement respects all constraints")


@dataclass(frozen=True, slots=True)
class _Part:
    """Placements by first and second cut, with their values: inf where a constraint is broken, but for rounding."""

    rows: Ints
    columns: Ints
    values: Floats

    @property
    def least(self) -> float:
        return float(self.values.min(initial=np.inf))

    def placement(self, family: CutFamily, row: int, column: int) -> Placement:
        return family.placement(int(self.rows[row]), int(self.columns[column]))


def _priced(prices: CutPrices, rules: _Rules, blur: float) -> Iterator[_Part]:
    """Parts of all placements that have the best ones among them; those of the most promising first cuts first."""
    least = prices.least_by_cut()
    first, second = np.where(rules.firsts, least[0], np.inf), np.where(rules.seconds, least[1], np.inf)
    order = np.argsort(first, kind="stable")
    order = order[: int(np.isfinite(first).sum())]
    columns = np.flatnonzero(np.isfinite(second))
    bound, at, count = np.inf, 0, PROMISING
    while at < len(order) and first[order[at]] <= bound:
        rows = order[at : at + count]
        rows, columns = rows[first[rows] <= bound], columns[second[columns] <= bound]
        part = _Part(rows, columns, rules.kept(rows, columns, prices.values(rows, columns)))
        yield part
        for _, row, column in _in_order(rules.family, [part]):
            if rules.are_met(part.placement(rules.family, row, column)):
                bound = min(bound, float(part.values[row, column]) * (1 + TIE) + blur)
                break
        at, count = at + count, 2 * count


def _in_order(family: CutFamily, parts: Sequence[_Part]) -> Iterator[tuple[_Part, int, int]]:
    """Placements by value, each tie begun by the one with most blocks on early tiers."""
    sizes = family.inside.sum(axis=1)
    left = [part.values.copy() for part in parts]
    while np.isfinite(least := min((values.min(initial=np.inf) for values in left), default=np.inf)):
        tied: list[tuple[float, int, _Part, int, int]] = []
        for part, values in zip(parts, left, strict=True):
            for row, column in np.argwhere(values <= least + TIE * abs(least)).tolist():
                values[row, column] = np.inf
                tied.append((-(sizes[part.rows[row]] + sizes[part.columns[column]]), len(tied), part, row, column))
        yield from ((part, row, column) for _, _, part, row, column in sorted(tied, key=lambda place: place[:2]))


class _Rules:
    """Constraints as they bear on pairs of cuts."""

    def __init__(self, graph: ModelGraph, family: CutFamily, costs: Costs, constraints: Sequence[Constraint]) -> None:
        self.graph, self.family = graph, family
        self.limits = [limit for constraint in constraints for limit in constraint.limits(graph, costs)]
        self.firsts = np.ones(len(family), bool)
        self.seconds = np.ones(len(family), bool)
        self._not_edge: list[int] = []
        self._forbid(blocked for constraint in constraints for blocked in constraint.forbidden(graph))

    def _forbid(self, blocked: Iterable[Blocked]) -> None:
        for block, tier in set(blocked):
            is_before = self.family.inside[:, block] > 0
            if tier is Tier.DEVICE:
                self.firsts &= ~is_before
            elif tier is Tier.CLOUD:
                self.seconds &= is_before
            else:
                self._not_edge.append(block)

    def kept(self, rows: Ints, columns: Ints, values: Floats) -> Floats:
        """The values, `[row, column]`, with inf where a placement breaks a constraint, but for rounding."""
        inside = self.family.inside
        if self._not_edge:
            on_edge = (1 - inside[rows][:, self._not_edge]) @ inside[columns][:, self._not_edge].T
            values[on_edge > 0] = np.inf
        for limit in self.limits:
            most = limit.bound + _SLACK * max(1.0, abs(limit.bound))
            values[np.broadcast_to(self._sum(limit, rows, columns) > most, values.shape)] = np.inf
        return values

    def are_met(self, placement: Placement) -> bool:
        """True when the placement keeps all limits, term by term."""
        return all(limit.is_met(self.graph, placement) for limit in self.limits)

    def _sum(self, limit: Limit, rows: Ints, columns: Ints) -> Floats:
        """A limit's sum for these first and second cuts."""
        family, inside = self.family, self.family.inside
        total: Floats = np.zeros((1, 1))
        for tier, weights in limit.blocks.items():
            before = inside @ np.asarray(weights, float)
            total = total + _on(tier, before[rows, None], before[None, columns], before[-1])
        if limit.tensors:
            nothing = np.zeros(len(family.nbytes))
            sent = Shares.adding(*(np.asarray(limit.tensors.get(way, nothing), float) for way in WAYS))
            total = total + (family.crossing[rows] @ sent.below)[:, None]
            total = total + (family.crossing[columns] @ sent.above)[None, :]
            total = total + (family.made[rows] * sent.beyond) @ family.wanted[columns].T
        is_left = np.arange(len(family)) < len(family) - 1
        for lower, once in limit.beyond.items():
            total = total + once * (is_left[rows, None] if lower is Tier.DEVICE else is_left[None, columns])
        for tier, weights in limit.peaks.items():
            total = total + self._peak(tier, np.asarray(weights, float), rows, columns)
        return total

    def _peak(self, tier: Tier, weights: Floats, rows: Ints, columns: Ints) -> Floats:
        """The largest weight of the tier's blocks, 0 for none."""
        inside, peak = self.family.inside, np.zeros((len(rows), len(columns)))
        left: Bools = np.ones(peak.shape, bool)
        for block in np.argsort(-weights, kind="stable").tolist():
            there = _on(tier, inside[rows, None, block], inside[None, columns, block], 1.0) > 0
            found = left & there
            peak[found] = weights[block]
            left &= ~there
            if not left.any():
                break
        return peak


def _on(tier: Tier, first: Floats, second: Floats, whole: float) -> Floats:
    """What belongs to a tier, of what lies before the first cut, before the second, and of all there is."""
    return {Tier.DEVICE: first, Tier.EDGE: second - first, Tier.CLOUD: whole - second}[tier]
