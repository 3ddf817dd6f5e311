"""The kinds of work that a node does for a frame."""

from __future__ import annotations

from enum import Enum


class Work(Enum):
    """A whole stage; or of a tiled one what its coordinator does before the tiles, one tile, and what the coordinator
    does after.
    """

    STAGE = "stage"
    BEFORE = "before"
    TILE = "tile"
    AFTER = "after"
