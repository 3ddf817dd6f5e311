"""The ways to share a map out to a team: who takes part, in which grid, each side divided in proportion to speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import TileError
from pipeline.graph import ModelGraph
from pipeline.placement import NodeId
from pipeline.tiles.grid import Grid, spans
from pipeline.tiles.split import size_of
from pipeline.tiles.team import Crew, Ints, Team

_FINENESS = 1000
"""Speeds as whole shares: the fastest node's."""


@dataclass(frozen=True, slots=True)
class Way:
    """A grid whose tiles, row by row, are these nodes'."""

    grid: Grid
    nodes: tuple[NodeId, ...]


def ways(team: Team) -> tuple[Way, ...]:
    """The fastest one, two, ... workers with the head and without it, in every grid of so many tiles.

    None wider than high: a map's rows lie together in memory, and maps are about as wide as high.
    """
    seconds = {member.node: sum(member.seconds) for member in (team.head, *team.workers)}
    fastest = min(seconds.values())
    shares = {node: max(1, round(_FINENESS * fastest / s)) if s else _FINENESS for node, s in seconds.items()}
    workers = sorted((worker.node for worker in team.workers), key=lambda node: seconds[node])
    found = []
    for count in range(1, len(workers) + 1):
        found += _grids(workers[:count], shares)
        found += _grids(sorted([team.head.node, *workers[:count]], key=lambda node: seconds[node]), shares)
    return tuple(found)


def _grids(nodes: Sequence[NodeId], shares: dict[NodeId, int]) -> list[Way]:
    found = []
    for rows in range(1, len(nodes) + 1):
        columns, rest = divmod(len(nodes), rows)
        if not rest and columns <= rows:
            taken = np.array([shares[node] for node in nodes]).reshape(rows, columns)
            sides = (taken.sum(axis=1).tolist(), taken.sum(axis=0).tolist())
            found.append(Way(Grid(*(tuple(_reduced(side)) for side in sides)), tuple(nodes)))
    return found


def _reduced(shares: Sequence[int]) -> list[int]:
    divisor = int(np.gcd.reduce(shares))
    return [share // divisor for share in shares]


@dataclass(frozen=True, slots=True)
class Layout:
    """Ways as arrays: the distinct divisions of each side one after the other, and where each tile finds its span.

    `rows` and `columns` are `[way, tile]`, places among the spans of `spans`; `crew` has who computes.
    """

    divisions: tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]
    rows: Ints
    columns: Ints
    crew: Crew

    @classmethod
    def of(cls, team: Team, found: Sequence[Way]) -> Layout:
        """Of ways that a team can go."""
        most = max(len(way.nodes) for way in found)
        divisions = (
            tuple(dict.fromkeys(way.grid.rows for way in found)),
            tuple(dict.fromkeys(way.grid.columns for way in found)),
        )
        begins = [dict(zip(side, np.cumsum([0, *map(len, side)]).tolist(), strict=False)) for side in divisions]
        rows, columns = np.zeros((2, len(found), most), np.int64)
        for place, way in enumerate(found):
            high, wide = len(way.grid.rows), len(way.grid.columns)
            rows[place, : high * wide] = begins[0][way.grid.rows] + np.repeat(np.arange(high), wide)
            columns[place, : high * wide] = begins[1][way.grid.columns] + np.tile(np.arange(wide), high)
        crew = Crew.of(team, [[*way.nodes, *[None] * (most - len(way.nodes))] for way in found])
        return cls(divisions, rows, columns, crew)

    def spans(self, graph: ModelGraph, lasts: Ints) -> Ints:
        """The spans of each last block's output, `[job, axis, (start, stop), span]`; empty on too short a side."""
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
