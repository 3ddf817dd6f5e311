"""D3's heuristic: horizontal partition, layer by layer of the graph, and its local adjustment at run time.

D3's full text was not at hand: this is a reconstruction from its abstract and from descriptions. Blocks are visited by
layer (longest way from the input). A block takes the tier, none earlier than its inputs', with the least of its own
time, that of its incoming tensors, and its direct successors' cheapest continuation. Blocks of the same layer that read
nothing else are then reconsidered, since what they read is on that tier already. It minimises latency, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pipeline.cost import LINKS, Costs
from pipeline.errors import Infeasible
from pipeline.graph import ModelGraph
from pipeline.partition.codings import Codings, Floats
from pipeline.partition.constraints import Constraint, broken
from pipeline.partition.objective import LATENCY, Objective
from pipeline.placement import Placement, Tier

BAND = 0.2
"""A time or a bandwidth that differs by less than this share from what the plan was made with has not changed."""


def partition(
    graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint] = (), objective: Objective = LATENCY
) -> Placement:
    """The heuristic's placement. Raises Infeasible when it does not respect the constraints, PlanError for bad costs.

    Constraints that say where blocks may run are kept by choosing among those tiers, limits are only checked.
    """
    costs.check(graph)
    heuristic = Heuristic(graph, costs, constraints)
    return _allowed(graph, heuristic.whole(), costs, constraints)


def adjust(
    graph: ModelGraph,
    placement: Placement,
    costs: Costs,
    affected: Iterable[int],
    constraints: Sequence[Constraint] = (),
) -> Placement:
    """Decide again for the affected blocks, their siblings and direct successors, and for no other.

    `costs` are the new ones, and were checked before. Raises Infeasible when the outcome breaks a constraint.
    """
    adjusted = Heuristic(graph, costs, constraints).adjusted(placement, affected)
    return _allowed(graph, adjusted, costs, constraints) if constraints else adjusted


def affected(graph: ModelGraph, placement: Placement, before: Costs, after: Costs, band: float = BAND) -> list[int]:
    """Blocks whose time on any tier left the band, and those on both sides of a link that did."""
    found: set[int] = set()
    for tier, seconds in after.seconds.items():
        old, new = np.asarray(before.seconds.get(tier, np.zeros(len(graph)))), np.asarray(seconds)
        found.update(np.flatnonzero(np.abs(new - old) > band * old).tolist())
    for lower in LINKS:
        old_rate, new_rate = before.link(lower).bandwidth_bytes_per_s, after.link(lower).bandwidth_bytes_per_s
        if abs(new_rate - old_rate) > band * old_rate:
            for one, other in graph.edges:
                if placement[one] <= lower < placement[other]:
                    found |= {one, other}
    return sorted(found - {0})


def _allowed(graph: ModelGraph, placement: Placement, costs: Costs, constraints: Sequence[Constraint]) -> Placement:
    if against := broken(graph, placement, costs, constraints):
        described = "; ".join(constraint.describe(graph) for constraint in against)
        raise Infeasible(f"hpa finds no placement under: {described}; release one, or plan with exact")
    return placement


@dataclass
class Heuristic:
    """One run over a graph. Tiers are plain numbers here, since each is looked up many times."""

    graph: ModelGraph
    costs: Costs
    constraints: Sequence[Constraint] = ()
    _at: list[int] = field(init=False)

    @cached_property
    def _seconds(self) -> dict[int, Sequence[float]]:
        return {int(tier): seconds for tier, seconds in self.costs.seconds.items()}

    @cached_property
    def _tiers(self) -> list[int]:
        return sorted(self._seconds)

    @cached_property
    def _free(self) -> list[list[int]] | None:
        """For each block, the tiers on which it may run, those that its successors leave it included."""
        if not self.constraints:
            return None
        tiers = sorted(self._seconds)
        blocked = {pair for constraint in self.constraints for pair in constraint.forbidden(self.graph)}
        free = [[t for t in tiers if (v, Tier(t)) not in blocked] for v in range(len(self.graph))]
        for v in range(len(self.graph) - 1, -1, -1):
            latest = min((max(free[w], default=-1) for w in self.graph.successors[v]), default=int(Tier.CLOUD))
            free[v] = [t for t in free[v] if t <= latest]
        return free

    def whole(self) -> Placement:
        """Decide for every block."""
        graph = self.graph
        self._at = [int(Tier.DEVICE)] * len(graph)
        for layer in graph.layers[1:]:
            for v in layer:
                self._at[v] = self._best(v, self._floor(v))
            self._reconsider_siblings(layer)
        return tuple(map(Tier, self._at))

    def adjusted(self, placement: Placement, affected: Iterable[int]) -> Placement:
        """Decide for some blocks, between the tiers of the blocks before and after them."""
        graph = self.graph
        self._at = list(map(int, placement))
        again: set[int] = set()
        for v in affected:
            again |= {v, *graph.successors[v], *graph.siblings[v]}
        again.discard(0)
        latest: dict[int, int] = {}
        for v in sorted(again, reverse=True):
            latest[v] = min((latest.get(w, self._at[w]) for w in graph.successors[v]), default=int(Tier.CLOUD))
        for v in sorted(again):
            self._at[v] = self._best(v, self._floor(v), latest[v])
        return tuple(map(Tier, self._at))

    def _floor(self, block: int) -> int:
        return max((self._at[u] for u in self.graph.predecessors[block]), default=0)

    def _best(self, block: int, floor: int, ceiling: int = int(Tier.CLOUD)) -> int:
        free = self._free[block] if self._free else self._tiers
        candidates = [t for t in free if floor <= t <= ceiling]
        if len(candidates) == 1:
            return candidates[0]
        if not candidates:
            raise Infeasible(
                f"hpa has put what block {self.graph.blocks[block].name!r} reads on the {Tier(floor).label}, beyond "
                "where it may run; plan with exact"
            )
        return min(candidates, key=lambda tier: self._price(block, tier))

    def _price(self, block: int, tier: int) -> float:
        """Own time, incoming tensors, and the cheapest continuation of each direct successor."""
        total = self._seconds[tier][block] + self._onward[tier][block]
        for tensor in self.graph.blocks[block].inputs:
            total += self._send_s[self._at[self.graph.producer[tensor]], tier][tensor]
        return total

    @cached_property
    def _onward(self) -> dict[int, list[float]]:
        """By tier and block: what its direct successors take at least, each on its cheapest tier, with all it sends.

        Tensors on one way share their messages' latency.
        """
        producer = list(self.graph.producer)
        edges = np.array(self.graph.edges, int).reshape(-1, 2).T
        found = {}
        for tier in self._seconds:
            least = np.full(edges.shape[1], np.inf)
            for later in (t for t in self._seconds if t >= tier):
                sent_s = np.bincount(producer, self._coded_s(tier, later), len(self.graph))
                taken = (sent_s + self._latency_s(tier, later))[edges[0]]
                least = np.minimum(least, np.asarray(self._seconds[later], float)[edges[1]] + taken)
            found[tier] = np.bincount(edges[0], least, len(self.graph)).tolist()
        return found

    @cached_property
    def _send_s(self) -> dict[tuple[int, int], list[float]]:
        """By tiers and tensor: seconds to encode, send and decode, with the latency of a message."""
        pairs = [(source, target) for source in self._seconds for target in self._seconds]
        return {pair: (self._coded_s(*pair) + self._latency_s(*pair)).tolist() for pair in pairs}

    def _latency_s(self, source: int, target: int) -> float:
        return sum(self.costs.link(lower).latency_s for lower in LINKS if source <= lower < target)

    def _coded_s(self, source: int, target: int) -> Floats:
        """`[tensor]`: 0 within a tier, and back."""
        if source >= target:
            return np.zeros(len(self.graph.tensors))
        return self._codings.seconds(self.costs, (Tier(source), Tier(target)))

    @cached_property
    def _codings(self) -> Codings:
        return Codings.under(self.graph, self.costs)

    def _reconsider_siblings(self, layer: Sequence[int]) -> None:
        """Move siblings to v's tier where that pays: their inputs are there already, so they cost only their own time
        and what follows.
        """
        for v in layer:
            for sibling in self.graph.siblings[v]:
                at, there = self._at[sibling], self._at[v]
                if at == there or not set(self.graph.predecessors[sibling]) <= set(self.graph.predecessors[v]):
                    continue
                if there < self._floor(sibling) or (self._free and there not in self._free[sibling]):
                    continue
                incoming = sum(
                    self._send_s[self._at[self.graph.producer[t]], there][t] for t in self.graph.blocks[sibling].inputs
                )
                if self._price(sibling, there) - incoming < self._price(sibling, at):
                    self._at[sibling] = there
