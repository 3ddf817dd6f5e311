"""Prove the first law for tiles: stacks of one model, cut by grids, merge to the bits of the unsplit model.

Knows no node and no broker.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pipeline.engines import Array, Engine
from pipeline.engines.tiling import TiledStack
from pipeline.errors import TileError
from pipeline.graph import ModelGraph
from pipeline.models import ModelSource
from pipeline.prepare.model import PreparedModel
from pipeline.tiles import Grid, Stack, TileMap, split, stack_named, stacks
from pipeline.tiles.split import size_of
from pipeline.verify.cuts import Original, Prepared, ready


@dataclass(frozen=True, slots=True)
class Tiled:
    """One stack under one grid, the blocks by name, both inclusive.

    `segments` counts the kinds of tiles. `differing` names the first block with another bit than the unsplit model;
    "" when there is none, and `relative_error` is then 0.
    """

    stack: str
    blocks: int
    grid: str
    tiles: int
    segments: int
    extra_work: float
    extra_input: float
    differing: str
    relative_error: float
    seconds: float

    @property
    def equal(self) -> bool:
        """True when every bit of the stack's output was the same."""
        return not self.differing


TileStep: TypeAlias = Prepared | Original | Tiled


@dataclass(frozen=True, slots=True)
class TileVerdict:
    """The sum of all steps, for a table or JSON."""

    model: str
    digest: str
    engine: str
    blocks: int
    stacks: int
    tilings: int
    equal: int
    relative_error: float
    same_top: bool
    seconds: float
    unequal: tuple[Tiled, ...]

    @property
    def holds(self) -> bool:
        """True when no tiling changed a bit."""
        return self.tilings == self.equal


def tile_verdict(steps: Sequence[TileStep], engine: Engine) -> TileVerdict:
    """Sum up a finished run of `verify_tiles`."""
    graph = next(step.graph for step in steps if isinstance(step, Prepared))
    original = next(step for step in steps if isinstance(step, Original))
    tilings = [step for step in steps if isinstance(step, Tiled)]
    return TileVerdict(
        model=graph.name,
        digest=graph.digest,
        engine=engine.name,
        blocks=len(graph),
        stacks=len({tiling.stack for tiling in tilings}),
        tilings=len(tilings),
        equal=sum(tiling.equal for tiling in tilings),
        relative_error=original.relative_error,
        same_top=original.same_top,
        seconds=sum(step.seconds for step in steps),
        unequal=tuple(tiling for tiling in tilings if not tiling.equal),
    )


def verify_tiles(
    engine: Engine,
    source: ModelSource,
    grids: Sequence[Grid],
    *,
    stack: str | None = None,
    count: int = 20,
    seed: int = 0,
) -> Iterator[TileStep]:
    """Yield Prepared, Original, then a Tiled for each grid of each stack: the one named, or `count` random ones.

    Raises what loading raises, and TileError for a stack or grid that the model does not have.
    """
    began = time.perf_counter()
    model, frame, expected = ready(source, seed)
    chosen = [stack_named(model.graph, stack)] if stack else random_stacks(model.graph, grids, count, seed)
    maps = [split(model.graph, one, grid) for one in chosen for grid in grids]
    yield Prepared(model.graph, time.perf_counter() - began)
    began = time.perf_counter()
    wanted = {tensor for one in chosen for tensor in (*one.inputs, one.output)} | set(model.graph.outputs)
    unsplit = engine.compile(model, range(len(model.graph)), model.graph.inputs, sorted(wanted)).run(frame)
    yield Original.compared([unsplit[t] for t in model.graph.outputs], expected, began)
    written = [str(grid) for _ in chosen for grid in grids]
    for tile_map, grid_text in zip(maps, written, strict=True):
        yield _tiled(engine, model, tile_map, grid_text, unsplit)


def random_stacks(graph: ModelGraph, grids: Sequence[Grid], count: int, seed: int) -> list[Stack]:
    """At most `count` different stacks with room for every grid on their maps. Raises TileError when there is none."""
    height, width = max(len(grid.rows) for grid in grids), max(len(grid.columns) for grid in grids)
    found = [one for one in stacks(graph) if _has_room(size_of(graph, one.output), (height, width))]
    if not found:
        raise TileError(f"no stack of {graph.name!r} ends in a map of {height}x{width} or more; ask for fewer tiles")
    return random.Random(seed).sample(found, min(count, len(found)))


def _has_room(sizes: tuple[int, int], tiles: tuple[int, int]) -> bool:
    return all(size >= needed for size, needed in zip(sizes, tiles, strict=True))


def _tiled(engine: Engine, model: PreparedModel, tile_map: TileMap, grid: str, unsplit: dict[int, Array]) -> Tiled:
    began = time.perf_counter()
    tiled, stack = TiledStack(engine, model, tile_map), tile_map.stack
    made, expected = tiled.run(unsplit), unsplit[stack.output]
    differing, error = "", 0.0
    if not np.array_equal(made, expected, equal_nan=True):
        found = tiled.first_difference(unsplit)
        differing = found[0].name if found else model.graph.blocks[stack.last].name
        error = float(np.nanmax(np.abs(made - expected)) / np.nanmax(np.abs(expected)))
    graph = model.graph
    return Tiled(
        stack=f"{graph.blocks[stack.first].name}:{graph.blocks[stack.last].name}",
        blocks=len(stack.blocks),
        grid=grid,
        tiles=len(tile_map.tiles),
        segments=len(tiled.segments),
        extra_work=tile_map.extra_work,
        extra_input=tile_map.extra_input,
        differing=differing,
        relative_error=error,
        seconds=time.perf_counter() - began,
    )
