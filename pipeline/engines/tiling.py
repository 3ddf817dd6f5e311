"""A stack run tile by tile on one engine, and the proof that no bit changes by it.

An engine's library may choose a kernel by the size of a map, and kernels may add in another order: whether a grid holds
the law is a fact about one library on one kind of processor, found by trying. Imports no library of kernels itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pipeline.engines.base import Array, Engine, Loaded, TileSegment
from pipeline.engines.checks import noise
from pipeline.errors import TileError
from pipeline.graph import Block
from pipeline.tiles.arrays import cut, merge, part
from pipeline.tiles.split import Tile, TileMap
from pipeline.tiles.stacks import Stack

_RUNS = 8


class TiledStack:
    """All tiles of a stack on one engine: one segment for each kind of tile."""

    def __init__(self, engine: Engine, model: Loaded, tile_map: TileMap) -> None:
        self._engine, self._model, self.tile_map = engine, model, tile_map
        self.segments = {
            tile.kind: self._engine.compile_tile(model, tile, tile_map.stack) for tile in _kinds(tile_map.tiles)
        }

    def run(self, tensors: Mapping[int, Array]) -> Array:
        """The stack's whole output from its whole inputs by tensor id."""
        parts = [self.segments[tile.kind].run(cut(self.tile_map, tile, tensors)) for tile in self.tile_map.tiles]
        return merge(self.tile_map, parts)

    def first_difference(self, tensors: Mapping[int, Array]) -> tuple[Block, Tile] | None:
        """The first block with another bit than the stack in one piece has there, and a tile in which it does."""
        return first_difference(self._engine, self._model, self.tile_map, self.tile_map.tiles, tensors)


class TileEquivalence:
    """A stack in one piece on noise, for its tiles to be compared with.

    Another order of summation changes the last bit of some numbers only, and a kernel of another order may make few
    numbers of a tile: one run may miss it. So there are several, half of them of numbers of very different sizes.
    """

    def __init__(self, engine: Engine, model: Loaded, stack: Stack) -> None:
        self._engine, self._model, self.stack = engine, model, stack
        segment = engine.compile(model, stack.blocks, stack.inputs, (stack.output,))
        self._wholes = [np.array(segment.run(self._noise(seed))[stack.output]) for seed in range(_RUNS)]

    def compile_tile(self, tile_map: TileMap, tile: Tile) -> TileSegment:
        """A segment for the tiles of this one's kind, if it gives the bits that the stack in one piece has there.

        Raises TileError that names the block which does not, what its tile was and what to do.
        """
        segment, region = self._engine.compile_tile(self._model, tile, self.stack), tile.regions[self.stack.output]
        for seed, whole in enumerate(self._wholes):
            tensors = self._noise(seed)
            made = segment.run(cut(tile_map, tile, tensors))
            if not np.array_equal(made, part(whole, region), equal_nan=True):
                found = first_difference(self._engine, self._model, tile_map, [tile], tensors)
                raise refusal(self._engine, self._model, tile_map, found)
        return segment

    def _noise(self, seed: int) -> dict[int, Array]:
        # made again each time: it is as large as the maps, and quick
        return {tensor: _spread(noise(self._model.graph.tensors[tensor]), seed) for tensor in self.stack.inputs}


def _spread(array: Array, seed: int) -> Array:
    """The numbers in another order; with an odd seed of sizes from 2**-4 to 2**4 times as large."""
    if array.dtype.kind != "f":
        return array
    draw = np.random.default_rng(seed)
    shuffled = draw.permutation(array.reshape(-1)).reshape(array.shape)
    return np.ldexp(shuffled, draw.integers(-4, 5, array.shape)) if seed % 2 else shuffled


def first_difference(
    engine: Engine, model: Loaded, tile_map: TileMap, tiles: Sequence[Tile], tensors: Mapping[int, Array]
) -> tuple[Block, Tile] | None:
    """The first block with another bit in one of these tiles than the stack in one piece has there, and such a tile.

    Slow: the stack is compiled again up to each block.
    """
    graph, stack = model.graph, tile_map.stack
    made_by = [graph.blocks[index].outputs[0] for index in stack.blocks]
    unsplit = engine.compile(model, stack.blocks, stack.inputs, made_by).run(tensors)
    for end, index in enumerate(stack.blocks, start=1):
        (output,) = graph.blocks[index].outputs
        upto = replace(stack, last=index, blocks=stack.blocks[:end], output=output)
        for tile in _kinds(tiles):
            made = engine.compile_tile(model, tile, upto).run(cut(tile_map, tile, tensors))
            if not np.array_equal(made, part(unsplit[output], tile.regions[output]), equal_nan=True):
                return graph.blocks[index], tile
    return None


def _kinds(tiles: Sequence[Tile]) -> list[Tile]:
    """One tile of each kind."""
    return list({tile.kind: tile for tile in tiles}.values())


def refusal(engine: Engine, model: Loaded, tile_map: TileMap, found: tuple[Block, Tile] | None) -> TileError:
    """The error to raise for a stack and grid that change a bit; `found` is the first such block with a tile."""
    graph, stack = model.graph, tile_map.stack
    first, last = graph.blocks[stack.first].name, graph.blocks[stack.last].name
    grid = f"{len(tile_map.rows)}x{len(tile_map.columns)}"
    said = f"stack {first}:{last} in {grid} tiles is not bit-equal with {engine.name} {engine.version} on this machine"
    if found is None:
        return TileError(f"{said}; choose another grid")
    block, tile = found
    (output,) = block.outputs
    region, whole = tile.regions[output], graph.tensors[output].shape
    return TileError(
        f"{said}: block {block.index} ({block.name!r}, {block.kind}) runs another kernel over {region.rows.size}x"
        f"{region.columns.size} than over {whole[1]}x{whole[2]}; end the stack before block {block.index}, or choose "
        "fewer or other tiles"
    )
