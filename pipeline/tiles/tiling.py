"""A plan's tiling: the stack of the edge's stage that is cut, where, and the node that computes each tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field

from pipeline import ranges
from pipeline.codecs import NONE
from pipeline.errors import PlanError, TileError
from pipeline.graph import ModelGraph, Tensor
from pipeline.placement import NodeId, Placement, Stage, Tier
from pipeline.ranges import MOST_BLOCKS, Extent, IdRange, Index, Word
from pipeline.tiles import Stack, TileMap
from pipeline.tiles.split import heights, split_at
from pipeline.tiles.stacks import stack_between
from pipeline.tiles_cost import MOST_TILES

MAX_TILES = MOST_TILES
"""A plan is read before its graph may be known: bounds what it can make us allocate."""
MAX_SIZE = 1 << 20
_MAP_RANK = 4


@dataclass(frozen=True, slots=True)
class TensorCodec:
    """The codec that a tensor is sent with."""

    tensor: Index
    codec: Word = NONE


@dataclass(frozen=True, slots=True)
class Tiling:
    """The stack from block `first` to block `last`, both inclusive, in tiles.

    `rows` are the tiles' heights from the top, `columns` their widths from the left, in places of the stack's output;
    `workers` names a node for each tile, row by row. The node of the edge stage (the coordinator) may be one of them,
    and a node may have several tiles. `codecs` are those of the stack's inputs, on their way to the workers, and of its
    output, on its way back; a tensor without one goes as it is.
    """

    first: Index
    last: Index
    rows: Annotated[tuple[Extent, ...], Field(max_length=MOST_TILES)]
    columns: Annotated[tuple[Extent, ...], Field(max_length=MOST_TILES)]
    workers: Annotated[tuple[Annotated[NodeId, IdRange], ...], Field(max_length=MOST_TILES)]
    codecs: Annotated[tuple[TensorCodec, ...], Field(max_length=MOST_BLOCKS)] = ()

    def __post_init__(self) -> None:
        if not (self.rows and self.columns and all(0 < size <= MAX_SIZE for size in (*self.rows, *self.columns))):
            raise PlanError(
                f"tiles of {self.rows} rows and {self.columns} columns: give each side one or more, of 1 to {MAX_SIZE}"
            )
        if not len(self.workers) == len(self) <= MAX_TILES:
            raise PlanError(
                f"{len(self.workers)} workers for {len(self.rows)}x{len(self.columns)} tiles: "
                f"name one for each tile, row by row, of at most {MAX_TILES}"
            )

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def uncoded(self) -> Tiling:
        """The same tiles on the same nodes, all tensors as they are."""
        return replace(self, codecs=()) if self.codecs else self

    def codec_of(self, tensor: int) -> str:
        """The codec of the tiles of this tensor."""
        return next((one.codec for one in self.codecs if one.tensor == tensor), NONE)

    def backup(self, tile: int) -> NodeId | None:
        """The worker asked next when a tile (counted from 1) is late: the one after its own, None if there is
        no other.
        """
        names = list(dict.fromkeys(self.workers))
        after = names[(names.index(self.workers[tile - 1]) + 1) % len(names)]
        return after if len(names) > 1 else None

    def stack(self, graph: ModelGraph) -> Stack:
        """The blocks that are cut. Raises TileError where the graph has no such stack."""
        if not 0 < self.first <= self.last < len(graph):
            raise TileError(f"stack {self.first}:{self.last}: {graph.name!r} has blocks 1 to {len(graph) - 1}")
        return stack_between(graph, self.first, self.last)

    def tile_map(self, graph: ModelGraph) -> TileMap:
        """The tiles' regions and padding. Raises TileError for a stack or sizes that the graph does not have."""
        return split_at(graph, self.stack(graph), heights(self.rows), heights(self.columns))

    def to_json(self, graph: ModelGraph) -> dict[str, Any]:
        """Plain JSON values; names of blocks and tensors, and ways, are there for people."""
        return {
            "first": self.first,
            "last": self.last,
            "from": graph.blocks[self.first].name,
            "to": graph.blocks[self.last].name,
            "rows": list(self.rows),
            "columns": list(self.columns),
            "workers": list(self.workers),
            "codecs": [
                {
                    "tensor": one.tensor,
                    "codec": one.codec,
                    "name": graph.tensors[one.tensor].name,
                    "way": "back" if one.tensor in graph.blocks[self.last].outputs else "there",
                }
                for one in self.codecs
            ],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tiling:
        """Read it back. Raises PlanError for anything else."""
        return ranges.read(cls, value, error=PlanError, what="a plan's tiles")


@dataclass(frozen=True, slots=True)
class Part:
    """Blocks of a stage that run in one go: block indices ascending, tensor ids ascending."""

    blocks: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TiledStage:
    """The edge's stage in three: the coordinator's part `before`, the tiles, and its part `after` all of them.

    `before` are the stage's blocks on which the stack hangs. Its outputs are all that is needed later, inputs of the
    stage among them; `after` takes those and the stack's output, and gives all that the stage hands on.
    """

    before: Part
    tile_map: TileMap
    after: Part

    @property
    def stack(self) -> Stack:
        """The blocks that are cut."""
        return self.tile_map.stack

    def region(self, graph: ModelGraph, tile: int, tensor: int) -> Tensor | None:
        """A tile's part of an input or of the output of the stack, tiles counted from 1; None for any other tensor or
        tile.
        """
        if not 0 < tile <= len(self.tile_map.tiles) or tensor not in (*self.stack.inputs, self.stack.output):
            return None
        whole, held = graph.tensors[tensor], self.tile_map.tiles[tile - 1].regions[tensor]
        shape = whole.shape
        if len(shape) == _MAP_RANK:
            shape = (shape[0], held.rows.size, held.columns.size, shape[3])
        return replace(whole, name=f"tile {tile} of {whole.name}", shape=shape)


def tiled_stage(graph: ModelGraph, placement: Placement, stage: Stage, tiling: Tiling) -> TiledStage:
    """Cut the edge's stage. Raises TileError where the stack is none, or lies elsewhere than on the edge."""
    tile_map = tiling.tile_map(graph)
    stack = tile_map.stack
    _require_edge(graph, placement, stack)
    stacked = set(stack.blocks)
    before = _hangs_on(graph, stack.inputs) & set(stage.blocks) - stacked
    after = [block for block in stage.blocks if block not in before and block not in stacked]
    here = {*stage.inputs, *_made(graph, sorted(before))}
    wanted = {t for block in after for t in graph.blocks[block].inputs} | set(stage.outputs)
    kept = tuple(sorted(here & (wanted | set(stack.inputs))))
    rest = tuple(sorted((here & wanted) | {stack.output}))
    return TiledStage(
        before=Part(tuple(sorted(before)), stage.inputs, kept),
        tile_map=tile_map,
        after=Part(tuple(after), rest, stage.outputs),
    )


def _require_edge(graph: ModelGraph, placement: Placement, stack: Stack) -> None:
    for index in stack.blocks:
        if placement[index] is not Tier.EDGE:
            raise TileError(
                f"block {index} ({graph.blocks[index].name!r}) of the stack {stack.first}:{stack.last} stands on the "
                f"{placement[index].label}; tiles are the edge's: place the whole stack there, or end it earlier"
            )


def _hangs_on(graph: ModelGraph, tensors: Sequence[int]) -> set[int]:
    """All blocks that these tensors are made from."""
    found: set[int] = set()
    waiting = [graph.producer[tensor] for tensor in tensors]
    while waiting:
        block = waiting.pop()
        if block not in found:
            found.add(block)
            waiting += [graph.producer[tensor] for tensor in graph.blocks[block].inputs]
    return found


def _made(graph: ModelGraph, blocks: Sequence[int]) -> set[int]:
    return {tensor for block in blocks for tensor in graph.blocks[block].outputs}
