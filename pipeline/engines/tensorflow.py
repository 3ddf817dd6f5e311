"""The TensorFlow engine: one traced function per segment, weights shared, static shapes.

Weights are captured variables, never constants: freezing VGG-16 takes 28 s and a copy of its weights.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.backend import as_array, set_up, tf
from pipeline.contention import uncontended_seconds
from pipeline.engines import Array, BlockTimes
from pipeline.engines.tensorflow_trace import SCOPE, trace
from pipeline.errors import ModelError, PlanError
from pipeline.graph import ModelGraph, Tensor
from pipeline.prepared import PreparedModel

_tracing = threading.Lock()
"""Keras layers are shared by all segments, and calling one is not safe from two threads."""

_LEAST_RUNS = 3
_UNTRACED_SECONDS = _TRACED_SECONDS = 1.0
"""A slow model is measured in fewer runs, but never fewer than three."""


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
        _check(model.graph, blocks, inputs, outputs)
        with _tracing:
            segment = TensorFlowSegment(model, tuple(sorted(blocks)), tuple(inputs), tuple(outputs))
        segment.run({i: _zeros(model.graph.tensors[i]) for i in inputs})
        return segment

    def profile(self, model: PreparedModel, repeats: int = 10) -> BlockTimes:
        """Median seconds per block, scaled to the untraced median of the whole.

        The tracer makes each operation a little slower and the executor's own time belongs to no block; spreading the
        difference in proportion keeps sums over blocks comparable with what a frame takes.
        """
        graph = model.graph
        segment = self.compile(model, range(len(graph)), graph.inputs, tuple(dict.fromkeys(graph.outputs)))
        frame = {i: _noise(graph.tensors[i]) for i in graph.inputs}
        total_seconds = _median_seconds(segment, frame, repeats)
        traced = min(repeats, max(_LEAST_RUNS, int(_TRACED_SECONDS / total_seconds)))
        runs = trace(lambda: segment.run(frame), traced, len(graph))
        medians, quarters = np.median(runs, axis=0), np.percentile(runs, [25, 75], axis=0)
        scale = total_seconds / medians.sum() if medians.sum() > 0 else 0.0
        return BlockTimes(
            seconds=tuple((medians * scale).tolist()),
            spread=tuple(((quarters[1] - quarters[0]) * scale).tolist()),
            total_seconds=total_seconds,
        )


class TensorFlowSegment:
    """Some blocks as one graph function. Its memory goes with the last reference to it."""

    def __init__(
        self, model: PreparedModel, blocks: tuple[int, ...], inputs: tuple[int, ...], outputs: tuple[int, ...]
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._tensors = {i: model.graph.tensors[i] for i in (*inputs, *outputs)}
        self._computed = tuple(i for i in outputs if i not in inputs)
        self._function = _function(model, blocks, inputs, self._computed) if self._computed else None

    def run(self, tensors: Mapping[int, Array]) -> dict[int, Array]:
        """Outputs by id, read-only views of TensorFlow's memory, or the inputs that pass through."""
        given = {i: _fitting(self._tensors[i], tensors.get(i)) for i in self.inputs}
        made = self._function(*[tf.constant(given[i]) for i in self.inputs]) if self._function else []
        results = {i: as_array(tensor) for i, tensor in zip(self._computed, made, strict=True)}
        return {i: results[i] if i in results else given[i] for i in self.outputs}


def _check(graph: ModelGraph, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> None:
    if any(not 0 <= b < len(graph) for b in blocks):
        raise PlanError(f"blocks {[b for b in blocks if not 0 <= b < len(graph)]}: {graph.name!r} has {len(graph)}")
    if any(not 0 <= t < len(graph.tensors) for t in (*inputs, *outputs)):
        raise PlanError(f"segment of {graph.name!r}: there are only tensors 0 to {len(graph.tensors) - 1}")
    inputs = (*inputs, *graph.inputs) if 0 in blocks else inputs
    here = set(inputs)
    for block in sorted(blocks):
        missing = sorted(set(graph.blocks[block].inputs) - here)
        if missing:
            raise PlanError(f"segment of {graph.name!r}: block {block} needs tensors {missing}; add them to its inputs")
        here.update(graph.blocks[block].outputs)
    if not here.issuperset(outputs):
        raise PlanError(f"segment of {graph.name!r}: tensors {sorted(set(outputs) - here)} are not made in its blocks")


def _function(model: PreparedModel, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> Any:
    def segment(*arrays: Any) -> list[Any]:
        tensors = dict(zip(inputs, arrays, strict=True))
        for block in blocks:
            with tf.name_scope(SCOPE.format(block)):
                for call in model.calls[block]:
                    tensors.update(zip(call.outputs, call.perform(tensors), strict=True))
                for i in model.graph.blocks[block].outputs if block else ():
                    tensors[i] = _border(model.graph, i, tensors[i])
        return [tensors[i] for i in outputs]

    specs = [tf.TensorSpec(model.graph.tensors[i].shape, model.graph.tensors[i].dtype) for i in inputs]
    return tf.function(segment, autograph=False).get_concrete_function(*specs)


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


def _fitting(tensor: Tensor, array: Array | None) -> Array:
    if array is None:
        raise PlanError(f"tensor {tensor.id} ({tensor.name!r}) is missing")
    if array.shape != tensor.shape or array.dtype.name != tensor.dtype:
        raise PlanError(
            f"tensor {tensor.id} ({tensor.name!r}) is {array.dtype.name}{array.shape}, "
            f"the model needs {tensor.dtype}{tensor.shape}"
        )
    return array


def _zeros(tensor: Tensor) -> Array:
    return np.zeros(tensor.shape, tf.as_dtype(tensor.dtype).as_numpy_dtype)


def _noise(tensor: Tensor) -> Array:
    """A stand-in for a frame: on zeros, some kernels are faster."""
    kind = np.dtype(tf.as_dtype(tensor.dtype).as_numpy_dtype)
    if not np.issubdtype(kind, np.floating):
        return np.zeros(tensor.shape, kind)
    return np.random.default_rng(0).standard_normal(tensor.shape).astype(kind)


def _median_seconds(segment: TensorFlowSegment, frame: Mapping[int, Array], repeats: int) -> float:
    seconds: list[float] = []
    while len(seconds) < min(repeats, _LEAST_RUNS) or (len(seconds) < repeats and sum(seconds) < _UNTRACED_SECONDS):
        seconds.append(uncontended_seconds(lambda: segment.run(frame)))
    return statistics.median(seconds)
