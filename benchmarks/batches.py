"""What frames computed together save on LiteRT, as with a node's `batch`: seconds a frame, and where they go.

    python -m benchmarks.batches alexnet vgg16 resnet18 mobilenet_v2 --batch 4 [--threads 1]

A segment of the whole network runs frames one by one and together, in turns. Seconds are the thread's own with one
thread, so that neighbours change them little, else those of the clock. With several threads frames run side by side,
each on one thread, where their dense layers at the end gain nothing together. Every output is compared bit for bit.
The last columns show why convolutions are not run together: their inputs made longer (`resize_tensor_input`), in one
call; the multiply-accumulates a second that they reach one frame at a time; and what a batch could gain if all of
them ran as fast as the fastest convolution that fits into the caches, on the same engine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.engines import litert_side_by_side, litert_together
from pipeline.engines.base import Segment, unsplit
from pipeline.engines.batched import begin, finish
from pipeline.engines.litert import LiteRTEngine, LiteRTSegment
from pipeline.engines.litert_together import dense_tail, tail_tensors
from pipeline.lite.package import Package
from pipeline.lite.sketch import Layer, Sketch
from pipeline.models import store
from pipeline.models.source import ModelSource
from pipeline.wire import Array

_FASTEST = ((56, 64, 3), (28, 128, 3), (14, 256, 3), (28, 128, 1), (56, 64, 1))
"""Side, channels and kernel of convolutions of which one is as fast as this engine gets."""
Frames = Sequence[Mapping[int, Array]]


def main() -> None:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    litert_together.LEAST_GAIN = litert_side_by_side.LEAST_GAIN = (
        0.0  # nodes leave off what gains less than a tenth; here it is to be seen
    )
    print(
        "| network | threads | one by one, ms a frame | its dense layers at the end | together | times as fast ", end=""
    )
    print("| equal | convolutions in one call, times as fast | their GMAC/s | at most, times as fast |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    most = max(rate_of(side, channels, kernel, asked.threads) for side, channels, kernel in _FASTEST)
    for name in asked.models:
        print(line(name, asked.batch, asked.rounds, asked.threads, most), flush=True)
    print(f"fastest convolution: {most / 1e9:.1f} GMAC/s")


def rate_of(side: int, channels: int, kernel: int, threads: int) -> float:
    """Multiply-accumulates a second of one convolution of a square map, as many channels out as in."""
    engine = LiteRTEngine(threads)
    layer = Layer("convolution", "conv", ("image",), kernel, channels)
    model = engine.sketched(Sketch("one", (side, side, channels), (layer,)))
    segment = unsplit(engine, model)
    given = {t: np.ones(model.graph.tensors[t].shape, np.float32) for t in model.graph.inputs}
    taken = medians({"one": lambda: segment.run(given)}, 20, threads)["one"]
    return sum(block.macs for block in model.graph.blocks) / taken


def line(name: str, batch: int, rounds: int, threads: int, most: float) -> str:
    """One network's line of the table; `most` are multiply-accumulates a second of the fastest convolution."""
    package = store.load(ModelSource(name, name, "seed:0"))
    graph, blocks = package.graph, range(len(package.graph))
    engines = LiteRTEngine(threads), LiteRTEngine(threads, batch=batch)
    alone, together = (engine.compile(package, blocks, graph.inputs, graph.outputs) for engine in engines)
    frames = frames_of(package, graph.inputs, batch)
    is_equal = all(
        np.array_equal(one[t], other[t])
        for one, other in zip(one_by_one(alone, frames), at_once(together, frames), strict=True)
        for t in graph.outputs
    )
    ways: dict[str, Callable[[], object]] = {
        "alone": lambda: one_by_one(alone, frames),
        "together": lambda: at_once(together, frames),
    }
    if tail := dense_tail(package, blocks[1:]):
        reads, made = tail_tensors(graph, tail, graph.outputs)
        head = engines[0].compile(package, tail, reads, made)
        rows = frames_of(package, reads, batch)
        ways["tail"] = lambda: one_by_one(head, rows)
    last = (tail[0] if tail else len(graph)) - 1
    while last and len(graph.tensors[graph.blocks[last].outputs[0]].shape) < 4:  # what flattens
        last -= 1
    maps, of_maps = range(1, last + 1), graph.blocks[last].outputs
    single = engines[0].assemble(package, maps, graph.inputs, of_maps)
    longer = lengthened(engines[0].assemble(package, maps, graph.inputs, of_maps), batch)
    ways["maps"], ways["longer"] = lambda: one_by_one(single, frames), lambda: longer(frames)
    took = {way: seconds / batch * 1e3 for way, seconds in medians(ways, rounds, threads).items()}
    macs = sum(graph.blocks[index].macs for index in maps)
    rate = macs / took["maps"] * 1e3
    return (
        f"| {name} | {threads} | {took['alone']:.1f} | {took.get('tail', 0.0):.1f} | {took['together']:.1f} "
        f"| {took['alone'] / took['together']:.2f} | {'yes' if is_equal else 'NO'} "
        f"| {took['maps'] / took['longer']:.2f} | {rate / 1e9:.1f} | {most / rate:.2f} |"
    )


def frames_of(package: Package, tensors: Sequence[int], number: int) -> Frames:
    """Seeded noise for these tensors."""
    draw, graph = np.random.default_rng(0), package.graph
    return [
        {t: draw.standard_normal(graph.tensors[t].shape).astype(np.float32) for t in tensors} for _ in range(number)
    ]


def one_by_one(segment: Segment, frames: Frames) -> list[dict[int, Array]]:
    """Each frame in a call of its own."""
    return [segment.run(frame) for frame in frames]


def at_once(segment: Segment, frames: Frames) -> list[dict[int, Array]]:
    """As a node does with frames that wait for one segment."""
    return finish(segment, [begin(segment, frame) for frame in frames])


def medians(ways: Mapping[str, Callable[[], object]], rounds: int, threads: int) -> dict[str, float]:
    """Median seconds of each, in turns; the first round is for warming up."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, work in ways.items():
            began = clock()
            work()
            taken[name].append(clock() - began)
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}


def lengthened(segment: LiteRTSegment, batch: int) -> Callable[[Frames], None]:
    """A function that runs a segment of one interpreter on `batch` frames in one call."""
    (part,) = segment._parts
    interpreter = part._interpreter
    assert interpreter is not None
    for _, place, shape in part._inputs:
        interpreter.resize_tensor_input(place, [batch * shape[0], *shape[1:]])
    interpreter.allocate_tensors()

    def run(frames: Frames) -> None:
        for tensor, place, shape in part._inputs:
            interpreter.set_tensor(place, np.concatenate([frame[tensor].reshape(shape) for frame in frames]))
        interpreter.invoke()
        for place, _ in part._outputs.values():
            interpreter.get_tensor(place)

    return run


if __name__ == "__main__":
    main()
