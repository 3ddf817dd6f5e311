"""Networks with their task's decoder as a block after them, on any engine: NumPy runs it, the engine the rest.

The engine never sees that block, so its segments are the same as without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from pipeline.answers.decoders import Decoder, decoder_of
from pipeline.answers.task import Task
from pipeline.engines.base import Array, BlockTimes, Engine, Loaded, Segment, TileSegment
from pipeline.engines.batched import Batched, Begun, batch_of, begin, finish
from pipeline.engines.checks import fitting, noise
from pipeline.engines.wrapped import WrappedEngine, WrappedNetwork
from pipeline.errors import PlanError
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.timing.contention import uncontended_seconds

if TYPE_CHECKING:
    from pipeline.engines.promise import Promise
    from pipeline.tiles.split import Tile
    from pipeline.tiles.stacks import Stack

_REPEATS = 5


@dataclass(frozen=True)
class Answering(WrappedNetwork):
    """A loaded network whose last block decodes its outputs for a task."""

    task: Task
    decoder: Decoder

    @cached_property
    def graph(self) -> ModelGraph:
        """The network's manifest with the decoder's block; its one output is the decoder's."""
        return with_decoder(self.network.graph, self.task, self.decoder)

    @property
    def block(self) -> int:
        """Index of the decoder's block."""
        return len(self.network.graph)

    def segment_bytes(self, blocks: Sequence[int]) -> int:
        """Bytes of memory that one more segment of these blocks takes once it has run."""
        own = [block for block in blocks if block != self.block]
        return self.network.segment_bytes(own) if own else 0


def answering(model: Loaded, task: Task | None) -> Loaded:
    """The model with its task's decoder, or itself where its outputs are the answer already.

    Raises ModelError for outputs that do not fit the task, naming their shapes.
    """
    decoder = decoder_of(task, model.graph) if task is not None else None
    return model if task is None or decoder is None else Answering(model, task, decoder)


def classes_of(model: Loaded, task: Task | None) -> int:
    """Number of labels that a model's answers may have, 0 where any will do."""
    if isinstance(model, Answering):
        return model.decoder.classes
    if task is None or task.kind not in {"classify", "values"}:
        return 0
    return math.prod(model.graph.tensors[model.graph.outputs[0]].shape)


def with_decoder(graph: ModelGraph, task: Task, decoder: Decoder) -> ModelGraph:
    """The network's graph with a block after it that makes its answer's tensor. Its digest names the task, too."""
    made = Tensor(len(graph.tensors), f"answer_{decoder.name}", decoder.shape, decoder.dtype)
    block = Block(len(graph), f"answer_{task.kind}", f"Answer{task.kind.capitalize()}", (), decoder.inputs, (made.id,))
    digest = xxhash.xxh3_128_hexdigest(f"{graph.digest} {task.digest()}".encode())
    return replace(
        graph, digest=digest, tensors=(*graph.tensors, made), blocks=(*graph.blocks, block), outputs=(made.id,)
    )


class AnsweringEngine(WrappedEngine):
    """An engine that also runs decoders; in all else the engine that it is made of."""

    def compile(self, model: Loaded, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> Segment:
        """A segment that has run once. Raises PlanError, ConfigError."""
        if not isinstance(model, Answering) or model.block not in blocks:
            network = model.network if isinstance(model, Answering) else model
            return self._engine.compile(network, blocks, inputs, outputs)
        return AnsweringSegment(self._engine, model, blocks, inputs, outputs)

    def compile_tile(self, model: Loaded, tile: Tile, stack: Stack) -> TileSegment:
        """A segment for all tiles of this one's kind. Raises TileError."""
        return self._engine.compile_tile(_network_of(model), tile, stack)

    def profile(self, model: Loaded, repeats: int = 10) -> BlockTimes:
        """Seconds of each block; the decoder's on noise, in which it finds more than in pictures."""
        times = self._engine.profile(_network_of(model), repeats)
        if not isinstance(model, Answering):
            return times
        given = [noise(model.graph.tensors[t]) for t in model.decoder.inputs]
        seconds = float(np.median([uncontended_seconds(lambda: model.decoder.decode(given)) for _ in range(_REPEATS)]))
        return BlockTimes(
            seconds=(*times.seconds, seconds),
            spread=(*times.spread, 0.0),
            total_seconds=times.total_seconds + seconds,
            unscaled_seconds=None if times.unscaled_seconds is None else times.unscaled_seconds + seconds,
        )

    def promise(self, models: Iterable[Loaded] = ()) -> Promise:
        """The engine's promise for the networks; decoders give the same bits everywhere."""
        return self._engine.promise(map(_network_of, models))


class AnsweringSegment(Batched):
    """Some last blocks of a network and its decoder. Run it from one thread at a time."""

    def __init__(
        self, engine: Engine, model: Answering, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
    ) -> None:
        graph = model.graph
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._tensors = {t: graph.tensors[t] for t in self.inputs}
        self._decoder, (self._answer,) = model.decoder, graph.blocks[model.block].outputs
        own = [block for block in blocks if block != model.block]
        here = {t for block in own for t in graph.blocks[block].outputs}
        missing = [t for t in self._decoder.inputs if t not in here and t not in self.inputs]
        if missing:
            raise PlanError(f"segment of {graph.name!r}: block {model.block} needs tensors {missing}; add them")
        wanted = [t for t in dict.fromkeys((*self._decoder.inputs, *outputs)) if t in here]
        given = [t for t in self.inputs if t in _read_by(graph, own)]
        self._segment = engine.compile(model.network, own, given, wanted) if wanted else None
        self.batch = batch_of(self._segment)

    def begin(self, tensors: Mapping[int, Array]) -> Begun:
        """Begin the network's blocks. Raises PlanError for a tensor that is missing or does not fit."""
        known = {t: fitting(tensor, tensors.get(t)) for t, tensor in self._tensors.items()}
        return known | (begin(self._segment, known) if self._segment is not None else {})

    def finish(self, begun: Sequence[Begun]) -> list[dict[int, Array]]:
        """Finish them, and decode. Returns the outputs of each, in order."""
        made = finish(self._segment, begun) if self._segment is not None else [{} for _ in begun]
        return [self._answered({**one, **own}) for one, own in zip(begun, made, strict=True)]

    def _answered(self, known: dict[int, Array]) -> dict[int, Array]:
        if self._answer in self.outputs:
            known[self._answer] = self._decoder.decode([known[t] for t in self._decoder.inputs])
        return {t: known[t] for t in self.outputs}


def _read_by(graph: ModelGraph, blocks: Sequence[int]) -> set[int]:
    """Tensors that these blocks read, block 0's own among them."""
    return {t for b in blocks for t in (graph.blocks[b].inputs or graph.blocks[b].outputs)}


def _network_of(model: Loaded) -> Loaded:
    return model.network if isinstance(model, Answering) else model
