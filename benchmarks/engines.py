"""What compiling costs a node: seconds per segment, what a running segment feels of it, and memory over ten epochs.

Beside `trisect bench engines`, which compares unsplit networks. Each model and engine is measured in processes of its
own: one for seconds, one for memory as a node's epochs come and go, one for ten epochs' segments held at once.

Run: python benchmarks/engines.py MODEL… [--engine NAME…] [--measure NAME…] [--threads N] [--json PATH]
"all" stands for the papers' models.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cutting import frame_of
from rich.console import Console
from rich.table import Table

from nodes.tier.segment_store import SegmentStore
from pipeline import engines
from pipeline.engines.checks import noise
from pipeline.graph import ModelGraph
from pipeline.models import PAPERS
from pipeline.models.load import load
from pipeline.models.source import ModelSource
from pipeline.placement import Stage, Tier, stages
from pipeline.prepare.model import PreparedModel
from pipeline.verify.cuts import random_placement

MEASURES = ("seconds", "epochs", "at_once")
ALONE_SECONDS, COMPILING_SECONDS = 4.0, 8.0
WHOLES, LEAST_THIRDS = 3, 3
EPOCHS = 10
LEAST_SHARE = 0.2
"""Of the blocks, in an epoch's segment."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--engine", nargs="+", default=["tensorflow"], choices=engines.NAMES)
    parser.add_argument("--measure", nargs="+", default=list(MEASURES), choices=MEASURES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(arguments.models[0], arguments.engine[0], arguments.measure[0], arguments.threads)))
        return
    models = [m for name in arguments.models for m in (PAPERS if name == "all" else (name,))]
    rows = []
    for name in models:
        for engine in arguments.engine:
            rows.append({"model": name, "engine": engine, "threads": arguments.threads})
            for kind in arguments.measure:
                rows[-1] |= in_a_process(name, engine, kind, arguments.threads)
            print(json.dumps(rows[-1]), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    Console(width=160).print(table_of(rows))


def in_a_process(name: str, engine: str, kind: str, threads: int) -> dict[str, Any]:
    """One measure of one model, or the error that ended it."""
    options = ["--engine", engine, "--measure", kind, "--threads", str(threads), "--here"]
    done = subprocess.run([sys.executable, __file__, name, *options], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return {f"{kind}_error": f"exit code {done.returncode}"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(name: str, engine_name: str, kind: str, threads: int) -> dict[str, Any]:
    """One measure, in this process."""
    engine = engines.create(engine_name, threads)
    model = load(ModelSource(Path(name).stem, name))
    if kind == "seconds":
        return {"version": engine.version, "weight_bytes": model.nbytes} | seconds_of(engine, model)
    return memory_of(engine, model, at_once=kind == "at_once")


def memory_of(engine: engines.Engine, model: PreparedModel, *, at_once: bool) -> dict[str, Any]:
    """Bytes of the process: with the model, with one epoch's segment that has run, and over nine more.

    As on a node: an epoch is held before the one before is released, and the last plan is the first again. `at_once`:
    ten different ones, and none is released.
    """
    store, draw = SegmentStore(engine, {"model": model}), random.Random(0)
    plans = [middle_of(model.graph, draw) for _ in range(EPOCHS)]
    if not at_once:
        plans[-1] = plans[0]
    loaded_bytes, sizes = resident_bytes(), []
    for epoch, stage in enumerate(plans):
        store.hold("stream", epoch, "model", stage)
        run_once(store, epoch, model.graph)
        sizes.append(resident_bytes())
        if epoch and not at_once:
            store.release("stream", epoch - 1)
            sizes[-1] = resident_bytes()
    numbers = {"one_bytes": sizes[0], "last_bytes": sizes[-1], "most_bytes": max(sizes)}
    numbers |= {"ratio": sizes[-1] / sizes[0], "most_ratio": max(sizes) / sizes[0]}
    kind = "at_once" if at_once else "epochs"
    return {"loaded_bytes": loaded_bytes} | {f"{kind}_{key}": number for key, number in numbers.items()}


def run_once(store: SegmentStore, epoch: int, graph: ModelGraph) -> None:
    """Run an epoch's segment; it may be dropped afterwards."""
    segment = store.segment_of("stream", epoch)
    if segment is not None:
        segment.run({i: noise(graph.tensors[i]) for i in segment.inputs})


def middle_of(graph: ModelGraph, draw: random.Random) -> Stage:
    """The edge's stage of a random placement, neither tiny nor empty."""
    while True:
        for stage in stages(graph, random_placement(graph, draw)):
            if stage.tier is Tier.EDGE and len(stage.blocks) >= LEAST_SHARE * len(graph):
                return stage


def third_of(graph: ModelGraph, draw: random.Random) -> Stage:
    """A third of the blocks, one after another."""
    size = max(len(graph) // 3, 1)
    begin = draw.randint(1, len(graph) - size)
    tiers = [Tier.DEVICE] * begin + [Tier.EDGE] * size + [Tier.CLOUD] * (len(graph) - begin - size)
    return next(stage for stage in stages(graph, tuple(tiers)) if stage.tier is Tier.EDGE)


def resident_bytes() -> int:
    """Of this process, libraries and mapped files among them."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def seconds_of(engine: engines.Engine, model: PreparedModel) -> dict[str, Any]:
    """Seconds to compile, and latency of the unsplit segment alone and while another thread compiles thirds."""
    began = time.perf_counter()
    segment, frame = engines.unsplit(engine, model), frame_of(model.graph)
    first_seconds = time.perf_counter() - began
    whole = [seconds(lambda: engines.unsplit(engine, model)) for _ in range(WHOLES)]
    draw = random.Random(0)
    thirds = [seconds(lambda: compile_third(engine, model, draw)) for _ in range(LEAST_THIRDS)]
    end = time.perf_counter() + ALONE_SECONDS
    alone = latencies(lambda: segment.run(frame), lambda: time.perf_counter() > end)
    ended, busy_thirds = threading.Event(), list[float]()
    compiler = threading.Thread(target=compile_on, args=(engine, model, busy_thirds, ended), name="compile")
    compiler.start()
    busy = latencies(lambda: segment.run(frame), ended.is_set)
    compiler.join()
    return {
        "first_compile_seconds": first_seconds,
        "whole_seconds_p50": statistics.median(whole),
        "third_seconds_p50": statistics.median(thirds),
        "third_seconds_p50_beside_a_run": statistics.median(busy_thirds),
        "compiled_beside_a_run": len(busy_thirds),
        "run_seconds_p50": statistics.median(alone),
        "run_ratio_p50": statistics.median(busy) / statistics.median(alone),
        "run_ratio_p95": float(np.percentile(busy, 95) / np.percentile(alone, 95)),
    }


def compile_third(engine: engines.Engine, model: PreparedModel, draw: random.Random) -> None:
    """Compile what a node in the middle would."""
    stage = third_of(model.graph, draw)
    engine.compile(model, stage.blocks, stage.inputs, stage.outputs)


def compile_on(engine: engines.Engine, model: PreparedModel, took: list[float], ended: threading.Event) -> None:
    """Compile thirds for a while, at least one; seconds of each into `took`."""
    end, draw = time.perf_counter() + COMPILING_SECONDS, random.Random(1)
    try:
        while not took or time.perf_counter() < end:
            took.append(seconds(lambda: compile_third(engine, model, draw)))
    finally:
        ended.set()


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def latencies(run: Callable[[], object], ended: Callable[[], bool]) -> list[float]:
    """Seconds of each run until it has ended, at least one."""
    found = [seconds(run)]
    while not ended():
        found.append(seconds(run))
    return found


def table_of(rows: list[dict[str, Any]]) -> Table:
    """For people; MB of memory are 10⁶ bytes."""
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "first s": lambda row: f"{row['first_compile_seconds']:.2f}",
        "whole s": lambda row: f"{row['whole_seconds_p50']:.2f}",
        "a third s": lambda row: f"{row['third_seconds_p50']:.2f}",
        "run ms": lambda row: f"{row['run_seconds_p50'] * 1e3:.1f}",
        "run slower p50": lambda row: f"{row['run_ratio_p50']:.2f}",
        "p95": lambda row: f"{row['run_ratio_p95']:.2f}",
        "one epoch MB": lambda row: f"{row['epochs_one_bytes'] / 1e6:.0f}",
        "after ten": lambda row: f"{row['epochs_last_bytes'] / 1e6:.0f}",
        "ratio": lambda row: f"{row['epochs_ratio']:.2f}",
        "most": lambda row: f"{row['epochs_most_ratio']:.2f}",
        "ten at once": lambda row: f"{row['at_once_last_bytes'] / 1e6:.0f}",
        "their ratio": lambda row: f"{row['at_once_ratio']:.2f}",
    }
    table = Table(title="Compiling: seconds, what a run beside it feels, memory over ten epochs", box=None)
    for heading in ("model", "engine"):
        table.add_column(heading, no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row["model"], row["engine"], *(cell(show, row) for show in columns.values()))
    return table


def cell(show: Callable[[dict[str, Any]], str], row: dict[str, Any]) -> str:
    """What was not measured is a dash."""
    try:
        return show(row)
    except KeyError:
        return "-"


if __name__ == "__main__":
    main()
