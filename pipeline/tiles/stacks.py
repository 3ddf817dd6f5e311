"""Stacks, the blocks that can be computed tile by tile: sub-graphs of feature maps with one exit.

Works on the manifest alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import TileError
from pipeline.graph import ModelGraph


@dataclass(frozen=True, slots=True)
class Stack:
    """The blocks from `first` to `last`, both of them in it, on which `last` hangs; others between are left out.

    `inputs` are the tensors that they read of other blocks, `output` is the one tensor that others read of them.
    """

    first: int
    last: int
    blocks: tuple[int, ...]
    inputs: tuple[int, ...]
    output: int


def stacks(graph: ModelGraph) -> Iterator[Stack]:
    """Every stack of the graph, in ascending order of its last block, the shortest first."""
    for last in range(1, len(graph)):
        taken: set[int] = set()
        for first in range(last, 0, -1):
            if first != last and not taken.intersection(graph.successors[first]):
                continue
            taken.add(first)
            if _hindrance(graph, taken, first, last) is not None:
                break
            yield _stack(graph, taken, first, last)


def stack_named(graph: ModelGraph, text: str) -> Stack:
    """Parse `FROM:TO`, two blocks' names or indices, both inclusive. Raises ModelError, TileError."""
    first_name, colon, last_name = text.partition(":")
    if not colon or not first_name or not last_name:
        raise TileError(f"stack {text!r} is not one: give FROM:TO, the names or indices of its first and last block")
    return stack_between(graph, graph.block_named(first_name).index, graph.block_named(last_name).index)


def stack_between(graph: ModelGraph, first: int, last: int) -> Stack:
    """The stack from one block to another, both inclusive. Raises TileError where there is none, and says why."""
    names = f"{graph.blocks[first].name}:{graph.blocks[last].name}"
    if first > last:
        raise TileError(f"stack {names} ends (block {last}) before it begins (block {first}); exchange them")
    taken: set[int] = set()
    for block in range(last, first - 1, -1):
        if block != last and not taken.intersection(graph.successors[block]):
            continue
        taken.add(block)
        why = _hindrance(graph, taken, block, last)
        if why is not None:
            begin = f"begin it after block {block}" if block < last else f"end it before block {block}"
            raise TileError(f"stack {names} of {graph.name!r}: {why}; {begin}")
    if first not in taken:
        raise TileError(f"stack {names} of {graph.name!r}: block {last} does not hang on block {first}")
    return _stack(graph, taken, first, last)


def _hindrance(graph: ModelGraph, taken: set[int], block: int, last: int) -> str | None:
    """The reason that this block cannot be in a stack whose later blocks are `taken`; None if it can."""
    named = f"block {block} ({graph.blocks[block].name!r}, {graph.blocks[block].kind})"
    if graph.blocks[block].windows is None:
        return f"{named} makes no feature map, or looks at whole maps" if block else "the input is not computed"
    if block == last:
        return None
    if set(graph.blocks[block].outputs) & set(graph.outputs):
        return f"{named} makes an output of the model"
    outside = [reader for reader in graph.successors[block] if reader not in taken]
    if outside:
        reader = graph.blocks[outside[0]]
        return f"{named} is also read by block {reader.index} ({reader.name!r}), which is not in the stack"
    return None


def _stack(graph: ModelGraph, taken: set[int], first: int, last: int) -> Stack:
    blocks = tuple(sorted(taken))
    made = {tensor for block in blocks for tensor in graph.blocks[block].outputs}
    inputs = dict.fromkeys(t for block in blocks for t in graph.blocks[block].inputs if t not in made)
    return Stack(first, last, blocks, tuple(inputs), graph.blocks[last].outputs[0])
