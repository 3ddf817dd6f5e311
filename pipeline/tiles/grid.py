"""Grids: a map divided into rows and columns of tiles, equal or in given shares. Knows no block."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from pipeline.errors import TileError
from pipeline.tiles.regions import Span

_SIDES = re.compile(r"\s*([\d,]+)\s*[xX]\s*([\d,]+)\s*")


@dataclass(frozen=True, slots=True)
class Grid:
    """Shares of the map's height, from the top, and of its width, from the left: equal ones make equal tiles.

    Shares that add up to the height (or width) are the tiles' heights (or widths).
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.rows or not self.columns or min(*self.rows, *self.columns) < 1:
            raise TileError(f"grid {self}: each side needs at least one tile, and each tile a share of at least 1")

    def __str__(self) -> str:
        return f"{_written(self.rows)}x{_written(self.columns)}"

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    @classmethod
    def parse(cls, text: str) -> Grid:
        """Parse `2x3` (rows x columns of equal tiles) or, with shares, `3,5,8x1`. Raises TileError."""
        found = _SIDES.fullmatch(text)
        try:
            if found is None:
                raise ValueError
            return cls(*(_shares(side) for side in found.groups()))
        except ValueError:
            raise TileError(
                f"grid {text!r} is not one: give ROWSxCOLUMNS, each a count or the tiles' shares with commas, "
                "as in 2x2, 1x4 or 3,5,8x1"
            ) from None


def _shares(side: str) -> tuple[int, ...]:
    if "," not in side:
        count = int(side)
        if count > _MOST:
            raise TileError(f"{count:,} tiles on one side: at most {_MOST} can be had")
        return (1,) * count
    return tuple(int(part) for part in side.split(","))


_MOST = 4096


def _written(shares: Sequence[int]) -> str:
    return str(len(shares)) if set(shares) == {1} else ",".join(map(str, shares)) + ("," if len(shares) == 1 else "")


def spans(shares: Sequence[int], size: int, what: str) -> tuple[Span, ...]:
    """Divide an axis of `size` places into these shares, rounded so that they cover it and no tile is empty.

    Raises TileError when there are more tiles than places; `what` names them (`rows of conv2d_7's map`).
    """
    if len(shares) > size:
        raise TileError(f"{len(shares)} tiles over {size} {what}: ask for {size} or fewer, or end the stack earlier")
    total, ends = sum(shares), list(accumulate(shares))
    bounds = [0, *((2 * end * size + total) // (2 * total) for end in ends[:-1]), size]
    for place in range(1, len(bounds) - 1):
        bounds[place] = min(max(bounds[place], bounds[place - 1] + 1), size - (len(bounds) - 1 - place))
    return tuple(Span(start, stop) for start, stop in pairwise(bounds))
