"""What compiling costs a node: seconds per segment, what a running segment feels of it, and memory of ten epochs.

Beside `trisect bench engines`, which compares unsplit networks. One engine and model per process, so that memory is
that of this one.

Run: python benchmarks/engines.py MODEL [--engine NAME] [--threads N] [--json PATH]
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cutting import chain, frame_of, random_placement

from pipeline import engines
from pipeline.models.source import ModelSource
from pipeline.placement import Tier, stages
from pipeline.prepared import PreparedModel, load

ALONE_SECONDS, COMPILING_SECONDS = 5.0, 10.0
EPOCHS = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--engine", default="tensorflow")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    engine = engines.create(arguments.engine, arguments.threads)
    model = load(ModelSource(arguments.model, arguments.model))
    began = time.perf_counter()
    engines.unsplit(engine, model)
    numbers: dict[str, Any] = {"model": arguments.model, "engine": engine.name, "version": engine.version}
    numbers["first_compile_seconds"] = time.perf_counter() - began
    numbers |= {"weight_bytes": model.nbytes, **memory_of_epochs(engine, model), **while_compiling(engine, model)}
    print(json.dumps(numbers, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")


def memory_of_epochs(engine: engines.Engine, model: PreparedModel) -> dict[str, float]:
    """Bytes of the process with one epoch's segments that have run, and with ten different ones."""
    frame, held = frame_of(model.graph), []
    sizes = []
    for epoch in range(EPOCHS):
        held.append(chain(engine, model, random_placement(model.graph, random.Random(epoch)), frame))
        held[-1]()
        gc.collect()
        sizes.append(resident_bytes())
    return {"one_epoch_bytes": sizes[0], "ten_epochs_bytes": sizes[-1], "ten_to_one": sizes[-1] / sizes[0]}


def resident_bytes() -> int:
    """Of this process; pages mapped twice count once."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def while_compiling(engine: engines.Engine, model: PreparedModel) -> dict[str, float]:
    """Latency of the unsplit segment alone, and while another thread compiles segment after segment."""
    segment, frame = engines.unsplit(engine, model), frame_of(model.graph)
    segment.run(frame)
    end = time.perf_counter() + ALONE_SECONDS
    alone = latencies(lambda: segment.run(frame), lambda: time.perf_counter() > end)
    ended, took = threading.Event(), list[float]()
    compiler = threading.Thread(target=compile_on, args=(engine, model, took, ended), name="compile")
    compiler.start()
    busy = latencies(lambda: segment.run(frame), ended.is_set)
    compiler.join()
    return {
        "alone_seconds_p50": statistics.median(alone),
        "p50_ratio": statistics.median(busy) / statistics.median(alone),
        "p95_ratio": float(np.percentile(busy, 95) / np.percentile(alone, 95)),
        "compile_seconds_p50": statistics.median(took),
        "compile_seconds_max": max(took),
        "compiled": len(took),
    }


def compile_on(engine: engines.Engine, model: PreparedModel, took: list[float], ended: threading.Event) -> None:
    """Compile stages of random placements for a while; seconds of each into `took`."""
    end, seed = time.perf_counter() + COMPILING_SECONDS, 100
    while time.perf_counter() < end:
        for stage in stages(model.graph, random_placement(model.graph, random.Random(seed))):
            inputs = model.graph.inputs if stage.tier is Tier.DEVICE else stage.inputs
            began = time.perf_counter()
            engine.compile(model, stage.blocks, inputs, stage.outputs)
            took.append(time.perf_counter() - began)
        seed += 1
    ended.set()


def latencies(run: Callable[[], object], ended: Callable[[], bool]) -> list[float]:
    """Seconds of each run until it has ended."""
    seconds = []
    while not ended():
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    main()
