"""Cuts of a graph in two: sets of blocks with all that feeds them, its order ideals, as rows of arrays.

A placement is two of them, one within the other: what the device has, and what device and edge have together (Birkhoff,
"Rings of sets", 1937). Networks are narrow, so that most have hardly more cuts than blocks: then all placements can be
priced at once. Of any graph the chain of its blocks' order is a family of cuts.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.graph import ModelGraph
from pipeline.placement import Placement, Tier

MOST_CUTS = 2500
"""Of the zoo's networks inception_v4 has 2,001, and only NASNet has more."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Made = TypeVar("Made")
_TIERS = tuple(Tier)


class _Level(NamedTuple):
    """Cuts of one size, those next to them on one side, and where each one's begin among these."""

    cuts: slice
    others: Ints
    starts: Ints


@dataclass(frozen=True, slots=True)
class CutFamily:
    """Some or all cuts of a graph, by size, from block 0 alone to all blocks.

    `inside`, float64 `[cut, block]`, is 1 for blocks before the cut; `made`, `[cut, tensor]`, for tensors that they
    make, `wanted` for tensors with a reader behind it, `crossing` for both. `returned`, `[cut, output]`, is 1 for
    outputs (`graph.results`) made behind it, `nbytes`, `[tensor]`, are sizes. `within`, `[cut, cut]`: the first lies
    within the second.
    """

    inside: Floats
    made: Floats
    wanted: Floats
    crossing: Floats
    returned: Floats
    nbytes: Floats
    within: Bools
    _behind: Sequence[_Level] = field(repr=False)
    _before: Sequence[_Level] = field(repr=False)

    def __len__(self) -> int:
        return len(self.inside)

    def placement(self, first: int, second: int) -> Placement:
        """The device has what is before the first cut, the edge what lies between both, the cloud the rest."""
        tiers = 2 - self.inside[first] - self.inside[second]
        return tuple(map(_TIERS.__getitem__, tiers.astype(int).tolist()))

    def least_behind(self, values: Floats) -> Floats:
        """For each cut the least value of those that it lies strictly within, inf for none; `[..., cut]`."""
        if self._is_chain:
            return _least_so_far(values[..., ::-1])[..., ::-1]
        return _least(values, self._behind)

    def least_before(self, values: Floats) -> Floats:
        """For each cut the least value of those that lie strictly within it, inf for none; `[..., cut]`."""
        return _least_so_far(values) if self._is_chain else _least(values, self._before)

    @property
    def _is_chain(self) -> bool:
        return len(self._before) == len(self) - 1


def chain_of(graph: ModelGraph) -> CutFamily:
    """The cuts of the blocks' order: row i has the blocks up to i."""
    return _CHAINS.of(graph)


def all_cuts_of(graph: ModelGraph) -> CutFamily | None:
    """All cuts of the graph, None if there are more than MOST_CUTS."""
    return _ALL.of(graph)


class ByGraph(Generic[Made]):
    """What is made of graphs, kept as long as these are: to look one up by its value would read all of it."""

    def __init__(self, make: Callable[[ModelGraph], Made]) -> None:
        self._make = make
        self._known: dict[int, tuple[weakref.ref[ModelGraph], Made]] = {}

    def of(self, graph: ModelGraph) -> Made:
        key = id(graph)
        known = self._known.get(key)
        if known is None or known[0]() is not graph:
            known = weakref.ref(graph, lambda _: self._known.pop(key, None)), self._make(graph)
            self._known[key] = known
        return known[1]


def _chain(graph: ModelGraph) -> CutFamily:
    n = len(graph)
    return _family(graph, np.tri(n), [[i + 1] for i in range(n - 1)])


def _all(graph: ModelGraph) -> CutFamily | None:
    found = dict[int, int]()
    larger: list[list[int]] = []
    for mask, behind in _grown(graph):
        found[mask] = len(found)
        larger.append(behind)
        if len(found) > MOST_CUTS:
            return None
    rows = np.array([[mask >> block & 1 for block in range(len(graph))] for mask in found], float)
    return _family(graph, rows, [[found[mask] for mask in masks] for masks in larger])


def _grown(graph: ModelGraph) -> Iterator[tuple[int, list[int]]]:
    """All cuts by size, as sets of bits, each with those that have one block more."""
    fed_by = [sum(1 << u for u in before) for before in graph.predecessors]
    level = {1: tuple(v for v in range(1, len(graph)) if fed_by[v] | 1 == 1)}
    while level:
        following: dict[int, tuple[int, ...]] = {}
        for mask, free in level.items():
            behind = []
            for block in free:
                grown = mask | 1 << block
                behind.append(grown)
                if grown not in following:
                    fed = (w for w in graph.successors[block] if fed_by[w] & grown == fed_by[w])
                    following[grown] = (*(v for v in free if v != block), *fed)
            yield mask, behind
        level = following


def _family(graph: ModelGraph, inside: Floats, larger: list[list[int]]) -> CutFamily:
    made = inside[:, list(graph.producer)]
    wanted = np.zeros_like(made)
    for tensor, readers in enumerate(graph.consumers):
        if readers:
            wanted[:, tensor] = inside[:, list(readers)].min(axis=1) < 1
    nbytes = np.array([float(tensor.nbytes) for tensor in graph.tensors])
    returned = 1 - made[:, list(graph.results)]
    within = inside.astype(np.float32) @ (1 - inside.astype(np.float32)).T == 0
    smaller: list[list[int]] = [[] for _ in inside]
    for cut, behind in enumerate(larger):
        for other in behind:
            smaller[other].append(cut)
    sizes = inside.sum(axis=1)
    bounds = [0, *(np.flatnonzero(np.diff(sizes)) + 1).tolist(), len(sizes)]
    levels = list(pairwise(bounds))
    return CutFamily(
        inside,
        made,
        wanted,
        made * wanted,
        returned,
        nbytes,
        within,
        [_level(cuts, larger) for cuts in reversed(levels[:-1])],
        [_level(cuts, smaller) for cuts in levels[1:]],
    )


def _level(cuts: tuple[int, int], neighbours: Sequence[Sequence[int]]) -> _Level:
    counts = [len(neighbours[cut]) for cut in range(*cuts)]
    others = np.array([other for cut in range(*cuts) for other in neighbours[cut]], np.int64)
    return _Level(slice(*cuts), others, np.cumsum([0, *counts[:-1]]))


def _least_so_far(values: Floats) -> Floats:
    """The least of what comes before each value."""
    least = np.full(values.shape, np.inf)
    np.minimum.accumulate(values[..., :-1], axis=-1, out=least[..., 1:])
    return least


def _least(values: Floats, levels: Sequence[_Level]) -> Floats:
    least = np.full(values.shape, np.inf)
    for cuts, others, starts in levels:
        found = np.minimum(values[..., others], least[..., others])
        least[..., cuts] = found if len(others) == len(starts) else np.minimum.reduceat(found, starts, axis=-1)
    return least


_CHAINS, _ALL = ByGraph(_chain), ByGraph(_all)
