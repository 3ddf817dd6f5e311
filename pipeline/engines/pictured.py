"""Networks with the input's own blocks before them, on any engine: PIL and NumPy run those, the engine the rest.

The engine never sees these blocks, so its segments are the same as without them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline.engines.base import Array, BlockTimes, Engine, Loaded, Segment, TileSegment
from pipeline.engines.batched import Batched, Begun, batch_of, begin, finish
from pipeline.engines.checks import fitting
from pipeline.engines.wrapped import WrappedEngine, WrappedNetwork
from pipeline.errors import PlanError
from pipeline.frames.decode import MAX_PIXELS, Preprocess, to_normalised
from pipeline.frames.input_blocks import (
    ADDED,
    DECODE,
    FRAME,
    NORMALISE,
    as_sent,
    decoded,
    frame_tensor,
    has_input,
    network_input,
    picture_tensor,
    with_input,
)
from pipeline.graph import ModelGraph

if TYPE_CHECKING:
    from pipeline.engines.promise import Promise
    from pipeline.tiles.split import Tile
    from pipeline.tiles.stacks import Stack


@dataclass(frozen=True, slots=True)
class InputSeconds:
    """Seconds of a processor for the test picture: to decode and resize it, and to normalise it."""

    decode: float = 0.0
    normalise: float = 0.0


@dataclass(frozen=True)
class Pictured(WrappedNetwork):
    """A loaded network that takes pictures, with the input's blocks before it."""

    preprocess: Preprocess
    seconds: InputSeconds = InputSeconds()
    least: InputSeconds = InputSeconds()
    """Of time that they take in any case, as a replay of a slower machine has it."""

    @property
    def usual(self) -> InputSeconds:
        """What they take for the test picture."""
        measured, least = self.seconds, self.least
        return InputSeconds(max(measured.decode, least.decode), max(measured.normalise, least.normalise))

    @cached_property
    def graph(self) -> ModelGraph:
        """The network's manifest with the input's blocks."""
        return with_input(self.network.graph)

    def segment_bytes(self, blocks: Sequence[int]) -> int:
        """Bytes of memory that one more segment of these blocks takes once it has run; a frame's own not counted."""
        own = _of_network(blocks)
        return self.network.segment_bytes(own) if own else 0


def wait_until(due: float) -> None:
    """Sleep until that moment of `time.perf_counter`, if it is to come."""
    while (left := due - time.perf_counter()) > 0:
        time.sleep(left)


def pictured(model: Loaded, preprocess: Preprocess, least: InputSeconds = InputSeconds()) -> Loaded:
    """The model with the input's blocks before it, if it takes pictures; else the model itself.

    The blocks take `least` seconds in any case.
    """
    return Pictured(model, preprocess, least=least) if has_input(with_input(model.graph)) else model


def network_of(model: Loaded) -> Loaded:
    """The network alone."""
    return model.network if isinstance(model, Pictured) else model


class PicturedEngine(WrappedEngine):
    """An engine that also runs the input's blocks; in all else the engine that it is made of."""

    def compile(self, model: Loaded, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> Segment:
        """A segment that has run once, as far as it is the network's. Raises PlanError, ConfigError."""
        if not isinstance(model, Pictured):
            return self._engine.compile(model, blocks, inputs, outputs)
        return PicturedSegment(self._engine, model, blocks, inputs, outputs)

    def compile_tile(self, model: Loaded, tile: Tile, stack: Stack) -> TileSegment:
        """A segment for all tiles of this one's kind. Raises TileError."""
        if isinstance(model, Pictured):
            own = replace(
                stack, first=stack.first - ADDED, last=stack.last - ADDED, blocks=tuple(_of_network(stack.blocks))
            )
            moved = replace(tile, fits={block - ADDED: fits for block, fits in tile.fits.items()})
            return self._engine.compile_tile(model.network, moved, own)
        return self._engine.compile_tile(model, tile, stack)

    def profile(self, model: Loaded, repeats: int = 10) -> BlockTimes:
        """Seconds of each block; of the input's, those for the test picture."""
        times = self._engine.profile(network_of(model), repeats)
        if not isinstance(model, Pictured):
            return times
        own = (0.0, model.usual.decode, model.usual.normalise)
        added = sum(own)
        return BlockTimes(
            seconds=(*own, *times.seconds[1:]),
            spread=(0.0,) * ADDED + tuple(times.spread),
            total_seconds=times.total_seconds + added,
            unscaled_seconds=None if times.unscaled_seconds is None else times.unscaled_seconds + added,
        )

    def promise(self, models: Iterable[Loaded] = ()) -> Promise:
        """The engine's promise for the networks; what the input's blocks give is compared by their own fingerprint."""
        return self._engine.promise(map(network_of, models))


class PicturedSegment(Batched):
    """Some blocks of a network with the input's, compiled. Run it from one thread at a time.

    `frame` is the id of the frame's own bytes, of which at most `max_pixels` are decoded. Of its last run, `work` says
    how many times the test picture's seconds decoding took, 0 where it did not; `input_seconds` is what the input's
    blocks took by the clock; `made` are the picture and the network's input, as far as they were made here.
    """

    def __init__(
        self, engine: Engine, model: Pictured, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
    ) -> None:
        graph = model.graph
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._model, self._tensors = model, {t: graph.tensors[t] for t in (*inputs, *outputs)}
        self.frame, self._picture = frame_tensor(graph).id, picture_tensor(graph).id
        self._given = network_input(graph)
        self._decodes, self._normalises = DECODE in blocks, NORMALISE in blocks
        self.max_pixels, self.work = MAX_PIXELS, 0.0
        self.input_seconds = 0.0
        self.made: Mapping[int, Array] = {}
        self._check(blocks)
        own, of_input = _of_network(blocks), {self.frame, self._picture}
        if self._normalises:
            of_input.add(self._given.id)
        made = tuple(t for t in outputs if t not in of_input)
        given = tuple(t for t in inputs if t not in of_input)
        if self._normalises and own:
            given = (*given, self._given.id)
        self._segment = engine.compile(model.network, own, given, made) if made else None
        self.batch = batch_of(self._segment)

    def _check(self, blocks: Sequence[int]) -> None:
        """Raise PlanError unless the input's blocks here have what they read, and make what is asked of them."""
        graph, here = self._model.graph, set(self.inputs)
        for block in sorted(set(blocks) & {FRAME, DECODE, NORMALISE}):
            missing = sorted(set(graph.blocks[block].inputs) - here)
            if missing:
                raise PlanError(f"segment of {graph.name!r}: block {block} needs tensors {missing}; add them")
            here.update(graph.blocks[block].outputs)
        lacking = {self.frame, self._picture}.intersection(self.outputs) - here
        if lacking:
            raise PlanError(f"segment of {graph.name!r}: tensors {sorted(lacking)} are not made in its blocks")

    def begin(self, tensors: Mapping[int, Array]) -> Begun:
        """Run the input's blocks, and begin the network's. The frame is its bytes, or an array.

        Raises FrameError for one that is no input, PlanError.
        """
        known, self.work, entered = dict(tensors), 0.0, time.perf_counter()
        if self._decodes and (self._normalises or self._picture in self.outputs):
            began, due = time.thread_time(), time.perf_counter() + self._model.least.decode
            known[self._picture] = decoded(known[self.frame], self._given, self._model.preprocess, self.max_pixels)
            took_s, usual_s = max(time.thread_time() - began, self._model.least.decode), self._model.usual.decode
            self.work = took_s / usual_s if usual_s > 0 else 0.0
            wait_until(due)
        if self._normalises:
            due = time.perf_counter() + self._model.least.normalise
            known[self._given.id] = to_normalised(known[self._picture], self._given, self._model.preprocess)
            wait_until(due)
        self.input_seconds = time.perf_counter() - entered if self._decodes or self._normalises else 0.0
        self.made = {t: known[t] for t in (self._picture, self._given.id) if t in known and t not in tensors}
        begun = begin(self._segment, known) if self._segment is not None else {}
        passed = [t for t in self.outputs if t not in begun and (t in self.inputs or t in self.made)]
        return begun | {t: self._handed_on(t, known) for t in passed}

    def finish(self, begun: Sequence[Begun]) -> list[dict[int, Array]]:
        """Run the rest. Returns the outputs of each, in order."""
        if self._segment is None:
            return [{t: one[t] for t in self.outputs} for one in begun]
        made = finish(self._segment, begun)
        return [{t: own[t] if t in own else one[t] for t in self.outputs} for one, own in zip(begun, made, strict=True)]

    def _handed_on(self, tensor: int, known: Mapping[int, Array]) -> Array:
        if tensor == self.frame:
            return as_sent(known[tensor])
        return known[tensor] if tensor == self._picture else fitting(self._tensors[tensor], known.get(tensor))


def _of_network(blocks: Sequence[int]) -> list[int]:
    """The network's own numbers of its blocks."""
    return [block - ADDED for block in blocks if block > NORMALISE]
