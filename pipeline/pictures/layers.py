"""Layered layout of a DAG: layers, the order within them, and lanes. Geometry in units, no pixels, no SVG.

The steps are Sugiyama's (Sugiyama, Tagawa, Toda, 1981): layer by longest distance from the input, split tensors that
pass layers into one point on each, order by barycentres, then move what is ordered towards its neighbours. All
deterministic.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.graph import ModelGraph

_SWEEPS = 12
_STRAIGHT = 8.0
_BENT = 2.0


@dataclass(frozen=True, slots=True)
class EdgePath:
    """A tensor's path from its producer to its readers: (point before, point) pairs, in order of layers.

    A point below the number of blocks is that block; all others are where the tensor passes a layer. A tensor that
    several blocks read is one tree.
    """

    tensor: int
    source: int
    parents: tuple[tuple[int, int], ...]

    def to(self, block: int) -> list[tuple[int, int]]:
        """The (parent, point) pairs from this reader back to the producer."""
        before = {point: parent for parent, point in self.parents}
        steps = []
        while block != self.source:
            steps.append((before[block], block))
            block = before[block]
        return steps


@dataclass(frozen=True, slots=True)
class Layers:
    """The points of each layer from first lane to last; each point's layer, lane and size in lanes; all edge paths."""

    order: tuple[tuple[int, ...], ...]
    layer: tuple[int, ...]
    lane: tuple[float, ...]
    size: tuple[float, ...]
    edge_paths: tuple[EdgePath, ...]


def depths(graph: ModelGraph) -> list[int]:
    """The longest distance of each block from the input, in edges."""
    depth = [0] * len(graph)
    for before, after in graph.edges:
        depth[after] = max(depth[after], depth[before] + 1)
    return depth


def arrange(graph: ModelGraph, sizes: Sequence[float] = ()) -> Layers:
    """Lay the graph out; `sizes` are the lanes that each block needs, by default one."""
    layer = depths(graph)
    edge_paths = [_edge_path(graph, tensor.id, layer) for tensor in graph.tensors]
    sizes = [*(sizes or [1.0] * len(graph)), *[0.5] * (len(layer) - len(graph))]
    order: list[list[int]] = [[] for _ in range(max(layer) + 1)]
    for point, at in enumerate(layer):
        order[at].append(point)
    before: list[list[int]] = [[] for _ in layer]
    after: list[list[int]] = [[] for _ in layer]
    for edge_path in edge_paths:
        for parent, point in edge_path.parents:
            before[point].append(parent)
            after[parent].append(point)
    order = _ordered(order, before, after)
    lane = _lanes(order, before, after, sizes, len(graph))
    return Layers(tuple(map(tuple, order)), tuple(layer), tuple(lane), tuple(sizes), tuple(edge_paths))


def _edge_path(graph: ModelGraph, tensor: int, layer: list[int]) -> EdgePath:
    """Append a point to `layer` for each layer between the producer's and that of the last reader."""
    source, readers = graph.producer[tensor], graph.consumers[tensor]
    on_layer = {layer[source]: source}
    parents = []
    for at in range(layer[source] + 1, max((layer[reader] for reader in readers), default=0)):
        on_layer[at] = len(layer)
        parents.append((on_layer[at - 1], len(layer)))
        layer.append(at)
    parents += [(on_layer[layer[reader] - 1], reader) for reader in readers]
    return EdgePath(tensor, source, tuple(sorted(parents, key=lambda step: (layer[step[1]], step[1]))))


def _ordered(order: list[list[int]], before: list[list[int]], after: list[list[int]]) -> list[list[int]]:
    """Sweeps of barycentres down and up; the order with the fewest crossings of all that came by."""
    best, fewest = [list(points) for points in order], _crossings(order, after)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        forwards = sweep % 2 == 0
        neighbours = before if forwards else after
        for points, nearest in _pairs(order, forwards):
            rank = {point: float(i) for i, point in enumerate(nearest)}
            centre = {}
            for i, point in enumerate(points):
                found = [rank[n] for n in neighbours[point]]
                centre[point] = sum(found) / len(found) if found else i * len(nearest) / len(points)
            points.sort(key=centre.__getitem__)
        count = _crossings(order, after)
        if count < fewest:
            best, fewest = [list(points) for points in order], count
    return best


def _pairs(order: list[list[int]], forwards: bool) -> list[tuple[list[int], list[int]]]:
    """Each layer with the one that was settled before it."""
    if forwards:
        return list(zip(order[1:], order, strict=False))
    return list(zip(order[-2::-1], order[:0:-1], strict=True))


def _crossings(order: list[list[int]], after: list[list[int]]) -> int:
    return sum(_inversions(upper, lower, after) for upper, lower in pairwise(order))


def _inversions(upper: Sequence[int], lower: Sequence[int], after: list[list[int]]) -> int:
    rank = {point: i for i, point in enumerate(lower)}
    seen: list[int] = []
    found = 0
    for point in upper:
        ends = sorted(rank[n] for n in after[point])
        found += sum(len(seen) - bisect_right(seen, end) for end in ends)
        for end in ends:
            insort(seen, end)
    return found


def _lanes(
    order: list[list[int]], before: list[list[int]], after: list[list[int]], sizes: Sequence[float], blocks: int
) -> list[float]:
    """Lane of each point: its neighbours' mean, as far as order and sizes allow; passing tensors stay straight."""
    lane = [0.0] * len(before)
    for points in order:
        apart = _offsets(points, sizes)
        for point, offset in zip(points, apart, strict=True):
            lane[point] = offset - apart[-1] / 2
    for sweep in range(_SWEEPS):
        around = [b + a for b, a in zip(before, after, strict=True)] if sweep >= _SWEEPS - 4 else None
        for points in order if sweep % 2 == 0 else reversed(order):
            neighbours = around or (before if sweep % 2 == 0 else after)
            wanted, weights = [], []
            for point in points:
                near = [(lane[n], _weight(point, n, blocks)) for n in neighbours[point]] or [(lane[point], 0.1)]
                weights.append(sum(weight for _, weight in near))
                wanted.append(sum(at * weight for at, weight in near) / weights[-1])
            _place(points, wanted, weights, sizes, lane)
    return lane


def _weight(one: int, other: int, blocks: int) -> float:
    passing = (one >= blocks) + (other >= blocks)
    return (1.0, _BENT, _STRAIGHT)[passing]


def _offsets(points: Sequence[int], sizes: Sequence[float]) -> list[float]:
    """Distance of each point from the first when all are as close as their sizes allow."""
    found = [0.0] * len(points)
    for i in range(1, len(points)):
        found[i] = found[i - 1] + (sizes[points[i - 1]] + sizes[points[i]]) / 2
    return found


def _place(
    points: Sequence[int], wanted: list[float], weights: list[float], sizes: Sequence[float], lane: list[float]
) -> None:
    """The lanes nearest to the wanted ones by weighted squares, in order and apart: isotonic regression by pooling."""
    apart = _offsets(points, sizes)
    pools: list[tuple[float, float, int]] = []
    for want, weight, offset in zip(wanted, weights, apart, strict=True):
        pool = (want - offset, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, heavy, count = pools.pop()
            total = heavy + pool[1]
            pool = ((mean * heavy + pool[0] * pool[1]) / total, total, count + pool[2])
        pools.append(pool)
    settled = [mean for mean, _, count in pools for _ in range(count)]
    for point, mean, offset in zip(points, settled, apart, strict=True):
        lane[point] = mean + offset
