"""Record networks for `engine: replay`: block times of this machine, as a Raspberry Pi 4, an i7 and a GPU would take.

Seconds of blocks are measured here with LiteRT on one thread, and scaled so that the whole network takes what
Scission's authors measured on each machine (`data/scission`; a network that they did not measure takes what another one
takes per multiply-accumulate). Samples of tensors are of a photo under the zoo's seeded weights. Tiles are compared
with the stack in one piece, here, for the factor by which they take longer than their part of it.

    python -m benchmarks.headline_recording -o recordings alexnet vgg16
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.planning import seconds_of_models, total
from nodes.cli import sample_images
from pipeline import codecs
from pipeline.engines.base import Array
from pipeline.engines.block_recording import (
    BlockRecording,
    MachineTimes,
    NetworkRecording,
    computed_tensors,
    content_of,
    samples_of,
)
from pipeline.engines.litert import LiteRTEngine
from pipeline.errors import TileError
from pipeline.frames.decode import Preprocess
from pipeline.frames.inputs import to_inputs
from pipeline.graph import ModelGraph
from pipeline.lite.package import Package
from pipeline.models import lookup, store
from pipeline.models.source import ModelSource
from pipeline.profiling.profile import hardware
from pipeline.tiles.arrays import cut
from pipeline.tiles.grid import Grid
from pipeline.tiles.split import split
from pipeline.tiles.stacks import Stack, stack_between
from pipeline.tiles.tiled_stack_cost import tile_seconds
from pipeline.timing.contention import uncontended_seconds

MACHINES = {"raspi4": "device-raspi4", "i7": "cloud-6700k-nogpu", "gpu": "cloud-6700k-gpu"}
"""Classes of machines, and Scission's files of them: a Raspberry Pi 4, an i7-6700K without its GPU, and with it."""
SHARED = Path(__file__).parents[2] / "shared" / "data" / "scission"
GRIDS = (Grid((1, 1), (1, 1)), Grid((1, 1, 1, 1), (1,)))
_DEPTHS = (0.25, 0.5, 0.75)
_REPEATS = 5


def main() -> None:
    """Record each network into a file of its own, and its package beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a folder")
    parser.add_argument("--shared", type=Path, default=SHARED)
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    for name in asked.networks:
        model = store.load(ModelSource(name, name))
        package = asked.output / f"{name}.trisect"
        package.unlink(missing_ok=True)
        package.hardlink_to(model.path)
        record(name, model, asked.shared).write(asked.output / f"{name}.json")


def record(name: str, model: Package, shared: Path) -> BlockRecording:
    """The network's times for all machines, and samples of its tensors; prints what was found."""
    engine, graph = LiteRTEngine(1), model.graph
    measured = engine.profile(model).seconds
    shape = lookup(name).input_shape
    (frame,) = sample_images.frames(1)
    given = to_inputs(frame, graph, Preprocess(size=shape[:2], mode=lookup(name).preprocess))
    tensors = computed_tensors(engine, model, given)
    factor = tile_factor(engine, model, tensors, measured)
    times = {}
    for machine, file in MACHINES.items():
        scale = total(name, seconds_of_models(shared / f"{file}.json")) / sum(measured)
        times[machine] = MachineTimes(tuple(s * scale for s in measured), round(factor, 3))
    recorded = NetworkRecording(name, graph.digest, times, samples_of(tensors, graph))
    off = ratio_error(graph, tensors, recorded)
    milliseconds = ", ".join(f"{machine} {sum(t.seconds) * 1e3:.1f}" for machine, t in times.items())
    print(
        f"{name}: here {sum(measured) * 1e3:.1f} ms; {milliseconds} ms; tiles take {factor:.2f} times their part; "
        f"codecs' ratios are off by {off:.1%} (median over tensors)",
        flush=True,
    )
    source = (
        f"shares of blocks: LiteRT, 1 thread, {hardware()}; seconds of the whole: Scission (Lockhart et al.), "
        f"{', '.join(MACHINES.values())}"
    )
    return BlockRecording(source, (recorded,))


def tile_factor(engine: LiteRTEngine, model: Package, tensors: dict[int, Array], measured: tuple[float, ...]) -> float:
    """By how much tiles take longer than their part of the stack in one piece, median over stacks and grids."""
    found = []
    for stack in _stacks(model.graph, measured):
        whole = engine.compile(model, stack.blocks, stack.inputs, (stack.output,))
        given = {t: tensors[t] for t in stack.inputs}
        whole_s = _seconds(lambda: whole.run(given))  # noqa: B023 - called at once
        in_one_piece = sum(measured[block] for block in stack.blocks)
        for grid in GRIDS:
            tile_map = split(model.graph, stack, grid)
            taken_s = priced_s = 0.0
            for tile in tile_map.tiles:
                segment, part = engine.compile_tile(model, tile, stack), cut(tile_map, tile, given)
                taken_s += _seconds(lambda: segment.run(part))  # noqa: B023 - called at once
                priced_s += tile_seconds(model.graph, stack.blocks, tile, measured) * whole_s / in_one_piece
            found.append(taken_s / priced_s)
    return statistics.median(found) if found else 1.0


def _stacks(graph: ModelGraph, measured: tuple[float, ...]) -> Iterator[Stack]:
    """Stacks from the first block to where a quarter, a half, three quarters of the network's seconds are over."""
    done = np.cumsum(measured) / sum(measured)
    for depth in _DEPTHS:
        for last in range(int(np.searchsorted(done, depth)), 1, -1):
            try:
                yield stack_between(graph, 1, last)
            except TileError:
                continue
            break


def _seconds(work: object) -> float:
    assert callable(work)
    work()
    return statistics.median(uncontended_seconds(work) for _ in range(_REPEATS))


def ratio_error(graph: ModelGraph, tensors: dict[int, Array], recorded: NetworkRecording) -> float:
    """How far the best codec's ratio of a replayed tensor is from the real one's, median over tensors."""
    off = []
    for tensor in graph.tensors:
        real = max(codecs.ratios(np.ascontiguousarray(tensors[tensor.id])).values(), default=1.0)
        replayed = max(codecs.ratios(content_of(tensor, recorded.samples[tensor.id])).values(), default=1.0)
        off.append(abs(replayed / real - 1))
    return statistics.median(off)


if __name__ == "__main__":
    main()
