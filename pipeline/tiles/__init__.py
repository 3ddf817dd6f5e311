"""Vertical separation (D3): feature maps cut into tiles that are computed apart and lose no bit.

`stacks` says which runs of blocks can be tiled, `split` what each tile of one reads, pads and makes. Works from the
manifest; knows no kernel, so not which shapes an engine computes with other bits (`pipeline.engines` proves that).
"""

from __future__ import annotations

from pipeline.tiles.grid import Grid
from pipeline.tiles.regions import Fit, Region, Span
from pipeline.tiles.split import Tile, TileMap, split
from pipeline.tiles.stacks import Stack, stack_named, stacks

__all__ = ["Fit", "Grid", "Region", "Span", "Stack", "Tile", "TileMap", "split", "stack_named", "stacks"]
