"""Profiling in situ beside Scission's procedure, in which each block is built and run on its own, ten times.

Scission's blocks are the ranges of Keras layers that it published times of; each becomes a Keras model, is saved,
loaded, and run with `predict`, which today takes 40 ms before it computes and in 2020 did not, so that
`predict_on_batch` is measured too. Beside it, as the comparison of block with block: trisect's own blocks, each
compiled alone by the same engine. Loading the network is in none of the times.

Run: python benchmarks/profile_models.py [MODEL ...] [--threads N] [--scission DIR] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline import engines
from pipeline.engines import Engine
from pipeline.engines.checks import noise
from pipeline.models import lookup
from pipeline.models.load import load
from pipeline.models.source import ModelSource
from pipeline.prepare.model import PreparedModel

REPEATS = 10
CALLS: dict[str, dict[str, Any]] = {"predict_on_batch": {}, "predict": {"verbose": 0}}
SCISSION = Path("../shared/data/scission")
NOTABLE = 0.002
"""Of the whole: shorter blocks are within what starting an operation takes, and are left out of the median."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["resnet50", "vgg16", "inception_v3"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--scission", type=Path, default=SCISSION, help="where its published times are")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    engine = engines.create("tensorflow", arguments.threads)
    published = json.loads((arguments.scission / "device-raspi4.json").read_text())["models"]
    ends = {name: [piece["last_layer"] for piece in published[name]] for name in arguments.models}
    found = {name: compare(engine, load(ModelSource(name, name)), ends[name]) for name in arguments.models}
    Console(width=None if sys.stdout.isatty() else 140).print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def compare(engine: Engine, model: PreparedModel, ends: list[int]) -> dict[str, Any]:
    """All procedures on one model."""
    engine.profile(model, 1)  # TensorFlow's profiler loads itself once in a process
    began = time.perf_counter()
    times = engine.profile(model, REPEATS)
    in_situ_s = time.perf_counter() - began
    began = time.perf_counter()
    alone = one_by_one(engine, model)
    alone_s = time.perf_counter() - began
    found = {
        "our blocks": difference(
            list(zip(times.seconds[1:], alone, strict=True)), times.total_seconds, alone_s, in_situ_s
        )
    }
    block_of = {name: block.index for block in model.graph.blocks for name in block.layers}
    for call in CALLS:
        scission, scission_s = scission_procedure(model.graph.name, ends, call)
        pairs = [
            (sum(times.seconds[i] for i in {block_of[name] for name in layers if name in block_of}), seconds)
            for layers, seconds in scission
        ]
        found[f"Scission, {call}"] = difference(pairs, times.total_seconds, scission_s, in_situ_s)
    return {
        "blocks": len(model.graph),
        "whole_seconds": times.total_seconds,
        "in_situ_seconds": in_situ_s,
        "against": found,
    }


def difference(pairs: list[tuple[float, float]], whole_s: float, taken_s: float, in_situ_s: float) -> dict[str, float]:
    """Of (in situ, other procedure) seconds per block, and how long the other procedure took."""
    notable = [(own, other) for own, other in pairs if max(own, other) > NOTABLE * whole_s]
    return {
        "blocks": len(pairs),
        "seconds": taken_s,
        "times_slower": taken_s / in_situ_s,
        "sum_seconds": sum(other for _, other in pairs),
        "median_difference": statistics.median(abs(other / own - 1) if own else 1.0 for own, other in notable),
    }


def scission_procedure(name: str, ends: list[int], call: str) -> tuple[list[tuple[list[str], float]], float]:
    """The layers' names and mean seconds of each of Scission's blocks; and how long it took to get them."""
    from pipeline.tensorflow_runtime import keras

    keras.utils.clear_session()  # layers are numbered from the start, as in the prepared model
    make = getattr(keras.applications, lookup(name).build.split(":")[1])
    network = make(weights=None)
    began = time.perf_counter()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        layers = network.layers
        for first, last in zip([0, *ends], ends, strict=False):
            path = Path(folder) / "block.keras"
            keras.Model(layers[first].output, layers[last].output).save(path)
            block = keras.saving.load_model(path, compile=False)
            frame = np.random.default_rng(0).standard_normal((1, *layers[first].output.shape[1:])).astype(np.float32)
            seconds = timed(lambda block=block, frame=frame: getattr(block, call)(frame, **CALLS[call]))
            found.append(([layer.name for layer in layers[first + 1 : last + 1]], float(np.mean(seconds[1:]))))
    return found, time.perf_counter() - began


def timed(run: Callable[[], object]) -> list[float]:
    """Seconds of a first run and ten more."""
    seconds = []
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return seconds


def one_by_one(engine: Engine, model: PreparedModel) -> list[float]:
    """Median seconds of each block but the input, built by itself and run on noise."""
    found = []
    for block in model.graph.blocks[1:]:
        inputs = tuple(dict.fromkeys(block.inputs))
        segment = engine.compile(model, (block.index,), inputs, block.outputs)
        frame = {i: noise(model.graph.tensors[i]) for i in inputs}
        seconds = timed(lambda segment=segment, frame=frame: segment.run(frame))[1:]
        found.append(float(np.median(seconds)))
    return found


def table(found: dict[str, Any]) -> Table:
    """Rows per model: our blocks one by one, and Scission's own procedure."""
    view = Table(title="profiling in situ, and block by block")
    for name in ("model", "whole ms", "in situ s", "against", "blocks", "took s", "times slower", "sum ms"):
        view.add_column(name, justify="left" if name in {"model", "against"} else "right")
    view.add_column("block differs (median)", justify="right")
    for name, row in found.items():
        for label, other in row["against"].items():
            view.add_row(
                name,
                f"{row['whole_seconds'] * 1e3:.1f}",
                f"{row['in_situ_seconds']:.1f}",
                label,
                str(other["blocks"]),
                f"{other['seconds']:.1f}",
                f"{other['times_slower']:.1f}",
                f"{other['sum_seconds'] * 1e3:.1f}",
                f"{other['median_difference']:.0%}",
            )
    return view


if __name__ == "__main__":
    main()
