"""The best plan over many sets of nodes without planning each: best-first branch and bound over groups of sets.

A group's bound is the exact plan on a set that no node offers, the elementwise best of all in the group: no set in it
can be better. The group with the least bound is split first, so plans come out in order of their value, and sets that
cannot win are never planned (Land and Doig 1960). A group is split by what makes its bound loosest: the stage or link
on which the set that is best under the bound's placement loses most against the elementwise best. Of a graph with few
cuts each set has a bound of its own at once, so there are no groups; whoever has such bounds already gives them, and
sets that cannot win are not even made.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import TYPE_CHECKING, Generic, TypeVar, overload

import numpy as np

from pipeline.cost import LINKS, Costs, coding_of, predict
from pipeline.errors import Infeasible
from pipeline.graph import ModelGraph
from pipeline.partition import exact, tiled
from pipeline.partition.constraints import Constraint, broken
from pipeline.partition.cut_family import all_cuts_of
from pipeline.partition.cuts import CutPrices
from pipeline.partition.enumeration import best_placement
from pipeline.partition.objective import LATENCY, Objective
from pipeline.partition.priced_plan import NodeSet, PricedPlan, priced
from pipeline.partition.program import PROOF
from pipeline.partition.relaxation import best_of
from pipeline.placement import Crossing, Placement, Tier, crossings

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TIGHT = 1e-9
"""A bound that is reached up to this share of it is the optimum."""
Item = TypeVar("Item")


class Lazily(Sequence[Item], Generic[Item]):
    """A sequence whose items are made, and kept, when they are first looked at."""

    def __init__(self, length: int, make: Callable[[int], Item]) -> None:
        self._length, self._make = length, make
        self._known: dict[int, Item] = {}

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | Sequence[Item]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(self._length))]
        if not 0 <= place < self._length:
            raise IndexError(place)
        if place not in self._known:
            self._known[place] = self._make(place)
        return self._known[place]


class Ranked(Sequence[PricedPlan]):
    """Plans in the order of an iterator, taken from it when they are first looked at.

    Asking whether there are any, or for the first, plans no more than that needs; `len` plans all.
    """

    def __init__(self, plans: Iterator[PricedPlan]) -> None:
        self._plans = plans
        self._known: list[PricedPlan] = []

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    def __iter__(self) -> Iterator[PricedPlan]:
        for place in count():
            if place == len(self._known):
                plan = next(self._plans, None)
                if plan is None:
                    return
                self._known.append(plan)
            yield self._known[place]

    def __len__(self) -> int:
        self._known.extend(self._plans)
        return len(self._known)

    @overload
    def __getitem__(self, place: int) -> PricedPlan: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[PricedPlan]: ...
    def __getitem__(self, place: int | slice) -> PricedPlan | Sequence[PricedPlan]:
        if isinstance(place, slice):
            return list(self)[place]
        found = next(islice(self, place, None), None)
        if found is None:
            raise IndexError(place)
        return found


def choose(
    graph: ModelGraph,
    candidates: Sequence[NodeSet],
    constraints: Sequence[Constraint] = (),
    objective: Objective = LATENCY,
    least: Sequence[float] | None = None,
) -> Ranked:
    """Exact plans, the cheapest first: at least one for the best set of nodes, planned as they are looked at.

    `least` are lower bounds of the candidates' plans, where they are at hand, for a graph with few cuts and without
    tiles: candidates that they rule out are not looked at.

    Raises Infeasible, with the conflict of the combination that has most nodes, when there is none, PlanError for costs
    that do not fit the graph.
    """
    found = Ranked(NodeSetSearch(graph, candidates, constraints, objective, least).ranked())
    if candidates and not found:
        largest = max(candidates, key=lambda candidate: len(candidate.nodes))
        exact.solve(graph, largest.costs, [*constraints, *largest.constraints], objective)
    return found


@dataclass(frozen=True, slots=True)
class _Group:
    """Candidates on the same tiers, by number, planned `in_tiles` or not, and the exact plan of their elementwise best.

    `placement` is None while only the bound of the group that it came from is known.
    """

    members: tuple[int, ...]
    in_tiles: bool
    placement: Placement | None = None


@dataclass(slots=True)
class NodeSetSearch:
    """Exact plans on `candidates`, the cheapest first, each planned when it is asked for.

    `solved` counts the programs: calls of the exact planner, those inside of the search for tiles counted as one.
    """

    graph: ModelGraph
    candidates: Sequence[NodeSet]
    constraints: Sequence[Constraint]
    objective: Objective
    least: Sequence[float] | None = None
    solved: int = 0
    _proved: float = math.inf
    """No plan that was looked for is worth less, however far each search got."""
    _judged: Objective = field(init=False)
    _seconds: dict[Tier, NDArray[np.float64]] = field(init=False, default_factory=dict)
    _relaxed: dict[tuple[int, ...], tuple[float, Placement] | None] = field(init=False, default_factory=dict)
    _prices: dict[int, CutPrices] = field(init=False, default_factory=dict)
    """Of candidates that were looked at, where the graph has few cuts."""
    _checked: set[int] = field(init=False, default_factory=set)

    def ranked(self) -> Iterator[PricedPlan]:
        """Each candidate's best plan without tiles and, where that is better, in tiles; by value, then latency.

        Plans of equal placement on the same nodes come once.
        """
        self._judged = self._with_latency()
        given = self.candidates
        self.candidates = Lazily(len(given), lambda number: self._taken_up(given[number]))
        order, queue = count(), list[tuple[float, int, int, _Group | PricedPlan]]()

        def push(bound: float, item: _Group | PricedPlan) -> None:
            heapq.heappush(queue, (bound, isinstance(item, _Group), next(order), item))

        for bound, group in self._roots():
            push(bound, group)
        seen: set[Hashable] = set()
        while queue:
            bound, _, _, item = heapq.heappop(queue)
            if isinstance(item, PricedPlan):
                key = item.placement, tuple(item.nodes.items()), item.tiling
                if key not in seen:
                    # what is dearer, but was not searched to its end, may still hide something better than the first
                    yield item if seen else replace(item, gap=exact.gap_between(self._proved, item.value))
                    seen.add(key)
            else:
                for least, part in self._explored(bound, item):
                    push(max(bound, least), part)

    def _taken_up(self, candidate: NodeSet) -> NodeSet:
        """The candidate on the objective's terms. Raises PlanError for costs that do not fit the graph."""
        candidate.costs.check(self.graph, self._checked)
        judged = self._judged.judging(candidate.costs)
        return candidate if judged is candidate.costs else replace(candidate, costs=judged)

    def _with_latency(self) -> Objective:
        """The objective, with a latency that decides between plans which are equal but for it."""
        if self.objective.latency or not self.candidates:
            return self.objective
        largest = max(self.candidates, key=lambda candidate: len(candidate.costs.seconds))
        return exact.with_latency(self.graph, largest.costs, self.objective)

    def _roots(self) -> Iterator[tuple[float, _Group]]:
        """Groups with lower bounds: sets by themselves where these need no program, else all on the same tiers."""
        family = all_cuts_of(self.graph)
        if family is not None and self.least is not None:
            yield from ((least, _Group((number,), in_tiles=False)) for number, least in enumerate(self.least))
            return
        if family is not None:
            prices = CutPrices.under_each(self.graph, family, [c.costs for c in self.candidates], self._judged)
            self._prices = dict(enumerate(prices))
            for number, least in enumerate(CutPrices.least_of_each(prices) if prices else ()):
                candidate = self.candidates[number]
                yield least, _Group((number,), in_tiles=False)
                if candidate.pool and candidate.tiled_stack_costs:
                    yield self._least_in_tiles((number,), least), _Group((number,), in_tiles=True)
            return
        by_tiers: dict[frozenset[Tier], list[int]] = {}
        for number, candidate in enumerate(self.candidates):
            by_tiers.setdefault(frozenset(candidate.costs.seconds), []).append(number)
        for members in sorted(by_tiers.values(), key=lambda of: -len(self.candidates[of[0]].nodes)):
            yield 0.0, _Group(tuple(members), in_tiles=False)
            tileable = tuple(n for n in members if self.candidates[n].pool and self.candidates[n].tiled_stack_costs)
            if tileable:
                yield 0.0, _Group(tileable, in_tiles=True)

    def _explored(self, bound: float, group: _Group) -> Iterator[tuple[float, _Group | PricedPlan]]:
        """What a group is made of, with lower bounds."""
        if len(group.members) == 1:
            for value, plan in self._planned(group):
                # a bound that is reached but for rounding: other sets with the same bound are no better
                yield (bound if value <= bound * (1 + _TIGHT) else value), plan
        elif group.placement is None:
            relaxed = self._relax(group.members)
            if relaxed is not None:
                value, placement = relaxed
                least = self._least_in_tiles(group.members, value) if group.in_tiles else value
                yield least, replace(group, placement=placement)
        else:
            yield from self._split(bound, group, group.placement)

    def _planned(self, group: _Group) -> Iterator[tuple[float, PricedPlan]]:
        candidate = self.candidates[group.members[0]]
        relaxed = self._relax(group.members)
        if relaxed is None:
            return
        value, placement = relaxed
        whole = priced(self.graph, placement, candidate, self.objective)
        is_judged_so = self._judged is self.objective
        predicted = whole.predicted if is_judged_so else predict(self.graph, placement, candidate.costs)
        found = self._judged.value(predicted)
        whole = replace(whole, gap=_gap(value, found))
        self._note(whole)
        if not group.in_tiles:
            yield found, whole
        elif (shared := self._in_tiles(candidate, whole)) is not None:
            yield self._judged.value(shared.predicted), shared

    def _in_tiles(self, candidate: NodeSet, whole: PricedPlan) -> PricedPlan | None:
        """The best plan in tiles, where it beats the best without."""
        assert candidate.pool is not None
        asked, costs, pool = [*self.constraints, *candidate.constraints], candidate.costs, candidate.pool
        self.solved += 1
        least = whole.value * (1 - whole.gap)
        found = tiled.best(self.graph, costs, pool, candidate.tiled_stack_costs, asked, self.objective, least)
        if found is not None and candidate.in_use is not None:
            found = tiled.kept(self.graph, costs, pool, candidate.in_use, asked, self.objective, found)
        if found is None:
            return None
        repriced = replace(candidate, costs=found.costs)
        shared = replace(priced(self.graph, found.placement, repriced, self.objective, found.gap), tiling=found.tiling)
        self._note(shared)
        return shared if shared.value < whole.value else None

    def _note(self, plan: PricedPlan) -> None:
        self._proved = min(self._proved, plan.value * (1 - plan.gap))

    def _relax(self, members: tuple[int, ...]) -> tuple[float, Placement] | None:
        """A lower bound for the members without tiles, and the placement that it belongs to; None if none is allowed.

        For a single one the bound is its optimum, as far as that was proved.
        """
        if members not in self._relaxed:
            self.solved += 1
            try:
                self._relaxed[members] = self._bounded(members)
            except Infeasible:
                self._relaxed[members] = None
        return self._relaxed[members]

    def _bounded(self, members: tuple[int, ...]) -> tuple[float, Placement]:
        own = [self.candidates[n].constraints for n in members]
        asked = [*self.constraints, *(constraint for constraint in own[0] if all(constraint in o for o in own[1:]))]
        family = all_cuts_of(self.graph)
        if family is not None:
            candidate = self.candidates[members[0]]
            prices = self._prices.get(members[0]) or CutPrices.under(self.graph, family, candidate.costs, self._judged)
            placement, value = best_placement(self.graph, prices, asked)
            return value, placement
        costs = best_of([self.candidates[n].costs for n in members])
        found = exact.solve(self.graph, costs, asked, self._judged, explain=False)
        return self._judged.value(predict(self.graph, found.placement, costs)) * (1 - found.gap), found.placement

    def _least_in_tiles(self, members: tuple[int, ...], whole: float) -> float:
        """What no plan in tiles on these sets can be below, if none without is below `whole`."""
        candidates = [self.candidates[n] for n in members]
        return min(
            tiled.least(c.costs, self._judged, given, whole) for c in candidates for given in c.tiled_stack_costs
        )

    def _split(self, bound: float, group: _Group, placement: Placement) -> Iterator[tuple[float, _Group | PricedPlan]]:
        """Two groups; or the optimum, where a member reaches the bound, and a group of the others."""
        terms = self._terms(group.members, placement)
        best = int(self._approximate(terms).argmin())
        number = group.members[best]
        others = group.members[:best] + group.members[best + 1 :]
        if not group.in_tiles and (reached := self._reached(bound, number, placement)) is not None:
            yield reached
            yield bound, _Group(others, in_tiles=False)
            return
        if group.in_tiles:
            least = [self._least_in_tiles((n,), 0.0) for n in group.members]
            terms = np.vstack([terms, least])
        loss = terms[:, best] - terms.min(axis=1)
        term = terms[int(loss.argmax())]
        better = term < term[best] if loss.max() > 0 else np.arange(len(term)) != best
        for side in (better, ~better):
            yield bound, _Group(tuple(np.asarray(group.members)[side].tolist()), group.in_tiles)

    def _reached(self, bound: float, number: int, placement: Placement) -> tuple[float, PricedPlan] | None:
        candidate = self.candidates[number]
        value = self._judged.value(predict(self.graph, placement, candidate.costs))
        asked = [*self.constraints, *candidate.constraints]
        if value > bound * (1 + _TIGHT) or broken(self.graph, placement, candidate.costs, asked):
            return None
        return value, priced(self.graph, placement, candidate, self.objective)

    def _terms(self, members: tuple[int, ...], placement: Placement) -> NDArray[np.float64]:
        """Seconds of each stage and link (rows) of the placement on each member (columns)."""
        costs = [self.candidates[n].costs for n in members]
        rows = []
        for tier in costs[0].seconds:
            on = np.array([at == tier for at in placement])
            known: dict[int, float] = {}  # sets share their nodes' times
            for c in costs:
                if id(c.seconds[tier]) not in known:
                    known[id(c.seconds[tier])] = float(np.asarray(c.seconds[tier])[on].sum())
            send_receive_overhead = bool(on.any())
            rows.append(
                [
                    known[id(c.seconds[tier])] + send_receive_overhead * c.send_receive_overhead.get(tier, 0.0)
                    for c in costs
                ]
            )
        for lower in LINKS:
            crossed = [crossing for crossing in crossings(self.graph, placement) if crossing.crosses(lower)]
            used = max(placement) > lower
            rows.append([used * (self._sent_s(c, crossed, lower) + 2 * c.link(lower).latency_s) for c in costs])
        return np.array(rows)

    def _sent_s(self, costs: Costs, crossed: Sequence[Crossing], lower: Tier) -> float:
        """Seconds of tensors on a link, and of the coding that begins or ends their way there."""
        codings = [(crossing, coding_of(self.graph, costs, crossing)) for crossing in crossed]
        coding_s = sum(coding.encode_s for crossing, coding in codings if crossing.source == lower)
        coding_s += sum(coding.decode_s for crossing, coding in codings if crossing.readers[-1] == lower + 1)
        return coding_s + sum(coding.nbytes for _, coding in codings) / costs.link(lower).bandwidth_bytes_per_s

    def _approximate(self, terms: NDArray[np.float64]) -> NDArray[np.float64]:
        latency, period = self._judged.latency, self._judged.period
        return np.asarray(latency * terms.sum(axis=0) + period * terms.max(axis=0))


def _gap(bound: float, value: float) -> float:
    gap = max(0.0, 1 - bound / value) if value > 0 else 0.0
    return gap if gap > PROOF else 0.0
