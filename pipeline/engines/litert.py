"""The LiteRT engine (TensorFlow Lite's interpreter, XNNPACK kernels): an optional extra, made for small machines.

Answers equal those of its own unsplit network bit for bit, and TensorFlow's to about 1e-5 of the largest (VGG-16, deep
and with a softmax of large logits, 1.1e-5). Compiling a segment takes milliseconds, once the model is converted. Each
segment has its own packed copy of its weights: XNNPACK's cache of them is not within the interpreter's reach.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import statistics
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from pipeline.engines.base import Array, BlockTimes, unsplit
from pipeline.engines.checks import check, fitting, noise, zeros
from pipeline.engines.litert_graph import LiteGraph, give_back
from pipeline.errors import ModelError
from pipeline.prepare.model import PreparedModel
from pipeline.tensorflow_runtime import quiet_stderr, set_up
from pipeline.timing.contention import typical_of, uncontended_seconds

_LEAST_RUNS = 3
_MEASURED_SECONDS = 1.0
"""A slow model is measured in fewer runs, but never fewer than three."""


class LiteRTEngine:
    """XNNPACK where it has a kernel, LiteRT's own where not."""

    def __init__(self, threads: int) -> None:
        set_up(threads)
        self.name = "litert"
        self.version = version("ai-edge-litert")
        self.threads = threads
        self._converted: dict[int, LiteGraph] = {}
        self._converting = threading.Lock()

    def compile(
        self, model: PreparedModel, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
    ) -> LiteRTSegment:
        """Cut the segment out of the converted model and run it once on zeros. Raises PlanError, ModelError.

        The first segment of a model converts it, which takes seconds.
        """
        check(model.graph, blocks, inputs, outputs)
        segment = LiteRTSegment(model, self._lite(model), tuple(inputs), tuple(outputs), self.threads)
        segment.run({i: zeros(model.graph.tensors[i]) for i in inputs})
        return segment

    def _lite(self, model: PreparedModel) -> LiteGraph:
        with self._converting:
            if id(model) not in self._converted:
                self._converted[id(model)] = LiteGraph(model)
                weakref.finalize(model, self._converted.pop, id(model), None)
            return self._converted[id(model)]

    def profile(self, model: PreparedModel, repeats: int = 10) -> BlockTimes:
        """Typical seconds per block, scaled to the median of the whole.

        LiteRT's Python interpreter has no profiler, so each block is a segment of its own; they run one after another,
        so that caches are as in the whole, and only the kernels are timed, not the copies between.
        """
        graph = model.graph
        frame = {i: noise(graph.tensors[i]) for i in graph.inputs}
        total_seconds = self._total_seconds(model, frame, repeats)
        chain = [self.compile(model, (b.index,), b.inputs, b.outputs) for b in graph.blocks[1:]]
        rounds = min(repeats, max(_LEAST_RUNS, int(_MEASURED_SECONDS / total_seconds)))
        typical, runs = typical_of(lambda: np.array([_chained(chain, frame) for _ in range(rounds)]))
        unscaled_seconds, quarters = float(typical.sum()), np.percentile(runs, [25, 75], axis=0)
        scale = total_seconds / unscaled_seconds if unscaled_seconds > 0 else 0.0
        return BlockTimes(
            seconds=(0.0, *(typical * scale).tolist()),
            spread=(0.0, *((quarters[1] - quarters[0]) * scale).tolist()),
            total_seconds=total_seconds,
            unscaled_seconds=unscaled_seconds,
        )

    def _total_seconds(self, model: PreparedModel, frame: Mapping[int, Array], repeats: int) -> float:
        segment = unsplit(self, model)
        seconds: list[float] = []
        while len(seconds) < min(repeats, _LEAST_RUNS) or (len(seconds) < repeats and sum(seconds) < _MEASURED_SECONDS):
            seconds.append(uncontended_seconds(lambda: segment.run(frame)))
        return statistics.median(seconds)


class LiteRTSegment:
    """Some blocks in one interpreter, which is not for two threads at a time."""

    def __init__(
        self, model: PreparedModel, lite: LiteGraph, inputs: tuple[int, ...], outputs: tuple[int, ...], threads: int
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._tensors = {i: model.graph.tensors[i] for i in (*inputs, *outputs)}
        computed = [i for i in outputs if i not in inputs]
        self._passed: dict[int, int] = {}
        self._inputs: list[tuple[int, int, tuple[int, ...]]] = []
        self._outputs: list[tuple[int, int]] = []
        self._interpreter: Interpreter | None = None
        with lite.written(inputs, computed) as (path, wiring):
            self._passed = wiring.passed
            if wiring.outputs:
                self._interpreter = _interpreter(path, model.graph.name, threads)
                _forget_pages(path)
        if self._interpreter is not None:
            details = {d["index"]: d for d in self._interpreter.get_input_details()}
            self._inputs = [(t, at, tuple(details[at]["shape"])) for t, at in wiring.inputs.items()]
            self._outputs = list(wiring.outputs.items())
        self.kernel_seconds = 0.0

    def __del__(self) -> None:
        """The C library would keep the packed weights for later."""
        self._interpreter = None
        if not sys.is_finalizing():
            give_back()

    def run(self, tensors: Mapping[int, Array]) -> dict[int, Array]:
        """Outputs by id: the caller's own, or the inputs that pass through."""
        given = {i: fitting(self._tensors[i], tensors.get(i)) for i in self.inputs}
        found = {i: given[source].reshape(self._tensors[i].shape) for i, source in self._passed.items()}
        if self._interpreter is not None:
            for tensor, place, shape in self._inputs:
                self._interpreter.set_tensor(place, np.ascontiguousarray(given[tensor]).reshape(shape))
            began = time.perf_counter()
            self._interpreter.invoke()
            self.kernel_seconds = time.perf_counter() - began
            for tensor, place in self._outputs:
                found[tensor] = self._interpreter.get_tensor(place).reshape(self._tensors[tensor].shape)
        return {i: found[i] if i in found else given[i] for i in self.outputs}


def _interpreter(path: str, model: str, threads: int) -> Interpreter:
    """Ready to run; the file is mapped and may lose its name."""
    try:
        with quiet_stderr():
            interpreter = Interpreter(model_path=path, num_threads=threads)
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        raise ModelError(f"model {model!r}: LiteRT refuses a segment: {first}; use engine tensorflow") from error
    return interpreter


def _forget_pages(path: str) -> None:
    """Weights that were read from this mapped file to be packed; what is still read of them comes back by itself."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux: the system drops them when it needs the memory
        madvise = ctypes.CDLL(None).madvise
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
            if line.endswith(path):
                begin, end = (int(number, 16) for number in line.split(maxsplit=1)[0].split("-"))
                madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)


def _chained(chain: Sequence[LiteRTSegment], frame: Mapping[int, Array]) -> list[float]:
    """Seconds of each segment's kernels, each given what those before it made."""
    known, seconds = dict(frame), []
    for segment in chain:
        known.update(segment.run(known))
        seconds.append(segment.kernel_seconds)
    return seconds
