"""The LiteRT engine (TensorFlow Lite's interpreter, XNNPACK kernels): runs packages, without TensorFlow.

Tiles are exact: every element of a map is summed in one order, whatever the map's size. With `everywhere` only kernels
run that give the same bits on x86 with FMA and on ARM (docs/exactness.md). Each segment has its own packed copy of its
weights: XNNPACK's cache of them is not within the interpreter's reach.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from pipeline.allocator import give_back, keep_small
from pipeline.engines.base import Array, BlockTimes, Loaded, Segment, unsplit
from pipeline.engines.checks import check, check_tile, fitting, noise, zeros
from pipeline.engines.litert_side_by_side import SideBySideSegment
from pipeline.engines.litert_together import TogetherSegment, dense_tail, tail_tensors
from pipeline.engines.promise import BY_PROOF, EVERYWHERE, EXACT, Promise, is_arm, is_known, processor, sums_in_order
from pipeline.errors import ConfigError, ModelError, TileError
from pipeline.graph import ModelGraph
from pipeline.lite.emit import Emitter
from pipeline.lite.flatfile import FlatFile, Ref
from pipeline.lite.forms import Forms
from pipeline.lite.package import SPACIOUS, Package
from pipeline.lite.sketch import Sketch, packaged
from pipeline.quiet import quiet_stderr
from pipeline.tiles.split import Tile, size_in
from pipeline.tiles.stacks import Stack
from pipeline.timing.contention import typical_of, uncontended_seconds

_LEAST_RUNS = 3
_MEASURED_SECONDS = 1.0
"""A slow model is measured in fewer runs, but never fewer than three."""


class LiteRTEngine:
    """XNNPACK where it has a kernel, LiteRT's own where not. Raises ConfigError for less than one thread.

    Segments end up to `batch` frames together where that pays (`litert_together`), or else run as many side by side as
    there are threads (`litert_side_by_side`); the copies of weights that this takes are made if there `is_room` for
    their bytes.
    """

    def __init__(
        self,
        threads: int,
        *,
        everywhere: bool = True,
        batch: int = 1,
        is_room: Callable[[int], bool] = lambda nbytes: True,
    ) -> None:
        if threads < 1:
            raise ConfigError(f"threads must be at least 1, not {threads}")
        keep_small()
        self.name = "litert"
        self.version = version("ai-edge-litert")
        self.threads = threads
        self.everywhere = everywhere
        self._batch, self._is_room = batch, is_room

    def compile(self, model: Loaded, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> Segment:
        """Write the blocks as a segment and run it once on zeros. Raises PlanError, ModelError."""
        if self._batch > 1:
            check(model.graph, blocks, inputs, outputs)
            needed = _needed(model.graph, blocks, inputs, outputs)
            tail = dense_tail(model.package, needed)
            if tail and self._is_room(model.segment_bytes(tail)):
                joined = self._together(model, needed, tail, tuple(inputs), tuple(outputs))
                if joined.batch > 1:
                    return joined
                del joined  # and with it the second copy of weights
        whole = self._compiled(model, blocks, inputs, outputs)
        return self._side_by_side(model, blocks, whole) if min(self._batch, self.threads) > 1 else whole

    def _side_by_side(self, model: Loaded, blocks: Sequence[int], whole: LiteRTSegment) -> Segment:
        """The segment with a copy for each thread, where there is room for them and that is faster."""
        inputs, outputs, count = whole.inputs, whole.outputs, min(self._batch, self.threads)
        if not _needed(model.graph, blocks, inputs, outputs) or not self._is_room(count * model.segment_bytes(blocks)):
            return whole
        one_thread = LiteRTEngine(1, everywhere=self.everywhere)
        singles = [one_thread._compiled(model, blocks, inputs, outputs) for _ in range(count)]
        joined = SideBySideSegment(model.graph, whole, singles, batch=self._batch, inputs=inputs, outputs=outputs)
        return joined if joined.batch > 1 else whole

    def _together(
        self,
        model: Loaded,
        needed: Sequence[int],
        tail: Sequence[int],
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
    ) -> TogetherSegment:
        """A segment whose `tail` runs for several frames at once."""
        package = model.package
        reads, made = tail_tensors(model.graph, tail, outputs)
        front_outputs = tuple(
            dict.fromkeys((*(t for t in reads if t not in inputs), *(t for t in outputs if t not in made)))
        )
        front = self._compiled(model, needed[: -len(tail)], inputs, front_outputs) if front_outputs else None
        alone = self._compiled(model, tail, reads, made)
        rows = self._part(package, tail, tail, made, rows=self._batch)
        joined = TogetherSegment(model.graph, front, alone, rows, batch=self._batch, inputs=inputs, outputs=outputs)
        package.forget_pages()
        return joined

    def _compiled(
        self, model: Loaded, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
    ) -> LiteRTSegment:
        segment = self.assemble(model, blocks, inputs, outputs)
        segment.run({i: zeros(model.graph.tensors[i]) for i in inputs})
        model.package.forget_pages()
        give_back()
        return segment

    def assemble(
        self, model: Loaded, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
    ) -> LiteRTSegment:
        """A segment that has not run yet: for one frame only, or where a run takes minutes, as in an emulator.

        Raises PlanError, ModelError.
        """
        graph, package = model.graph, model.package
        check(graph, blocks, inputs, outputs)
        needed = _needed(graph, blocks, inputs, outputs)
        parts = [self._part(package, run, needed, outputs) for run in _runs(needed, package.program.foreign)]
        return LiteRTSegment(graph, parts, tuple(inputs), tuple(outputs))

    def compile_tile(self, model: Loaded, tile: Tile, stack: Stack) -> LiteRTTileSegment:
        """Write the stack for tiles of this one's kind. Raises TileError for a block that has no operations here."""
        package = model.package
        if foreign := sorted(set(stack.blocks) & set(package.program.foreign)):
            block = model.graph.blocks[foreign[0]]
            raise TileError(
                f"block {block.index} ({block.name!r}, {block.kind}) of {model.graph.name!r} cannot be "
                f"computed in tiles with litert; end the stack before block {block.index}, or use engine tensorflow"
            )
        part = self._part(package, stack.blocks, stack.blocks, (stack.output,), tile=tile)
        return LiteRTTileSegment(model.graph, part, tile, stack)

    def _part(
        self,
        package: Package,
        run: Sequence[int],
        blocks: Sequence[int],
        outputs: Sequence[int],
        tile: Tile | None = None,
        rows: int = 1,
    ) -> _Part:
        """One interpreter for some of a segment's blocks, which others after them may read.

        With several `rows`, blocks that treat each alone (`dense_tail`) run for as many frames.
        """
        graph, program = package.graph, package.program
        made = {t for index in run for t in graph.blocks[index].outputs}
        given = dict.fromkeys(t for index in run for t in graph.blocks[index].inputs if t not in made)
        later = {t for index in blocks if index not in run for t in graph.blocks[index].inputs}
        wanted = [t for index in run for t in graph.blocks[index].outputs if t in later or t in outputs]
        if run[0] in program.foreign:
            (op,) = program.blocks[run[0]]
            return _Part.foreign(package.array(op.arrays[0]), op.inputs, op.outputs, graph, self.threads)
        file = FlatFile()
        emitter = Emitter(Forms(file, package.array, everywhere=self.everywhere), program, tile)
        inputs = {t: file.input(_shape(graph, t, tile, rows), graph.tensors[t].dtype) for t in given}
        tensors = dict(inputs)
        for index in run:
            emitter.block(index, tensors)
        for t in wanted:
            _check_made(graph, t, tensors[t], _shape(graph, t, tile, rows))
        return _Part.written(file, inputs, {t: tensors[t] for t in wanted}, graph.name, self.threads)

    def promise(self, models: Iterable[Loaded] = ()) -> Promise:
        """Equal bits on x86 with FMA and on ARM with `everywhere`, but for models with converted blocks."""
        of_ours = not any(model.package.program.foreign for model in models)
        where = EVERYWHERE if self.everywhere and of_ours and is_known() else processor()
        is_exact = sums_in_order() or (self.everywhere and is_arm())  # plain forms: ARM has a kernel for one place
        return Promise(f"{self.name} {self.version} {where}", EXACT if is_exact else BY_PROOF)

    def sketched(self, sketch: Sketch) -> Package:
        """A small network as a package."""
        return packaged(sketch)

    def profile(self, model: Loaded, repeats: int = 10) -> BlockTimes:
        """Typical seconds per block, scaled to the median of the whole.

        LiteRT's Python interpreter has no profiler, so each block is a segment of its own; they run one after another,
        so that caches are as in the whole, and only the kernels are timed, not the copies between.
        """
        graph = model.graph
        frame = {i: noise(graph.tensors[i]) for i in graph.inputs}
        total_seconds = self._total_seconds(model, frame, repeats)
        chain = [self._compiled(model, (b.index,), b.inputs, b.outputs) for b in graph.blocks[1:]]
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

    def _total_seconds(self, model: Loaded, frame: Mapping[int, Array], repeats: int) -> float:
        segment = unsplit(self, model)
        seconds: list[float] = []
        while len(seconds) < min(repeats, _LEAST_RUNS) or (len(seconds) < repeats and sum(seconds) < _MEASURED_SECONDS):
            seconds.append(uncontended_seconds(lambda: segment.run(frame)))
        return statistics.median(seconds)


class LiteRTSegment:
    """Some blocks in one interpreter; in several where converted blocks stand between. For one thread at a time."""

    def __init__(
        self, graph: ModelGraph, parts: Sequence[_Part], inputs: tuple[int, ...], outputs: tuple[int, ...]
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._tensors = {i: graph.tensors[i] for i in (*inputs, *outputs)}
        self._parts = parts
        self.kernel_seconds = 0.0

    def run(self, tensors: Mapping[int, Array]) -> dict[int, Array]:
        """Outputs by id: the caller's own, or the inputs that pass through."""
        known = {i: fitting(self._tensors[i], tensors.get(i)) for i in self.inputs}
        self.kernel_seconds = 0.0
        for part in self._parts:
            known.update(part.run(known))
            self.kernel_seconds += part.kernel_seconds
        return {i: known[i] for i in self.outputs}


class LiteRTTileSegment:
    """A stack over tiles of one kind."""

    def __init__(self, graph: ModelGraph, part: _Part, tile: Tile, stack: Stack) -> None:
        self.inputs, self.output = stack.inputs, stack.output
        self.expected = {i: (_shape(graph, i, tile), graph.tensors[i].dtype) for i in stack.inputs}
        self._part = part

    def run(self, tensors: Mapping[int, Array]) -> Array:
        """The tile's region of the stack's output. Raises PlanError for inputs that do not fit."""
        check_tile(self.expected, tensors)
        return self._part.run(tensors)[self.output]


class _Part:
    """One interpreter, and where tensors go in and come out of it."""

    def __init__(
        self,
        interpreter: Interpreter | None,
        inputs: Mapping[int, int],
        outputs: Mapping[int, tuple[int, tuple[int, ...]]],
        passed: Mapping[int, tuple[int, tuple[int, ...]]],
    ) -> None:
        self._interpreter, self._outputs, self._passed = interpreter, dict(outputs), dict(passed)
        shapes = {d["index"]: tuple(d["shape"]) for d in interpreter.get_input_details()} if interpreter else {}
        self._inputs = [(tensor, place, shapes[place]) for tensor, place in inputs.items() if place in shapes]
        self.kernel_seconds = 0.0

    @classmethod
    def written(
        cls, file: FlatFile, inputs: Mapping[int, Ref], outputs: Mapping[int, Ref], model: str, threads: int
    ) -> _Part:
        """Write the file, and make an interpreter of it; outputs that are inputs are passed through."""
        sources = {ref.index: tensor for tensor, ref in inputs.items()}
        passed = {t: (sources[ref.index], ref.shape) for t, ref in outputs.items() if ref.index in sources}
        made = {t: ref for t, ref in outputs.items() if t not in passed}
        if not made:
            return cls(None, {}, {}, passed)
        with tempfile.NamedTemporaryFile(prefix="trisect-litert-", dir=SPACIOUS) as held:
            file.write(held, list(inputs.values()), list({ref.index: ref for ref in made.values()}.values()))
            interpreter = _interpreter(held.name, model, threads)
            _forget_pages(held.name)
        places = {tensor: ref.index for tensor, ref in inputs.items()}
        return cls(interpreter, places, {t: (ref.index, ref.shape) for t, ref in made.items()}, passed)

    @classmethod
    def foreign(
        cls, content: Array, inputs: Sequence[int], outputs: Sequence[int], graph: ModelGraph, threads: int
    ) -> _Part:
        """Make an interpreter of the converter's own file."""
        with tempfile.NamedTemporaryFile(prefix="trisect-litert-", dir=SPACIOUS) as held:
            held.write(content.data)
            held.flush()
            interpreter = _interpreter(held.name, graph.name, threads)
        places = [d["index"] for d in interpreter.get_input_details()]
        made = [d["index"] for d in interpreter.get_output_details()]
        if (len(places), len(made)) != (len(inputs), len(outputs)):
            raise ModelError(f"model {graph.name!r}: a converted block has other tensors than its manifest says")
        shapes = (graph.tensors[t].shape for t in outputs)
        return cls(
            interpreter,
            dict(zip(inputs, places, strict=True)),
            {t: (place, shape) for t, place, shape in zip(outputs, made, shapes, strict=True)},
            {},
        )

    def __del__(self) -> None:
        """The C library would keep the packed weights for later."""
        self._interpreter = None
        if not sys.is_finalizing():
            give_back()

    def run(self, given: Mapping[int, Array]) -> dict[int, Array]:
        """Outputs by id: the caller's own, or the inputs that pass through."""
        found = {t: given[source].reshape(shape) for t, (source, shape) in self._passed.items()}
        if self._interpreter is not None:
            for tensor, place, shape in self._inputs:
                self._interpreter.set_tensor(place, np.ascontiguousarray(given[tensor]).reshape(shape))
            began = time.perf_counter()
            self._interpreter.invoke()
            self.kernel_seconds = time.perf_counter() - began
            for tensor, (place, shape) in self._outputs.items():
                found[tensor] = self._interpreter.get_tensor(place).reshape(shape)
        return found


def _shape(graph: ModelGraph, tensor: int, tile: Tile | None, rows: int = 1) -> tuple[int, ...]:
    if rows > 1:
        return rows, *graph.tensors[tensor].shape[1:]
    return graph.tensors[tensor].shape if tile is None else size_in(graph, tile, tensor)


def _check_made(graph: ModelGraph, tensor: int, made: Ref, shape: tuple[int, ...]) -> None:
    promised = graph.tensors[tensor]
    if made.shape != shape or made.dtype != promised.dtype:
        raise ModelError(
            f"model {graph.name!r}: tensor {promised.name!r} comes out as {made.dtype}{made.shape}, "
            f"its manifest says {promised.dtype}{shape}"
        )


def _needed(graph: ModelGraph, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> list[int]:
    """The blocks on which the outputs hang, in order."""
    wanted, found = set(outputs) - set(inputs), []
    for index in sorted(blocks, reverse=True):
        if index and wanted.intersection(graph.blocks[index].outputs):
            found.append(index)
            wanted.update(set(graph.blocks[index].inputs) - set(inputs))
    return found[::-1]


def _runs(blocks: Sequence[int], foreign: Sequence[int]) -> list[list[int]]:
    """The blocks in order, those with operations of ours together, each other one alone."""
    runs: list[list[int]] = []
    alone = set(foreign)
    for index in blocks:
        if runs and index not in alone and runs[-1][-1] not in alone:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


def _interpreter(path: str, model: str, threads: int) -> Interpreter:
    """Ready to run; the file is mapped and may lose its name."""
    try:
        with quiet_stderr():
            interpreter = Interpreter(model_path=path, num_threads=threads)
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().split("\n")[0][:300]
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
