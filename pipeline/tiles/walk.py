"""Regions of many divisions at once, from a stack's last block back: `split`'s arithmetic over arrays of spans.

A *job* is a last block with spans of its output. Jobs are walked together, block by block, so that every stack of a
network is sized in one pass over its blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.graph import Axis, Block, ModelGraph, Window
from pipeline.tiles.split import size_of

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_FAR = 1 << 40
"""Beyond any map: the bounds of an empty region, so that a union with it changes nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """The walk has come to `block`, which is in the stacks of these `jobs` (indices, ascending).

    `shares` are `[job, axis, span]`: the part of the map's height (axis 0) or width (axis 1) that it makes for a span.
    `is_stack` says for which of `jobs` the blocks so far are a stack.
    """

    block: int
    jobs: Ints
    shares: Floats
    is_stack: Bools


def legal(graph: ModelGraph, lasts: Ints) -> tuple[Bools, Bools]:
    """Two masks `[block, job]`: the block is in the job's stacks; a stack begins at it (by the rules of `stacks`)."""
    n, outputs = len(graph), set(graph.outputs)
    taken, begins = np.zeros((n, len(lasts)), bool), np.zeros((n, len(lasts)), bool)
    alive = np.ones(len(lasts), bool)
    for index in range(n - 1, 0, -1):
        block, readers = graph.blocks[index], graph.successors[index]
        is_last = lasts == index
        read = taken[list(readers)].any(axis=0) & alive
        here = read | is_last
        if block.windows is None:
            stops = here
        elif outputs.intersection(block.outputs):
            stops = read
        else:
            stops = read & ~taken[list(readers)].all(axis=0)
        alive &= ~stops
        taken[index] = begins[index] = here & ~stops
    return taken, begins


class Walk:
    """Jobs by their `lasts` and the spans of their outputs, `[job, axis, (start, stop), span]`."""

    def __init__(self, graph: ModelGraph, lasts: Ints, spans: Ints) -> None:
        self._graph, self._lasts, self._spans = graph, lasts, spans
        self._taken, self._begins = legal(graph, lasts)
        self._regions: dict[int, Ints] = {}

    def steps(self, down_to: int = 1) -> Iterator[Step]:
        """Walk from the last block of all jobs back to block `down_to`."""
        for index in range(int(self._lasts.max()), down_to - 1, -1):
            jobs = np.flatnonzero(self._taken[index])
            if not jobs.size:
                continue
            block = self._graph.blocks[index]
            (output,) = block.outputs
            ending = np.flatnonzero(self._lasts == index)
            if ending.size:
                self._unite(output, ending, self._spans[ending])
            made = self._regions.pop(output)[jobs]
            self._read(block, jobs, made)
            yield Step(index, jobs, self._shares(output, made), self._begins[index][jobs])

    def inputs(self, step: Step) -> Iterator[tuple[int, Floats]]:
        """The tensors that the stacks' blocks so far read of blocks before them: their shares, as `Step.shares`.

        Zero for jobs that do not read a tensor.
        """
        for tensor, regions in self._regions.items():
            if self._graph.producer[tensor] < step.block:
                yield tensor, self._shares(tensor, regions[step.jobs])

    def _shares(self, tensor: int, regions: Ints) -> Floats:
        sizes = np.array(size_of(self._graph, tensor), float)
        shares: Floats = np.maximum(regions[:, :, 1] - regions[:, :, 0], 0) / sizes[:, None]
        return shares

    def _unite(self, tensor: int, jobs: Ints, read: Ints) -> None:
        known = self._regions.get(tensor)
        if known is None:
            known = self._regions[tensor] = np.empty(self._spans.shape, np.int64)
            known[:, :, 0], known[:, :, 1] = _FAR, -_FAR
        held = known[jobs]
        known[jobs, :, 0] = np.minimum(held[:, :, 0], read[:, :, 0])
        known[jobs, :, 1] = np.maximum(held[:, :, 1], read[:, :, 1])

    def _read(self, block: Block, jobs: Ints, made: Ints) -> None:
        if block.windows:
            (tensor,) = block.inputs
            sizes = [size_of(self._graph, tensor)]
            for window in block.windows:
                height, width = sizes[-1]
                sizes.append((window.rows.made_from(height), window.columns.made_from(width)))
            for window, size in zip(reversed(block.windows), reversed(sizes[:-1]), strict=True):
                made = _needed(window, made, size)
            self._unite(tensor, jobs, made)
            return
        out = size_of(self._graph, block.outputs[0])
        for tensor in dict.fromkeys(block.inputs):
            read = made.copy()
            for axis, (held, whole) in enumerate(zip(size_of(self._graph, tensor), out, strict=True)):
                if held != whole:
                    read[:, axis, 0], read[:, axis, 1] = 0, 1
            self._unite(tensor, jobs, read)


def _needed(window: Window, made: Ints, size: tuple[int, int]) -> Ints:
    """`regions.needed` of both axes, `[job, axis, (start, stop), span]`."""
    if window.rows == window.columns == Axis():
        return made
    kernel, stride, dilation, before, _, scale = np.array([window.rows, window.columns])[:, :, None].transpose(1, 0, 2)
    sizes = np.array(size)[:, None]
    start = made[:, :, 0] * stride - before
    stop = (made[:, :, 1] - 1) * stride - before + dilation * (kernel - 1) + 1
    start = np.clip(start, 0, sizes * scale)
    stop = np.maximum(start, np.minimum(stop, sizes * scale))
    start = np.minimum(start // scale, sizes - 1)
    return np.stack([start, np.maximum(start + 1, -(-stop // scale))], axis=2)
