"""Hashes of a network's blocks on this processor, one by one: which block differs first, and seconds in place of hours.

A block over a map is computed for two small tiles, at the map's corner and within it: each place is summed in the same
order as in the whole map. Blocks of the same operations, sizes and options are computed once. Also stacks in tiles
beside the stack in one piece. Runs natively and under QEMU (see aarch64.py), so inputs are drawn without functions in
which C libraries differ.

    python -m benchmarks.arm_blocks blocks FILE.trisect…
    python -m benchmarks.arm_blocks tiles COUNT FILE.trisect
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engines.base import Array
from pipeline.engines.litert import LiteRTEngine
from pipeline.engines.tiling import TiledStack
from pipeline.errors import TileError
from pipeline.graph import Block, ModelGraph
from pipeline.lite.package import Package
from pipeline.tiles import Grid, split, stacks
from pipeline.tiles.arrays import cut
from pipeline.tiles.split import size_of
from pipeline.tiles.stacks import stack_between

SIDE = 3
"""Of a tile, in places of the output."""
GRIDS = ("2x2", "3x1")
_LEAST_SIDE = 8
_LARGEST_STACK_MACS = 1e8


def main() -> None:
    """Print a line for each."""
    engine, (doing, *arguments) = LiteRTEngine(1), sys.argv[1:]
    if doing == "tiles":
        count, path = arguments
        found = tiles_of(engine, Package(Path(path)), int(count))
    else:
        known: set[str] = set()
        found = (line for path in arguments for line in blocks_of(engine, Package(Path(path)), known))
    for line in found:
        print(line, flush=True)


def blocks_of(engine: LiteRTEngine, package: Package, known: set[str]) -> Iterator[str]:
    """Lines of model, block, kind, `tiles` or `whole`, and hash, for each block of a signature that is not `known`."""
    graph = package.graph
    for block in graph.blocks[1:]:
        signature = _signature(package, block)
        if signature not in known:
            known.add(signature)
            how, found = _answer(engine, package, block)
            yield f"{graph.name} {block.name} {block.kind} {how} {found}"


def _signature(package: Package, block: Block) -> str:
    shapes = [package.graph.tensors[i].shape for i in (*block.inputs, *block.outputs)]
    ops: list[Any] = []
    for op in package.program.blocks[block.index]:
        options = {key: value for key, value in op.options.items() if key not in ("name",)}
        ops.append([op.kind, len(op.inputs), [package.array(i).shape for i in op.arrays], options, op.window])
    return json.dumps([shapes, ops], sort_keys=True, default=str)


def _answer(engine: LiteRTEngine, package: Package, block: Block) -> tuple[str, str]:
    graph, hashed = package.graph, hashlib.sha256()
    frame = _frame(graph, block.inputs)
    grid = _grid(graph, block)
    try:
        if grid is None:
            raise TileError("a small map")
        tile_map = split(graph, stack_between(graph, block.index, block.index), grid)
        for tile in (tile_map.tiles[0], tile_map.tiles[2 * len(grid.columns) + 2]):
            hashed.update(engine.compile_tile(package, tile, tile_map.stack).run(cut(tile_map, tile, frame)).tobytes())
    except TileError:
        made = engine.assemble(package, (block.index,), block.inputs, block.outputs).run(frame)
        for output in block.outputs:
            hashed.update(np.ascontiguousarray(made[output]).tobytes())
        return "whole", hashed.hexdigest()[:16]
    return "tiles", hashed.hexdigest()[:16]


def _grid(graph: ModelGraph, block: Block) -> Grid | None:
    """One whose first and third rows and columns are small; None for a small map, or none."""
    shape = graph.tensors[block.outputs[0]].shape
    if len(block.outputs) != 1 or len(shape) != 4 or min(shape[1:3]) < _LEAST_SIDE:
        return None
    rows, columns = ((SIDE, (n - 2 * SIDE) // 2, SIDE, n - 2 * SIDE - (n - 2 * SIDE) // 2) for n in shape[1:3])
    return Grid(rows, columns)


def _frame(graph: ModelGraph, inputs: tuple[int, ...]) -> dict[int, Array]:
    draw = np.random.default_rng(0)
    return {i: draw.random(graph.tensors[i].shape, np.float32) * np.float32(4) - np.float32(2) for i in inputs}


def tiles_of(engine: LiteRTEngine, package: Package, count: int) -> Iterator[str]:
    """A line for each tiling of random stacks: stack, grid, `equal` or `differs`, and the hash of the whole stack."""
    graph = package.graph
    small = [one for one in stacks(graph) if sum(graph.blocks[i].macs for i in one.blocks) <= _LARGEST_STACK_MACS]
    fitting = [one for one in small if min(size_of(graph, one.output)) >= SIDE and len(one.blocks) > 1]
    for stack in random.Random(1).sample(fitting, min(count, len(fitting))):
        frame = _frame(graph, stack.inputs)
        whole = engine.assemble(package, stack.blocks, stack.inputs, (stack.output,)).run(frame)[stack.output]
        hashed = hashlib.sha256(np.ascontiguousarray(whole).tobytes()).hexdigest()[:16]
        for grid in GRIDS:
            made = TiledStack(engine, package, split(graph, stack, Grid.parse(grid))).run(frame)
            word = "equal" if np.array_equal(made, whole, equal_nan=True) else "differs"
            yield f"{graph.blocks[stack.first].name}:{graph.blocks[stack.last].name} {grid} {word} {hashed}"


if __name__ == "__main__":
    main()
