"""Tiles of arrays: what a tile is given, and the whole from what the tiles made. `merge(cut(x)) == x`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.tiles.regions import Region
from pipeline.tiles.split import Tile, TileMap

Array = npt.NDArray[Any]
_MAP_RANK = 4


def cut(tile_map: TileMap, tile: Tile, tensors: Mapping[int, Array]) -> dict[int, Array]:
    """The inputs of one tile, copied out of the stack's inputs by tensor id."""
    return {i: np.ascontiguousarray(part(tensors[i], tile.regions[i])) for i in tile_map.stack.inputs}


def part(array: Array, region: Region) -> Array:
    """A region of a map (batch, rows, columns, channels), as a view; anything else as it is."""
    if array.ndim != _MAP_RANK:
        return array
    return array[:, region.rows.start : region.rows.stop, region.columns.start : region.columns.stop]


def merge(tile_map: TileMap, parts: Sequence[Array]) -> Array:
    """The stack's output from its tiles', in the order of `tiles`."""
    first = parts[0]
    whole = np.empty((first.shape[0], tile_map.rows[-1].stop, tile_map.columns[-1].stop, first.shape[3]), first.dtype)
    for tile, made in zip(tile_map.tiles, parts, strict=True):
        part(whole, tile.regions[tile_map.stack.output])[...] = made
    return whole
