"""Cut a stack into tiles: for each tile and tensor its region, from the last block back to the first.

At a fork the regions that readers need are united and each reader crops its own. Works on the manifest alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from pipeline.errors import TileError
from pipeline.graph import Axis, Block, ModelGraph, Window
from pipeline.tiles.grid import Grid, spans
from pipeline.tiles.regions import Fit, Region, Span, fit, needed
from pipeline.tiles.stacks import Stack

_MAP_RANK = 4
_ALL = Axis()


@dataclass(frozen=True)
class Tile:
    """One tile: `regions` of every tensor it holds (whole for a tensor that is no map, or has no places).

    `fits` has for each block a pair of Fits (rows, columns) per window, or where a block has no windows per input.
    """

    row: int
    column: int
    regions: dict[int, Region]
    fits: dict[int, tuple[tuple[Fit, Fit], ...]]

    @cached_property
    def kind(self) -> tuple[object, ...]:
        """Equal for tiles of one shape and border kind: one compiled segment does for all of them."""
        sizes = tuple((tensor, r.rows.size, r.columns.size) for tensor, r in sorted(self.regions.items()))
        return sizes, tuple(sorted(self.fits.items()))


@dataclass(frozen=True)
class TileMap:
    """A stack in tiles, row by row. `rows` and `columns` are the spans of the output that are put together again."""

    stack: Stack
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    tiles: tuple[Tile, ...]
    extra_work: float
    """Computing that tiles add to the stack in one piece, as a share of it: 0.25 is a quarter more.

    Below zero where strides jump over places between two tiles, which then nobody computes.
    """
    extra_input: float
    """Bytes of input that tiles read more than once, as a share of the inputs; below zero likewise."""


def split(graph: ModelGraph, stack: Stack, grid: Grid) -> TileMap:
    """The tiles of a stack, its output divided as the grid says. Raises TileError where a tile would be empty."""
    height, width = size_of(graph, stack.output)
    name = graph.tensors[stack.output].name
    rows = spans(grid.rows, height, f"rows of {name}'s {height}x{width} map")
    columns = spans(grid.columns, width, f"columns of {name}'s {height}x{width} map")
    return split_at(graph, stack, rows, columns)


def split_at(graph: ModelGraph, stack: Stack, rows: Sequence[Span], columns: Sequence[Span]) -> TileMap:
    """The tiles of a stack at explicit bounds of its output. Raises TileError unless they cover it exactly."""
    for bounds, size, what in zip((rows, columns), size_of(graph, stack.output), ("rows", "columns"), strict=True):
        ends = [0, *(span.stop for span in bounds)]
        if [Span(*pair) for pair in pairwise(ends)] != list(bounds) or ends[-1] != size or min(map(_size, bounds)) < 1:
            raise TileError(f"{what} {[tuple(span) for span in bounds]} do not cover 0 to {size}, each once, in order")
    tiles = tuple(
        _tile(graph, stack, (i, j), Region(Span(*r), Span(*c)))
        for i, r in enumerate(rows)
        for j, c in enumerate(columns)
    )
    whole = _work(graph, stack, [_whole(graph, stack)])
    given = sum(graph.tensors[t].nbytes for t in stack.inputs)
    taken = sum(nbytes(graph, t, tile.regions[t]) for tile in tiles for t in stack.inputs)
    return TileMap(stack, tuple(rows), tuple(columns), tiles, _work(graph, stack, tiles) / whole - 1, taken / given - 1)


def _size(span: Span) -> int:
    return span.size


def heights(sizes: Sequence[int]) -> tuple[Span, ...]:
    """Spans of these sizes, one after the other."""
    return tuple(Span(*pair) for pair in pairwise([0, *accumulate(sizes)]))


def size_of(graph: ModelGraph, tensor: int) -> tuple[int, int]:
    """Height and width of a map; 1 and 1 for what is no map and is read whole at each place."""
    shape = graph.tensors[tensor].shape
    return (shape[1], shape[2]) if len(shape) == _MAP_RANK else (1, 1)


def size_in(graph: ModelGraph, tile: Tile, tensor: int) -> tuple[int, ...]:
    """Shape of a tile's part of a tensor: `(batch, height, width, channels)` for a map, else the whole shape."""
    whole, region = graph.tensors[tensor].shape, tile.regions[tensor]
    return (whole[0], region.rows.size, region.columns.size, whole[3]) if len(whole) == _MAP_RANK else whole


def nbytes(graph: ModelGraph, tensor: int, region: Region) -> int:
    """Bytes of a region of a tensor."""
    return graph.tensors[tensor].nbytes * region.area // math.prod(size_of(graph, tensor))


def _whole(graph: ModelGraph, stack: Stack) -> Tile:
    height, width = size_of(graph, stack.output)
    return _tile(graph, stack, (0, 0), Region(Span(0, height), Span(0, width)))


def _work(graph: ModelGraph, stack: Stack, tiles: Sequence[Tile]) -> float:
    """Multiply-accumulates, or where a block has none, values made."""
    total = 0.0
    for index in stack.blocks:
        block = graph.blocks[index]
        (output,) = block.outputs
        area = sum(tile.regions[output].area for tile in tiles)
        values = math.prod(graph.tensors[output].shape)
        total += (block.macs or values) * area / math.prod(size_of(graph, output))
    return total


def _tile(graph: ModelGraph, stack: Stack, place: tuple[int, int], made: Region) -> Tile:
    regions = {stack.output: made}
    for index in reversed(stack.blocks):
        block = graph.blocks[index]
        for tensor, read in _reads(graph, block, regions[block.outputs[0]]):
            known = regions.get(tensor)
            regions[tensor] = read if known is None else known.union(read)
    fits = {index: _fits(graph, graph.blocks[index], regions) for index in stack.blocks}
    return Tile(*place, regions, fits)


def _reads(graph: ModelGraph, block: Block, made: Region) -> list[tuple[int, Region]]:
    """The region of each input that a block reads for a region of its output."""
    if not block.windows:
        return [(tensor, _under(graph, block, tensor, made)) for tensor in block.inputs]
    (tensor,) = block.inputs
    region = made
    for window, (height, width) in reversed(_stages(graph, block)):
        region = Region(needed(window.rows, region.rows, height), needed(window.columns, region.columns, width))
    return [(tensor, region)]


def _stages(graph: ModelGraph, block: Block) -> list[tuple[Window, tuple[int, int]]]:
    """Each window of a block with the size of the map that it reads."""
    height, width = size_of(graph, block.inputs[0])
    found = []
    for window in block.windows or ():
        found.append((window, (height, width)))
        height, width = window.rows.made_from(height), window.columns.made_from(width)
    return found


def _under(graph: ModelGraph, block: Block, tensor: int, made: Region) -> Region:
    """The same places of an input; the only one where it is repeated."""
    sizes, out = size_of(graph, tensor), size_of(graph, block.outputs[0])
    rows, columns = (span if size == whole else Span(0, 1) for span, size, whole in zip(made, sizes, out, strict=True))
    return Region(rows, columns)


def _fits(graph: ModelGraph, block: Block, regions: dict[int, Region]) -> tuple[tuple[Fit, Fit], ...]:
    made = regions[block.outputs[0]]
    if not block.windows:
        return tuple(
            _pair((_ALL, _ALL), _under(graph, block, t, made), regions[t], size_of(graph, t)) for t in block.inputs
        )
    found: list[tuple[Fit, Fit]] = []
    stages = _stages(graph, block)
    for position in reversed(range(len(stages))):
        window, sizes = stages[position]
        height, width = sizes
        exact = Region(needed(window.rows, made.rows, height), needed(window.columns, made.columns, width))
        held = exact if position else regions[block.inputs[0]]
        found.append(_pair((window.rows, window.columns), made, held, sizes))
        made = exact
    return tuple(reversed(found))


def _pair(axes: tuple[Axis, Axis], made: Region, held: Region, sizes: tuple[int, int]) -> tuple[Fit, Fit]:
    rows = fit(axes[0], made.rows, held.rows, sizes[0])
    return rows, fit(axes[1], made.columns, held.columns, sizes[1])
