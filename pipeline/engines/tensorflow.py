"""The TensorFlow engine: one traced function per segment, weights shared, static shapes.

Weights are captured variables, never constants: freezing VGG-16 takes 28 s and a copy of its weights.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.engines import Array, BlockTimes, Segment, unsplit
from pipeline.engines.checks import check, fitting, noise, zeros
from pipeline.engines.dense import perform
from pipeline.engines.tensorflow_trace import SCOPE, trace
from pipeline.errors import ModelError
from pipeline.graph import Axis, Block, ModelGraph, Window
from pipeline.prepare.model import PreparedModel
from pipeline.tensorflow_runtime import as_array, lent_as_tensor, set_up, tf
from pipeline.timing.contention import typical_of, uncontended_seconds

if TYPE_CHECKING:
    from pipeline.engines import TileSegment
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
    """Keras's own kernels (oneDNN on x86), the default engine."""

    def __init__(self, threads: int) -> None:
        set_up(threads)
        self.name = "tensorflow"
        self.version: str = tf.__version__
        self.threads = threads

    def compile(
        self, model: PreparedModel, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
    ) -> TensorFlowSegment:
        """Trace the blocks and run them once on zeros. Raises PlanError when they do not fit together."""
        check(model.graph, blocks, inputs, outputs)
        with _tracing, _short_turns():
            segment = TensorFlowSegment(model, tuple(sorted(blocks)), tuple(inputs), tuple(outputs))
        segment.run({i: zeros(model.graph.tensors[i]) for i in inputs})
        return segment

    def compile_tile(self, model: PreparedModel, tile: Tile, stack: Stack) -> TileSegment:
        """Trace the stack for tiles of this one's kind."""
        from pipeline.engines.tensorflow_tiles import TensorFlowTileSegment

        with _tracing, _short_turns():
            return TensorFlowTileSegment(model, tile, stack)

    def profile(self, model: PreparedModel, repeats: int = 10) -> BlockTimes:
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
                    tensors[i] = _border(model.graph, i, tensors[i])
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


def caller(function: Any) -> Callable[..., Sequence[Any]]:
    """Calls the function, tensors in and out, and spares what TensorFlow does to bind and pack arguments by name.

    That takes 0.1 ms a call, as much as a small block; where TensorFlow has moved the way round, it is not taken.
    """
    flat = getattr(getattr(function, "_inference_function", None), "call_flat", None)
    if flat is None:
        return function  # type: ignore[no-any-return]
    captured = function.captured_inputs
    return lambda *tensors: flat(*tensors, *captured)


def pads_widely(block: Block) -> bool:
    """Whether a convolution stands behind an explicit padding of more than its kernel reaches over.

    TensorFlow fuses the two, and oneDNN then adds in another order than without padding, where a tile inside has none.
    """
    windows = block.windows or ()
    return len(windows) > 1 and any(
        pad.before + pad.after > kernel.dilation * (kernel.kernel - 1)
        for pad, kernel in zip(_axes(windows[0]), _axes(windows[1]), strict=True)
    )


def _axes(window: Window) -> tuple[Axis, Axis]:
    return window.rows, window.columns


def kept_apart(tensor: Any) -> Any:
    """The tensor, behind an operation that does nothing and that TensorFlow does not fuse across."""
    return tf.raw_ops.EnsureShape(input=tensor, shape=tensor.shape)


def _border(graph: ModelGraph, index: int, made: Any) -> Any:
    """A block's output, behind an operation that does nothing.

    TensorFlow's optimiser fuses a convolution with the addition that follows, but not across this one: a block runs the
    same kernels whatever else is in its segment.
    """
    promised = graph.tensors[index]
    if not made.shape.is_compatible_with(promised.shape) or made.dtype.name != promised.dtype:
        raise ModelError(
            f"model {graph.name!r}: tensor {promised.name!r} is {made.dtype.name}{tuple(made.shape)}, "
            f"Keras declared {promised.dtype}{promised.shape}; the layer's compute_output_shape is wrong"
        )
    return tf.raw_ops.EnsureShape(input=made, shape=promised.shape)


def _run_seconds(segment: Segment, frame: Mapping[int, Array], repeats: int) -> list[float]:
    """Of half of all whole runs."""
    most, least, budget_s = max(repeats // 2, 1), min(repeats, _LEAST_RUNS - 1), _UNTRACED_SECONDS / 2
    seconds: list[float] = []
    while len(seconds) < least or (len(seconds) < most and sum(seconds) < budget_s):
        seconds.append(uncontended_seconds(lambda: segment.run(frame)))
    return seconds
