"""The TensorFlow engine: one traced function per segment, weights shared, static shapes.

Weights are captured variables, never constants: freezing VGG-16 takes 28 s and a copy of its weights.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.engines.base import Array, BlockTimes, Loaded, Segment, unsplit
from pipeline.engines.checks import check, fitting, noise, zeros
from pipeline.engines.dense import perform
from pipeline.engines.promise import BY_PROOF, Promise, processor
from pipeline.engines.tensorflow_ops import border, caller, kept_apart, pads_widely
from pipeline.engines.tensorflow_trace import SCOPE, trace
from pipeline.errors import ConfigError
from pipeline.prepare.model import PreparedModel
from pipeline.tensorflow_runtime import as_array, lent_as_tensor, set_up, tf
from pipeline.timing.contention import typical_of, uncontended_seconds

if TYPE_CHECKING:
    from pipeline.engines.base import TileSegment
    from pipeline.lite.sketch import Sketch
    from pipeline.tiles import Stack, Tile

_tracing = threading.Lock()
"""Keras layers are shared by all segments, and calling one is not safe from two threads."""

_TURN_SECONDS = 0.0005

_LEAST_RUNS = 3
_UNTRACED_SECONDS = _TRACED_SECONDS = 1.0
"""A slow model is measured in fewer runs, but never fewer than three."""
_AGREEMENT = 1.1
"""A traced round that took so much longer than whole runs was disturbed and is measured again..."""
_MOST_ROUNDS = 2
"""...but not for ever: of networks with many small operations the tracer itself takes more."""


class TensorFlowEngine:
    """Keras's own kernels (oneDNN on x86)."""

    def __init__(self, threads: int) -> None:
        set_up(threads)
        self.name = "tensorflow"
        self.version: str = tf.__version__
        self.threads = threads

    def compile(
        self, model: Loaded, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
    ) -> TensorFlowSegment:
        """Trace the blocks and run them once on zeros. Raises PlanError when they do not fit together."""
        prepared = _prepared(model)
        check(model.graph, blocks, inputs, outputs)
        with _tracing, _short_turns():
            segment = TensorFlowSegment(prepared, tuple(sorted(blocks)), tuple(inputs), tuple(outputs))
        segment.run({i: zeros(model.graph.tensors[i]) for i in inputs})
        return segment

    def compile_tile(self, model: Loaded, tile: Tile, stack: Stack) -> TileSegment:
        """Trace the stack for tiles of this one's kind."""
        from pipeline.engines.tensorflow_tiles import TensorFlowTileSegment

        with _tracing, _short_turns():
            return TensorFlowTileSegment(_prepared(model), tile, stack)

    def promise(self, models: Iterable[Loaded] = ()) -> Promise:
        """Equal bits on one kind of processor; kernels depend on a map's size, so each kind of tile is proven."""
        return Promise(f"{self.name} {self.version} {processor()}", BY_PROOF)

    def sketched(self, sketch: Sketch) -> PreparedModel:
        """A small network of Keras layers."""
        from pipeline.prepare.sketched import prepared

        return prepared(sketch)

    def profile(self, model: Loaded, repeats: int = 10) -> BlockTimes:
        """Typical seconds per block, scaled to the untraced median of the whole.

        The tracer makes each operation a little slower and the executor's own time belongs to no block; spreading the
        difference in proportion keeps sums over blocks comparable with what a frame takes.
        """
        segment = unsplit(self, model)
        frame = {i: noise(model.graph.tensors[i]) for i in model.graph.inputs}
        untraced = _run_seconds(segment, frame, repeats)
        traced = min(repeats, max(_LEAST_RUNS, int(_TRACED_SECONDS / statistics.median(untraced))))
        rounds = []
        for _ in range(_MOST_ROUNDS):
            rounds.append(typical_of(lambda: trace(lambda: segment.run(frame), traced, len(model.graph))))
            untraced += _run_seconds(segment, frame, repeats)  # on both sides: a neighbour's load comes and goes
            if rounds[-1][0].sum() <= _AGREEMENT * statistics.median(untraced):
                break
        total_seconds = statistics.median(untraced)
        typical, runs = min(rounds, key=lambda measured: float(measured[0].sum()))
        unscaled_seconds, quarters = float(typical.sum()), np.percentile(runs, [25, 75], axis=0)
        scale = total_seconds / unscaled_seconds if unscaled_seconds > 0 else 0.0
        return BlockTimes(
            seconds=tuple((typical * scale).tolist()),
            spread=tuple(((quarters[1] - quarters[0]) * scale).tolist()),
            total_seconds=total_seconds,
            unscaled_seconds=unscaled_seconds,
        )


def _prepared(model: Loaded) -> PreparedModel:
    if not isinstance(model, PreparedModel):
        raise ConfigError(f"engine tensorflow runs Keras models; {model.graph.name!r} is a package: use engine litert")
    return model


class TensorFlowSegment:
    """Some blocks as one graph function. Its memory goes with the last reference to it."""

    def __init__(
        self, model: PreparedModel, blocks: tuple[int, ...], inputs: tuple[int, ...], outputs: tuple[int, ...]
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._tensors = {i: model.graph.tensors[i] for i in (*inputs, *outputs)}
        self._computed = tuple(i for i in outputs if i not in inputs)
        self._call = caller(_function(model, blocks, inputs, self._computed)) if self._computed else None

    def run(self, tensors: Mapping[int, Array]) -> dict[int, Array]:
        """Outputs by id, read-only views of TensorFlow's memory, or the inputs that pass through.

        An input that begins at a multiple of 64 bytes is read where it is. An output that equals it (a reshape) is then
        a view of it, so nobody should write to an array that has been an input.
        """
        given = {i: fitting(self._tensors[i], tensors.get(i)) for i in self.inputs}
        made = self._call(*[lent_as_tensor(given[i]) for i in self.inputs]) if self._call else []
        results = {i: as_array(tensor) for i, tensor in zip(self._computed, made, strict=True)}
        return {i: results[i] if i in results else given[i] for i in self.outputs}


def _function(model: PreparedModel, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> Any:
    def segment(*arrays: Any) -> list[Any]:
        tensors = dict(zip(inputs, arrays, strict=True))
        for block in blocks:
            with tf.name_scope(SCOPE.format(block)):
                for number, call in enumerate(model.calls[block]):
                    tensors.update(zip(call.outputs, perform(call, tensors), strict=True))
                    if number == 0 and pads_widely(model.graph.blocks[block]):
                        tensors[call.outputs[0]] = kept_apart(tensors[call.outputs[0]])
                for i in model.graph.blocks[block].outputs if block else ():
                    tensors[i] = border(model.graph, i, tensors[i])
        return [tensors[i] for i in outputs]

    specs = [tf.TensorSpec(model.graph.tensors[i].shape, model.graph.tensors[i].dtype) for i in inputs]
    return tf.function(segment, autograph=False).get_concrete_function(*specs)


@contextlib.contextmanager
def _short_turns() -> Iterator[None]:
    """Tracing is Python; a segment that runs meanwhile gets its turn after 0.5 ms instead of 5."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, _TURN_SECONDS))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _run_seconds(segment: Segment, frame: Mapping[int, Array], repeats: int) -> list[float]:
    """Uncontended seconds of whole runs, about half of `repeats` of them."""
    most, least, budget_s = max(repeats // 2, 1), min(repeats, _LEAST_RUNS - 1), _UNTRACED_SECONDS / 2
    seconds: list[float] = []
    while len(seconds) < least or (len(seconds) < most and sum(seconds) < budget_s):
        seconds.append(uncontended_seconds(lambda: segment.run(frame)))
    return seconds
