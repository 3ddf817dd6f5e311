"""The cuts of a graph in disjoint intervals, and the cheapest cut of each as a minimum cut of a flow network.

An interval has the cuts that reach equally far along one longest path of the graph. Of a cell of NASNet, which has more
cuts than can be listed, all blocks but those of the path are free within it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.graph import ModelGraph
from pipeline.partition.cut_family import Bools, ByGraph, Floats, Ints
from pipeline.partition.steps import ancestors

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_CAPACITY = 2**30
"""Of all arcs from the source: flows are in integers of 32 bits."""
_UNBOUNDED = 2**31 - 1
_LEAST = 1e-200


@dataclass(frozen=True, slots=True)
class CutIntervals:
    """A flow network with one part for each interval; node 0 is the source, 1 the sink.

    Interval k, rows of `low` and `up` (bool `[interval, block]`): cuts with the path's blocks up to k and none behind.
    `nodes` are the free blocks' numbers, of `interval` and `block`. Arcs hold a tensor's worth, or are unbounded (-1).
    """

    low: Bools
    up: Bools
    interval: Ints
    block: Ints
    nodes: Ints
    tails: Ints
    heads: Ints
    tensors: Ints
    arc_interval: Ints
    count: int
    readers: Ints
    """Of all tensors that have any, one after the other; `starts` says where those of each of `read` begin."""
    starts: Ints
    read: Ints

    @classmethod
    def of(cls, graph: ModelGraph) -> CutIntervals:
        """Sort the graph's cuts along its longest path."""
        before, path = ancestors(graph), _longest_path(graph)
        low = before[path]
        up = np.vstack([~before[:, path[1:]].T, np.ones((1, len(graph)), bool)])
        interval, block = np.nonzero(up & ~low)
        nodes = np.arange(len(interval)) + 2
        arcs = _Arcs(
            graph, low, up, dict(zip(zip(interval.tolist(), block.tolist(), strict=True), nodes.tolist(), strict=True))
        )
        tails, heads, tensors, of = np.array(arcs.found, np.int64).reshape(-1, 4).T
        read = [tensor for tensor, readers in enumerate(graph.consumers) if readers]
        counts = [len(graph.consumers[tensor]) for tensor in read]
        flat = np.array([reader for tensor in read for reader in graph.consumers[tensor]], int)
        starts = np.cumsum([0, *counts])[:-1]
        return cls(
            low, up, interval, block, nodes, tails, heads, tensors, of, arcs.count, flat, starts, np.array(read, int)
        )

    def crossing(self, graph: ModelGraph, inside: Bools) -> Bools:
        """`[cut, tensor]`: the tensor is made inside and read behind."""
        made = inside[:, list(graph.producer)]
        crossing = np.zeros_like(made)
        read_inside = np.logical_and.reduceat(inside[:, self.readers], self.starts, axis=1)
        crossing[:, self.read] = made[:, self.read] & ~read_inside
        return crossing

    def certain(self, graph: ModelGraph) -> Bools:
        """`[interval, tensor]`: the tensor crosses every cut of the interval."""
        crossing = self.low[:, list(graph.producer)]
        is_read = np.zeros_like(crossing)
        is_read[:, self.read] = ~np.logical_and.reduceat(self.up[:, self.readers], self.starts, axis=1)
        return crossing & is_read

    def least(self, intervals: Ints, inside: Floats, crossing: Floats) -> tuple[Bools, Floats]:
        """The cheapest cut of each of some intervals, by what a block inside and a crossing tensor (at least 0) add.

        With it by how much a cheaper one could be below, since capacities are rounded down.
        """
        from scipy.sparse.csgraph import breadth_first_order

        place = np.full(len(self.low), -1)
        place[intervals] = np.arange(len(intervals))
        free, arcs = place[self.interval] >= 0, place[self.arc_interval] >= 0
        nodes, tensors = self.nodes[free], self.tensors[arcs]
        worth = inside[self.block[free]]
        tails = np.concatenate([self.tails[arcs], np.where(worth > 0, nodes, 0)])
        heads = np.concatenate([self.heads[arcs], np.where(worth > 0, 1, nodes)])
        is_bounded = np.concatenate([tensors >= 0, np.ones(len(worth), bool)])
        capacity = np.concatenate([crossing[tensors], np.abs(worth)])
        most = max(capacity[is_bounded & (tails == 0)].sum(), _LEAST)  # no flow is larger
        scale = _CAPACITY / most
        whole = np.where(is_bounded, np.minimum(capacity, most) * scale, _UNBOUNDED).astype(np.int64)
        reached = np.zeros(self.count, bool)
        reached[breadth_first_order(_residual(whole, tails, heads, self.count), 0, return_predecessors=False)] = True
        found = self.low[intervals]
        chosen = reached[nodes]
        found[place[self.interval[free][chosen]], self.block[free][chosen]] = True
        is_cut = reached[tails] & ~reached[heads]
        of = place[np.concatenate([self.arc_interval[arcs], self.interval[free]])]
        lost = np.bincount(of[is_cut], (capacity - whole / scale)[is_cut], minlength=len(intervals))
        return found, lost.astype(float)


def _residual(capacity: Ints, tails: Ints, heads: Ints, count: int) -> csr_array:
    """What is left of the capacities under a largest flow from node 0 to node 1.

    Arcs between the same nodes add up, to more than 32 bits where no flow is that large.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    network = csr_array((capacity, (tails, heads)), shape=(count, count))
    network.data = np.minimum(network.data, _UNBOUNDED).astype(np.int32)
    left = network - maximum_flow(network, 0, 1).flow
    left.eliminate_zeros()
    return left


class _Arcs:
    """The arcs (tail, head, tensor or -1, interval) of a network, and how many nodes it has."""

    def __init__(self, graph: ModelGraph, low: Bools, up: Bools, nodes: dict[tuple[int, int], int]) -> None:
        self.found: list[tuple[int, int, int, int]] = []
        self.count = len(nodes) + 2
        self._nodes = nodes
        for (interval, block), node in nodes.items():
            before = (nodes.get((interval, other)) for other in graph.predecessors[block])
            self.found += [(node, other, -1, interval) for other in before if other is not None]
        for tensor, readers in enumerate(graph.consumers):
            if readers:
                made_by, to = graph.producer[tensor], list(readers)
                is_read: Bools = np.logical_not(up[:, to].all(axis=1))
                is_open = up[:, made_by] & np.where(is_read, ~low[:, made_by], ~low[:, to].all(axis=1))
                for interval in np.flatnonzero(is_open).tolist():
                    self._add(interval, tensor, made_by, readers, is_read=bool(is_read[interval]))

    def _add(self, interval: int, tensor: int, made_by: int, readers: Sequence[int], *, is_read: bool) -> None:
        """A tensor that is cut if it is made inside (the source, where always) and a reader is not."""
        tail = self._nodes.get((interval, made_by), 0)
        free = [node for reader in readers if (node := self._nodes.get((interval, reader))) is not None]
        if is_read and tail:
            self.found.append((tail, 1, tensor, interval))
        elif not is_read and len(free) == 1:
            self.found.append((tail, free[0], tensor, interval))
        elif not is_read and free:
            self.found += [(tail, self.count, tensor, interval), *((self.count, node, -1, interval) for node in free)]
            self.count += 1


def _longest_path(graph: ModelGraph) -> list[int]:
    """Blocks from block 0 on, each feeding the next."""
    length, before = [0] + [-1] * (len(graph) - 1), [0] * len(graph)
    for block in range(1, len(graph)):
        for other in graph.predecessors[block]:
            if 0 <= length[other] >= length[block]:
                length[block], before[block] = length[other] + 1, other
    path = [int(np.argmax(length))]
    while path[-1]:
        path.append(before[path[-1]])
    return path[::-1]


_INTERVALS = ByGraph(CutIntervals.of)


def intervals_of(graph: ModelGraph) -> CutIntervals:
    """The graph's cuts in intervals, sorted once."""
    return _INTERVALS.of(graph)
