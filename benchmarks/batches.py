"""What frames computed together save on LiteRT: seconds a frame, and whether each block gives the same bits as alone.

    python benchmarks/batches.py resnet18 mobilenet_v2 --batch 4

A segment's inputs are made longer (`resize_tensor_input`), as a node that served several streams would have to. One by
one and together take turns; seconds are the thread's own, so that neighbours change them little.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.engines.litert import LiteRTEngine, LiteRTSegment
from pipeline.lite.package import Package
from pipeline.models import store
from pipeline.models.source import ModelSource
from pipeline.wire import Array


def main() -> None:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    print("| network | blocks with other bits | convolutions, ms a frame one by one | together | times as fast |")
    print("|---|---|---|---|---|")
    for name in asked.models:
        package, engine = store.load(ModelSource(name, name, "seed:0")), LiteRTEngine(1)
        blocks = package.graph.blocks[1:]
        differing = [b.name for b in blocks if not is_equal(engine, package, b.index, asked.batch)]
        kept = [b.index for b in blocks if b.name not in differing]
        last = max(kept, default=0)
        alone_s, together_s = seconds(engine, package, range(1, last + 1), asked.batch, asked.rounds)
        print(
            f"| {name} | {', '.join(differing) or 'none'} | {alone_s * 1e3:.1f} | {together_s * 1e3:.1f} "
            f"| {alone_s / together_s:.2f} |",
            flush=True,
        )


def is_equal(engine: LiteRTEngine, package: Package, block: int, batch: int) -> bool:
    """Whether a block gives each of `batch` seeded frames the bits that it gives it alone."""
    graph = package.graph
    wanted = graph.blocks[block]
    alone = engine.assemble(package, (block,), wanted.inputs, wanted.outputs)
    draw = np.random.default_rng(block)
    shapes = {t: graph.tensors[t].shape for t in wanted.inputs}
    frames = [{t: draw.standard_normal(shape).astype(np.float32) for t, shape in shapes.items()} for _ in range(batch)]
    expected = [{t: array.copy() for t, array in alone.run(frame).items()} for frame in frames]
    try:
        made = lengthened(engine.assemble(package, (block,), wanted.inputs, wanted.outputs), batch)(frames)
    except (RuntimeError, ValueError):
        return False
    return all(np.array_equal(made[t], np.concatenate([one[t] for one in expected])) for t in wanted.outputs)


def seconds(
    engine: LiteRTEngine, package: Package, blocks: Sequence[int], batch: int, rounds: int
) -> tuple[float, float]:
    """Median seconds of a frame in one segment of these blocks: one by one, and `batch` at a time."""
    graph = package.graph
    outputs = graph.blocks[blocks[-1]].outputs
    alone = engine.assemble(package, blocks, graph.inputs, outputs)
    together = lengthened(engine.assemble(package, blocks, graph.inputs, outputs), batch)
    draw = np.random.default_rng(0)
    frames = [
        {t: draw.standard_normal(graph.tensors[t].shape).astype(np.float32) for t in graph.inputs} for _ in range(batch)
    ]
    taken: dict[str, list[float]] = {"alone": [], "together": []}
    for _ in range(rounds + 1):
        for name, work in (("alone", lambda: [alone.run(f) for f in frames]), ("together", lambda: together(frames))):
            began = time.thread_time()
            work()
            taken[name].append((time.thread_time() - began) / batch)
    return statistics.median(taken["alone"][1:]), statistics.median(taken["together"][1:])


def lengthened(segment: LiteRTSegment, batch: int) -> Callable[[Sequence[Mapping[int, Array]]], dict[int, Array]]:
    """A function that runs a segment of one interpreter on `batch` frames at once."""
    (part,) = segment._parts
    interpreter = part._interpreter
    if interpreter is None:
        return lambda frames: {t: np.concatenate([segment.run(f)[t] for f in frames]) for t in segment.outputs}
    for _, place, shape in part._inputs:
        interpreter.resize_tensor_input(place, [batch * shape[0], *shape[1:]])
    interpreter.allocate_tensors()

    def run(frames: Sequence[Mapping[int, Array]]) -> dict[int, Array]:
        for tensor, place, shape in part._inputs:
            interpreter.set_tensor(place, np.concatenate([frame[tensor].reshape(shape) for frame in frames]))
        interpreter.invoke()
        return {t: interpreter.get_tensor(place) for t, (place, _) in part._outputs.items()}

    return run


if __name__ == "__main__":
    main()
