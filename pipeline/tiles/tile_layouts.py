"""Tile layouts of a worker pool: which nodes take part, in which grid, with sides in proportion to their speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import TileError
from pipeline.graph import ModelGraph
from pipeline.placement import NodeId
from pipeline.tiles.grid import Grid, spans
from pipeline.tiles.split import size_of
from pipeline.tiles.worker_pool import Ints, TileWorkers, WorkerPool

_FINENESS = 1000
"""Speeds as whole shares: the fastest node's."""


@dataclass(frozen=True, slots=True)
class TileLayout:
    """A grid whose tiles, row by row, are these nodes'."""

    grid: Grid
    nodes: tuple[NodeId, ...]


def tile_layouts(pool: WorkerPool) -> tuple[TileLayout, ...]:
    """Layouts of the fastest one, two, ... workers, with the coordinator and without it, in every grid of that many
    tiles.

    Grids are never wider than high: a map's rows are contiguous in memory, and maps are about as wide as high.
    """
    seconds = {member.node: sum(member.seconds) for member in (pool.coordinator, *pool.workers)}
    fastest = min(seconds.values())
    shares = {node: max(1, round(_FINENESS * fastest / s)) if s else _FINENESS for node, s in seconds.items()}
    workers = sorted((worker.node for worker in pool.workers), key=lambda node: seconds[node])
    found = []
    for count in range(1, len(workers) + 1):
        found += _grids(workers[:count], shares)
        found += _grids(sorted([pool.coordinator.node, *workers[:count]], key=lambda node: seconds[node]), shares)
    return tuple(found)


def _grids(nodes: Sequence[NodeId], shares: dict[NodeId, int]) -> list[TileLayout]:
    found = []
    for rows in range(1, len(nodes) + 1):
        columns, rest = divmod(len(nodes), rows)
        if not rest and columns <= rows:
            taken = np.array([shares[node] for node in nodes]).reshape(rows, columns)
            sides = (taken.sum(axis=1).tolist(), taken.sum(axis=0).tolist())
            found.append(TileLayout(Grid(*(tuple(_reduced(side)) for side in sides)), tuple(nodes)))
    return found


def _reduced(shares: Sequence[int]) -> list[int]:
    divisor = int(np.gcd.reduce(shares))
    return [share // divisor for share in shares]


@dataclass(frozen=True, slots=True)
class LayoutArrays:
    """Layouts as arrays: the distinct divisions of each side in a row, and the place of each tile's span among them.

    `rows` and `columns` are `[layout, tile]`, places among the spans of `spans`; `tile_workers` has who computes.
    """

    divisions: tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]
    rows: Ints
    columns: Ints
    tile_workers: TileWorkers

    @classmethod
    def from_layouts(cls, pool: WorkerPool, found: Sequence[TileLayout]) -> LayoutArrays:
        """Pack layouts of the pool's nodes; tiles beyond a layout's own have no node."""
        most = max(len(tile_layout.nodes) for tile_layout in found)
        divisions = (
            tuple(dict.fromkeys(tile_layout.grid.rows for tile_layout in found)),
            tuple(dict.fromkeys(tile_layout.grid.columns for tile_layout in found)),
        )
        begins = [dict(zip(side, np.cumsum([0, *map(len, side)]).tolist(), strict=False)) for side in divisions]
        rows, columns = np.zeros((2, len(found), most), np.int64)
        for place, tile_layout in enumerate(found):
            high, wide = len(tile_layout.grid.rows), len(tile_layout.grid.columns)
            rows[place, : high * wide] = begins[0][tile_layout.grid.rows] + np.repeat(np.arange(high), wide)
            columns[place, : high * wide] = begins[1][tile_layout.grid.columns] + np.tile(np.arange(wide), high)
        tile_workers = TileWorkers.from_pool(
            pool, [[*tile_layout.nodes, *[None] * (most - len(tile_layout.nodes))] for tile_layout in found]
        )
        return cls(divisions, rows, columns, tile_workers)

    def spans(self, graph: ModelGraph, lasts: Ints) -> Ints:
        """Spans of each last block's output, int64 `[job, axis, (start, stop), span]`; empty where a side is
        too short.
        """
        width = max(sum(map(len, side)) for side in self.divisions)
        found = np.zeros((len(lasts), 2, 2, width), np.int64)
        known: dict[tuple[int, int], Ints] = {}
        for job, last in enumerate(lasts.tolist()):
            for axis, size in enumerate(size_of(graph, graph.blocks[last].outputs[0])):
                if (axis, size) not in known:
                    known[axis, size] = self._side(axis, size, width)
                found[job, axis] = known[axis, size]
        return found

    def _side(self, axis: int, size: int, width: int) -> Ints:
        bounds: list[tuple[int, int]] = []
        for shares in self.divisions[axis]:
            try:
                bounds += spans(shares, size, "places")
            except TileError:
                bounds += [(0, 0)] * len(shares)
        bounds += [(0, 0)] * (width - len(bounds))
        return np.array(bounds, np.int64).T
