"""A stack in tiles: each worker's region of the stack's input, halo included, and of its output."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.graph import ModelGraph
from pipeline.pictures.svg import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    YELLOW,
    Key,
    bytes_text,
    document,
    legend,
    rect,
    seconds_text,
    text,
)
from pipeline.tiles.split import Tile, TileMap, size_of
from pipeline.tiles.tiling import Tiling
from pipeline.tiles_cost import TileCost, TilesCost

_COLOURS = (SKY, GREEN, ORANGE, PURPLE, YELLOW, RED, GREY, BLUE)
_SIDE, _LEFT, _GAP, _TOP = 360.0, 24.0, 48.0, 64.0


def tile_picture(graph: ModelGraph, tiling: Tiling, tiles: TilesCost) -> str:
    """The SVG document: the map that the stack reads, with each tile's region and halo, next to the map that it makes.

    Of several maps that it reads the largest is shown. Raises TileError for a tiling that the graph does not have.
    """
    tile_map = tiling.tile_map(graph)
    stack = tile_map.stack
    colours = {str(node): _COLOURS[place % len(_COLOURS)] for place, node in enumerate(dict.fromkeys(tiling.workers))}
    largest = max(stack.inputs, key=lambda tensor: graph.tensors[tensor].nbytes)
    title = (
        f"{graph.name}: {graph.blocks[stack.first].name} to {graph.blocks[stack.last].name} in "
        f"{len(tiling.rows)}x{len(tiling.columns)} tiles, {seconds_text(tiles.seconds)} in place of "
        f"{seconds_text(tiles.alone_seconds)}"
    )
    extra = f"{tiles.extra_work:.1%} more work for halos, {tiles.transfer_share:.1%} of the tiles' seconds on the way"
    parts = [text(_LEFT, 22, title, size=14), text(_LEFT, 42, extra)]
    for place, tensor in enumerate((largest, stack.output)):
        parts += _panel(graph, tiling, tiles, tile_map, tensor, _LEFT + place * (_SIDE + _GAP), colours)
    width = 2 * _LEFT + 2 * _SIDE + _GAP
    keys = [Key(_worker(node, tiles), colour, outlined=True) for node, colour in colours.items()]
    shown, below = legend(keys, _LEFT, _TOP + _SIDE + 44, width - 2 * _LEFT)
    return document(width, below + 8, [*parts, *shown])


def _panel(
    graph: ModelGraph,
    tiling: Tiling,
    tiles: TilesCost,
    tile_map: TileMap,
    tensor: int,
    left: float,
    colours: dict[str, str],
) -> Iterator[str]:
    height, width = size_of(graph, tensor)
    scale = _SIDE / max(height, width)
    made = tensor == tile_map.stack.output
    what = "made" if made else "read, tiles overlap by their halos"
    yield text(left, _TOP + _SIDE + 22, f"{graph.tensors[tensor].name}: {height}x{width}, {what}")
    for node, tile, cost in zip(tiling.workers, tile_map.tiles, tiles.tiles, strict=True):
        region = tile.regions[tensor]
        box = (
            left + region.columns.start * scale,
            _TOP + region.rows.start * scale,
            region.columns.size * scale,
            region.rows.size * scale,
        )
        title = _tile_text(tile, node, cost, region.rows.size, region.columns.size)
        # thin enough that names are read on every colour, and overlaps are seen
        look = f'fill-opacity="{0.55 if made else 0.3}" stroke="{INK}" stroke-width="1"'
        yield rect(*box, colours[node], title=title, more=look + ("" if made else ' stroke-dasharray="5 3"'))
        if made:
            yield text(box[0] + box[2] / 2, box[1] + box[3] / 2 + 4, node, anchor="middle")


def _tile_text(tile: Tile, node: str, cost: TileCost, rows: int, columns: int) -> str:
    return (
        f"tile {tile.row},{tile.column} on {node}: {rows}x{columns}, {seconds_text(cost.compute_seconds)} computing, "
        f"{bytes_text(cost.nbytes)} there, {bytes_text(cost.result_nbytes)} back in "
        f"{seconds_text(cost.transfer_seconds)}"
    )


def _worker(node: str, tiles: TilesCost) -> str:
    own = [tile for tile in tiles.tiles if tile.worker == node]
    return f"{node}: {seconds_text(sum(t.compute_seconds for t in own))}"
