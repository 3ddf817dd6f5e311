"""All cuts between two of a graph, as the ways through a decision diagram, and the cheap ones among them.

A layer decides about one block whether it lies before the cut. States of a layer that leave the same to decide and to
pay are one, and networks are narrow: of the cuts through a dozen cells of NASNet, millions, there are a thousand
states. So what any cut can still become is bounded for many weights at once, from the last layer back, and cuts are
grown from the first layer on while no bound rules them out (Bergman, Cire, van Hoeve and Hooker, "Decision Diagrams
for Optimization", 2016; with several sums this is the resource constrained shortest path, Handler and Zang 1980).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.graph import ModelGraph
from pipeline.partition.cut_family import Bools, Floats, Ints

MOST_STATES = 20_000
"""Of a layer. NASNet has 400 at most."""
_BITS = 64
_NEIGHBOURS = 6
"""Cuts with about the same sums that one is compared with."""

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class _Layer:
    """A block, and for each state before it the one that follows.

    `left` are those without the block, `grown` those with it, of the states `open_to` it. A tensor of `crossing` begins
    to cross where its mask says so if the block is left out, one of `made` if it is not.
    """

    block: int
    left: Ints
    open_to: Ints
    grown: Ints
    crossing: Sequence[tuple[int, Bools]]
    made: Sequence[int]


@dataclass(frozen=True, slots=True)
class CutDiagram:
    """The cuts that have all of `low` and none outside of `up` (bool, `[block]`), both cuts themselves.

    `certain` are tensors that cross all of them.
    """

    low: Bools
    up: Bools
    layers: Sequence[_Layer]
    certain: Sequence[int]

    @classmethod
    def between(cls, graph: ModelGraph, low: Bools, up: Bools) -> CutDiagram | None:
        """The diagram, None if a layer of it has more than MOST_STATES states, or these have too many bits."""
        made = _Made(graph, low, up)
        layers = []
        for block in made.order:
            layer = made.layer(block)
            if layer is None:
                return None
            layers.append(layer)
        return cls(low, up, layers, made.certain)


class _Made:
    """A diagram in the making: the states of the newest layer, as bits.

    A bit says of a block that it lies before the cut, or of a tensor with several readers that it crosses already, as
    long as a block to come asks for that.
    """

    def __init__(self, graph: ModelGraph, low: Bools, up: Bools) -> None:
        self.graph = graph
        self.free = set(np.flatnonzero(up & ~low).tolist())
        self.order = _order(graph, self.free)
        self.certain: list[int] = []
        self._states: Words = np.zeros(1, np.uint64)
        self._bits: dict[tuple[str, int], int] = {}
        self._unused = list(range(_BITS))
        self._made: dict[int, list[int]] = {}
        self._read: dict[int, list[int]] = {}
        self._shared: set[int] = set()
        self._ends: dict[int, list[tuple[str, int]]] = {}
        place = {block: number for number, block in enumerate(self.order)}
        for tensor, readers in enumerate(graph.consumers):
            if readers and up[graph.producer[tensor]]:
                self._note(tensor, is_read=not up[list(readers)].all(), place=place)
        for block in self.order:
            after = [place[w] for w in graph.successors[block] if w in self.free]
            if after:
                self._ends.setdefault(self.order[max(after)], []).append(("block", block))

    def _note(self, tensor: int, *, is_read: bool, place: dict[int, int]) -> None:
        """Sort a tensor in: it may cross for certain, with its block, or by what its readers do."""
        made_by = self.graph.producer[tensor]
        if is_read:
            (self._made.setdefault(made_by, []) if made_by in self.free else self.certain).append(tensor)
            return
        readers = {reader for reader in self.graph.consumers[tensor] if reader in self.free}
        for reader in readers:
            self._read.setdefault(reader, []).append(tensor)
        if len(readers) > 1:
            self._shared.add(tensor)
            last = max(readers, key=lambda reader: place[reader])
            self._ends.setdefault(last, []).append(("tensor", tensor))

    def layer(self, block: int) -> _Layer | None:
        """Decide about the next block; None when there are too many states, or too much to remember in one."""
        if len(self._unused) <= len(self._read.get(block, ())):
            return None
        states = self._states
        fed_by = [u for u in self.graph.predecessors[block] if u in self.free]
        needed = np.uint64(sum(1 << self._bits["block", u] for u in fed_by))
        open_to = np.flatnonzero(states & needed == needed)
        left, crossing = states.copy(), []
        for tensor in self._read.get(block, ()):
            begins = self._is_made(tensor)
            if tensor in self._shared:
                bit = self._bit("tensor", tensor)
                begins &= states & bit == 0
                left |= np.where(begins, bit, np.uint64(0))
            crossing.append((tensor, begins))
        grown = states[open_to] | (self._bit("block", block) if self._is_asked_for(block) else np.uint64(0))
        kept = ~np.uint64(sum(1 << self._bits[key] for key in self._ends.get(block, ())))
        for key in self._ends.get(block, ()):
            self._unused.append(self._bits.pop(key))
        self._states, place = np.unique(np.concatenate([left, grown]) & kept, return_inverse=True)
        if len(self._states) > MOST_STATES:
            return None
        count = len(states)
        return _Layer(block, place[:count], open_to, place[count:], crossing, self._made.get(block, ()))

    def _is_made(self, tensor: int) -> Bools:
        """The state has the tensor's producer before the cut."""
        made_by = self.graph.producer[tensor]
        if made_by not in self.free:
            return np.ones(len(self._states), bool)
        is_made: Bools = self._states & self._bit("block", made_by) != 0
        return is_made

    def _is_asked_for(self, block: int) -> bool:
        return any(w in self.free for w in self.graph.successors[block])

    def _bit(self, kind: str, number: int) -> np.uint64:
        """The bit taken for it, now if it has none yet."""
        if (kind, number) not in self._bits:
            self._bits[kind, number] = self._unused.pop()
        return np.uint64(1 << self._bits[kind, number])


def _order(graph: ModelGraph, free: set[int]) -> list[int]:
    """Blocks after those that feed them, each branch to its end before the next: so there is little to remember."""
    order: list[int] = []
    done: set[int] = set()
    for last in sorted(free):
        if any(w in free for w in graph.successors[last]):
            continue
        stack = [last]
        while stack:
            before = next((u for u in graph.predecessors[stack[-1]] if u in free and u not in done), None)
            if before is not None:
                stack.append(before)
            else:
                done.add(stack[-1])
                order.append(stack.pop())
    return order


@dataclass(frozen=True, slots=True)
class CheapCuts:
    """Cuts that were found, by their sums `[cut, sum]`; `is_all` unless some were left out for want of room.

    `marks`, `[cut, word]`, are those of the blocks that lie before each cut, or behind it, as was asked for.
    """

    sums: Floats
    marks: Words
    is_all: bool
    _layers: Sequence[tuple[int, Ints, Bools]] = field(repr=False)
    _low: Bools = field(repr=False)

    def __len__(self) -> int:
        return len(self.sums)

    def inside(self, cut: int) -> Bools:
        """`[block]`: it lies before this cut."""
        found = self._low.copy()
        for block, before, is_inside in reversed(self._layers):
            found[block] = is_inside[cut]
            cut = int(before[cut])
        return found


class PricedDiagram:
    """A diagram with what blocks inside and crossing tensors add to some sums, and bounds by some weights of these.

    `inside` are `[block, sum]`, `crossing` `[tensor, sum]`, `constant` `[sum]`, `weights` `[sum, weight]`. A cut has
    the marks, `[block, word]`, of all blocks before it, or with `marks_behind` of all behind it.
    """

    def __init__(
        self,
        diagram: CutDiagram,
        inside: Floats,
        crossing: Floats,
        constant: Floats,
        weights: Floats,
        marks: Words,
        *,
        marks_behind: bool,
    ) -> None:
        self._diagram, self.weights = diagram, weights
        self._marks, self._marks_behind = marks, marks_behind
        self._certain_marks = np.bitwise_or.reduce(marks[~diagram.up if marks_behind else diagram.low], axis=0)
        self._constant = constant + inside[diagram.low].sum(axis=0) + crossing[list(diagram.certain)].sum(axis=0)
        self._arcs = [_priced(layer, inside, crossing) for layer in diagram.layers]
        self._behind = list(self._bounds())[::-1]
        self.least: Floats = self._constant @ weights + self._behind[0][0]
        """`[weight]`: no cut's weighted sums are less."""

    def _bounds(self) -> Iterator[Floats]:
        """`[state, weight]` of each layer from the last: what is to come adds no less."""
        behind = np.zeros((1, self.weights.shape[1]))
        yield behind
        for layer, (left, grown) in zip(reversed(self._diagram.layers), reversed(self._arcs), strict=True):
            bound = left @ self.weights + behind[layer.left]
            with_it = grown @ self.weights + behind[layer.grown]
            bound[layer.open_to] = np.minimum(bound[layer.open_to], with_it)
            behind = bound
            yield behind

    def cuts(self, below: Floats, unit: float, most: int) -> CheapCuts:
        """Cuts of which no weighted sum reaches `below`, `[weight]`, but those that another with no mark more beats in
        every sum.

        Sums that differ by less than `unit` are taken for equal. Of more than `most` in a layer those with the lowest
        bounds are kept.
        """
        states, sums, marks = np.zeros(1, np.int64), self._constant[None], self._certain_marks[None]
        layers, is_all = [], True
        for layer, (left, grown), behind in zip(self._diagram.layers, self._arcs, self._behind[1:], strict=True):
            with_it = np.full(len(layer.left), -1)
            with_it[layer.open_to] = layer.grown
            with_it = with_it[states]
            can = np.flatnonzero(with_it >= 0)
            before = np.concatenate([np.arange(len(states)), can])
            sums = np.concatenate([sums + left[states], sums[can] + grown])
            own = self._marks[layer.block]
            marks = np.concatenate([marks | own, marks[can]] if self._marks_behind else [marks, marks[can] | own])
            count, states = len(states), np.concatenate([layer.left[states], with_it[can]])
            reached = (sums @ self.weights + behind[states] - below).max(axis=1, initial=-np.inf)
            kept = np.flatnonzero(reached < 0)
            kept = kept[_unbeaten(states[kept], np.rint(sums[kept] / unit), marks[kept])]
            if len(kept) > most:
                kept, is_all = kept[np.argpartition(reached[kept], most)[:most]], False
            states, sums, marks = states[kept], sums[kept], marks[kept]
            layers.append((layer.block, before[kept], kept >= count))
        return CheapCuts(sums, marks, is_all, layers, self._diagram.low)


def _priced(layer: _Layer, inside: Floats, crossing: Floats) -> tuple[Floats, Floats]:
    """What a layer adds to the sums: `[state, sum]` if the block is left out, `[sum]` if it is not."""
    left = np.zeros((len(layer.left), inside.shape[1]))
    for tensor, begins in layer.crossing:
        left += begins[:, None] * crossing[tensor]
    return left, inside[layer.block] + crossing[list(layer.made)].sum(axis=0)


def _unbeaten(states: Ints, sums: Floats, marks: Words) -> Ints:
    """Cuts without those that a neighbour of the same state beats or equals in every sum, with no mark more."""
    order = np.lexsort((*sums.T[::-1], states))
    states, sums, marks = states[order], sums[order], marks[order]
    is_beaten = np.zeros(len(order), bool)
    for far in range(1, min(_NEIGHBOURS + 1, len(order))):
        is_beaten[far:] |= (
            (states[far:] == states[:-far])
            & (sums[far:] >= sums[:-far]).all(axis=1)
            & (marks[:-far] & ~marks[far:] == 0).all(axis=1)
        )
    return np.asarray(order[~is_beaten])
