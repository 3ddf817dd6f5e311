"""The best two cuts for throughput: the cheap ones of each side, grown in rounds, and the best pair of these.

A pair is worth the largest of its sums, tiers and links of the period, and a rest. Of these the edge's, and those of
cores that nodes share, have parts of both cuts; for each first cut the second ones that leave the edge enough are the
first few in the edge's order.
Where that matters, the first cut has to lie within the second: blocks that could be before the one and behind the
other are marked, and no pair has a mark in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from pipeline.partition.cut_diagram import CheapCuts, CutDiagram, PricedDiagram, Words
from pipeline.partition.cut_family import Bools, Floats
from pipeline.partition.program import PROOF

_ROOM = (2000, 20_000)
"""Cuts that are kept of a layer, round after round: what few of them find rules out most of the others."""
NESTED_ROOM = _ROOM[:1]
"""Where marks tell cuts apart that are alike otherwise, more find little."""
_ALIKE = 1e-10
"""Sums that differ by this share of the best known value are equal, over all layers to PROOF / 10."""
_APART = 4 * PROOF
"""By this share a placement's value may be above its cuts' sums: a link's latency, which is in none, decides ties."""
_ROWS = 128
_OWN, _EDGE, _LINK, _REST = 0, 1, 2, -1
"""Sums of a side: its own tier, the edge, its link, cores that nodes share, and what is added to the largest."""
_SHARED = slice(3, -1)


class Side(NamedTuple):
    """A cut's diagram and sums, in the objective's unit: `inside` `[block, sum]`, `crossing` `[tensor, sum]` and
    `constant` `[sum]`; own tier, edge, link, shared cores, rest.
    """

    diagram: CutDiagram
    inside: Floats
    crossing: Floats
    constant: Floats
    weights: Floats
    """`[sum, weight]`, the rest's 1: of both sides for the same weights of all tiers and links, which add up to 1."""


class PairSearch:
    """The pairs of cuts that are worth less than what is known, by ever more of the cheap cuts of each side.

    `offer` takes the blocks before the first cut and before the second, and returns the least value known then. With
    `is_nested` no other pairs count, which takes longer where the same block may be free in both.
    """

    def __init__(
        self, first: Side, second: Side, value: float, offer: Callable[[Bools, Bools], float], *, is_nested: bool
    ) -> None:
        self.value, self._offer = value, offer
        self.room = 0
        """Cuts that were kept of a layer in the last round."""
        self._is_nested, self._room = is_nested, NESTED_ROOM if is_nested else _ROOM
        marks = _marks(first.diagram.up & ~second.diagram.low & is_nested)
        self._sides = [PricedDiagram(*side, marks, marks_behind=side is second) for side in (first, second)]
        self._least = [side.least for side in self._sides]

    def run(self) -> float:
        """The value that no pair is below, 0 if that was not found out."""
        order = (0, 1)
        for room in self._room:
            self.room = room
            asked = self.value * (1 - PROOF)
            found = self._grown(order, asked, room)
            if any(side.is_all and not len(side) for side in found.values()):
                return asked
            best = min(self._pairs(found[0], found[1]), default=np.inf)
            if found[0].is_all and found[1].is_all:
                return min(asked, best)
            order = (0, 1) if len(found[0]) <= len(found[1]) else (1, 0)
        return 0.0

    def _grown(self, order: tuple[int, int], below: float, room: int) -> dict[int, CheapCuts]:
        """Both sides' cheap cuts, or those of one that has none: each given what the other takes at least."""
        found: dict[int, CheapCuts] = {}
        one, other = order
        for number in (one, other, one):
            if number in found and (found[number].is_all or not found[1 - number].is_all):
                break  # nothing more is known than before
            side = self._sides[number].cuts(below - self._least[1 - number], self.value * _ALIKE, room)
            found[number] = side
            if side.is_all:
                if not len(side):
                    break
                self._least[number] = (side.sums @ self._sides[number].weights).min(axis=0)
        return found

    def _pairs(self, first: CheapCuts, second: CheapCuts) -> Iterator[float]:
        """Offer the best pair of each batch of first cuts that is better than all before; their values."""
        edge = np.argsort(second.sums[:, _EDGE])
        own = [np.maximum(found.sums[:, _OWN], found.sums[:, _LINK]) for found in (first, second)]
        rest = [found.sums[:, _REST] for found in (first, second)]
        in_order = second.sums[edge, _EDGE], own[1][edge], rest[1][edge]
        rows_in_order = np.argsort(first.sums[:, _EDGE])
        best, least_rest = self.value, sum(part.min(initial=np.inf) for part in rest)
        for start in range(0, len(rows_in_order), _ROWS):
            rows = rows_in_order[start : start + _ROWS]
            left = first.sums[rows, _EDGE]
            few = int(np.searchsorted(in_order[0], best - left[0] - least_rest))
            if not few:
                break
            columns, owned, added = (values[:few] for values in in_order)
            worth = np.maximum(own[0][rows, None], owned[None])
            np.maximum(worth, left[:, None] + columns[None], out=worth)
            for one, other in zip(first.sums[rows, _SHARED].T, second.sums[edge[:few], _SHARED].T, strict=True):
                np.maximum(worth, one[:, None] + other[None], out=worth)
            worth += rest[0][rows, None] + added[None]
            found = _least_apart(worth, best, first.marks[rows], second.marks[edge[:few]])
            if found is not None:
                best, row, column = found
                yield best
                offered = self._offer(first.inside(int(rows[row])), second.inside(int(edge[column])))
                self.value = offered if self._is_nested or offered <= best * (1 + _APART) else best


def _marks(blocks: Bools) -> Words:
    """A bit for each of these blocks, `[block, word]`."""
    marked = np.flatnonzero(blocks)
    words = np.zeros((len(blocks), -(-len(marked) // 64)), np.uint64)
    for number, block in enumerate(marked.tolist()):
        words[block, number // 64] = 1 << number % 64
    return words


def _least_apart(worth: Floats, below: float, rows: Words, columns: Words) -> tuple[float, int, int] | None:
    """The least value, and its row and column, of those below a bound whose marks have nothing in common."""
    found = np.argwhere(worth < below)
    for part in range(rows.shape[1]):
        found = found[rows[found[:, 0], part] & columns[found[:, 1], part] == 0]
    if not len(found):
        return None
    values = worth[found[:, 0], found[:, 1]]
    row, column = found[int(values.argmin())].tolist()
    return float(worth[row, column]), row, column
