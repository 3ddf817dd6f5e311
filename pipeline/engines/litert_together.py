"""LiteRT's segments that end in dense layers: their last blocks run for several frames at once, and read weights once.

A dense layer of a row is as slow as memory is; of four rows it takes about as long. Convolutions fill a core with one
frame, so they run one by one (docs/benchmarks.md). XNNPACK sums every element of a product in one order, however many
rows there are, so bits are equal; each segment proves it on seeded rows before it is used so, and measures its gain.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import numpy as np

from pipeline.engines.base import Array, Segment
from pipeline.engines.batched import Batched, Begun
from pipeline.engines.checks import zeros
from pipeline.graph import ModelGraph
from pipeline.lite.package import Package

_log = logging.getLogger(__name__)

ROWWISE: Final = frozenset({"dense", "softmax", "activation", "add", "multiply", "subtract"})
"""Operations that treat each row alone; the proof decides."""
LEAST_GAIN = 1.1
"""Times as fast as one by one, at least, to be worth it."""
_ROUNDS: Final = 5


class Rows(Protocol):
    """Some blocks for several rows at once."""

    def run(self, given: Mapping[int, Array]) -> dict[int, Array]:
        """Outputs by id, each with as many rows as the inputs."""


def dense_tail(package: Package, needed: Sequence[int]) -> tuple[int, ...]:
    """The last of these blocks, in order, as far as all are row by row; empty without a dense layer among them."""
    graph, program = package.graph, package.program
    found: list[int] = []
    for index in reversed(needed):
        block = graph.blocks[index]
        tensors = [graph.tensors[t] for t in (*block.inputs, *block.outputs)]
        is_rows = all(len(t.shape) == 2 and t.shape[0] == 1 and not t.varies for t in tensors)  # noqa: PLR2004
        if index in program.foreign or not is_rows or not {op.kind for op in program.blocks[index]} <= ROWWISE:
            break
        found.insert(0, index)
    return tuple(found) if any(op.kind == "dense" for index in found for op in program.blocks[index]) else ()


def tail_tensors(
    graph: ModelGraph, tail: Sequence[int], outputs: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tensors that a tail reads, and those of `outputs` that it makes."""
    made = {t for index in tail for t in graph.blocks[index].outputs}
    reads = dict.fromkeys(t for index in tail for t in graph.blocks[index].inputs if t not in made)
    return tuple(reads), tuple(t for t in outputs if t in made)


class TogetherSegment(Batched):
    """Blocks of which the last ones run for `batch` frames at once: `front`, then `alone` or `rows`.

    `batch` is 1 where the rows have other bits than alone, or gain less than LEAST_GAIN; the log says so.
    """

    def __init__(
        self,
        graph: ModelGraph,
        front: Segment | None,
        alone: Segment,
        rows: Rows,
        *,
        batch: int,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._front, self._alone, self._rows, self._clock = front, alone, rows, clock
        self._width = batch
        self._seeded = _seeded(graph, alone.inputs, batch)
        if (differs := self._differing()) is not None:
            _log.warning(
                "%s: frames run one by one: tensor %s has other bits in a batch of %d",
                graph.name,
                graph.tensors[differs].name,
                batch,
            )
        elif (gain := self._gain(graph)) < LEAST_GAIN:
            _log.info("%s: frames run one by one: %d together are %.2f times as fast", graph.name, batch, gain)
        else:
            self.batch = batch
            _log.info(
                "%s: up to %d frames end together, %.2f times as fast",
                graph.name,
                batch,
                gain,
            )

    def begin(self, tensors: Mapping[int, Array]) -> Begun:
        """Run the blocks before the tail."""
        front = self._front.run(tensors) if self._front is not None else {}
        return {**{t: tensors[t] for t in self._alone.inputs if t in tensors}, **front}

    def finish(self, begun: Sequence[Begun]) -> list[dict[int, Array]]:
        """Run the tail, several frames at once where there are several."""
        found: list[dict[int, Array]] = []
        for at in range(0, len(begun), self._width):
            some = begun[at : at + self._width]
            is_alone = len(some) == 1 or self.batch == 1
            made = [self._alone.run(one) for one in some] if is_alone else self._together(some)
            found += [{t: {**one, **own}[t] for t in self.outputs} for one, own in zip(some, made, strict=True)]
        return found

    def _together(self, some: Sequence[Begun]) -> list[dict[int, Array]]:
        """Fewer than `batch` are filled up with zeros: the kernel has one number of rows."""
        given = {}
        for tensor in self._alone.inputs:
            filled = np.zeros((self._width, some[0][tensor].shape[-1]), some[0][tensor].dtype)
            np.concatenate([one[tensor] for one in some], out=filled[: len(some)])
            given[tensor] = filled
        made = self._rows.run(given)
        return [{t: made[t][row : row + 1] for t in self._alone.outputs} for row in range(len(some))]

    def _differing(self) -> int | None:
        """The first tensor that has other bits together than alone, None where none has."""
        for some in (self._seeded, self._seeded[:2]):
            alone = [{t: array.copy() for t, array in self._alone.run(one).items()} for one in some]
            for one, other in zip(alone, self._together(some), strict=True):
                for tensor, array in one.items():
                    if array.tobytes() != other[tensor].tobytes():
                        return tensor
        return None

    def _gain(self, graph: ModelGraph) -> float:
        """Times as fast as one by one, as a whole: where nearly all is before the tail, waiting gains nothing."""
        given = {t: zeros(graph.tensors[t]) for t in self.inputs}
        front, rows = self._front, self._seeded
        front_s = 0.0 if front is None else self._seconds(lambda: front.run(given)) * self._width
        alone_s = self._seconds(lambda: [self._alone.run(one) for one in rows])
        together_s = self._seconds(lambda: self._together(rows))
        return (front_s + alone_s) / max(front_s + together_s, 1e-9)

    def _seconds(self, work: Callable[[], object]) -> float:
        took = []
        for _ in range(_ROUNDS):
            began = self._clock()
            work()
            took.append(self._clock() - began)
        return statistics.median(took)


def _seeded(graph: ModelGraph, tensors: Sequence[int], batch: int) -> list[Begun]:
    """Rows of noise with zeros among them, as behind a ReLU."""
    draw = np.random.default_rng(len(graph))
    made: list[Begun] = []
    for _ in range(batch):
        rows = {t: draw.standard_normal(graph.tensors[t].shape).astype(np.float32) for t in tensors}
        made.append({t: np.maximum(row, 0) if draw.random() < 0.5 else row for t, row in rows.items()})  # noqa: PLR2004
    return made
