"""What preparing and cutting a network cost, on the TensorFlow engine, in one process and with the same threads.

Cutting: the segments of random placements, one after another, beside the unsplit prepared model. Preparing: the unsplit
prepared model beside `tf.function` on the original Keras model, and that graph with its variables frozen to constants.
All are interleaved, so that what else the machine does falls on all of them.

Run: python benchmarks/cutting.py [MODEL…] [--placements N] [--threads N] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline import engines
from pipeline.graph import ModelGraph
from pipeline.models.load import load
from pipeline.models.source import ModelSource
from pipeline.placement import Placement, Tier, stages
from pipeline.prepare.model import PreparedModel, prepare
from pipeline.tensorflow_runtime import OPTIMISERS, keras, set_up, tf

MODELS = ("mobilenet_v2", "resnet18", "vgg16")
CUT_GOAL, PREPARED_GOAL = 1.05, 1.02
SECONDS_PER_MODEL = 20.0
MOST_ROUNDS, LEAST_ROUNDS = 60, 7
FREEZE_BELOW_BYTES = 300_000_000
"""Freezing VGG-16 (553 MB) takes half a minute and five times its memory."""

Run = Callable[[], object]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--placements", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    set_up(arguments.threads)
    rows = []
    for name in arguments.models:
        rows.append(measure(name, arguments.threads, arguments.placements))
        print(json.dumps(rows[-1]), flush=True)
    show(rows, Console())
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(name: str, threads: int, placements: int) -> dict[str, Any]:
    """Ratios for one model."""
    engine = engines.create("tensorflow", threads)
    original = keras_model(name)
    graph_function = tf.function(original, autograph=False).get_concrete_function(
        *[tf.TensorSpec((1, *t.shape[1:]), t.dtype) for t in original.inputs]
    )
    model = load(ModelSource(name, name)) if is_zoo(name) else prepare(keras_model(name), name)
    frame = frame_of(model.graph)
    tensors = [tf.constant(frame[i]) for i in model.graph.inputs]
    whole = engines.unsplit(engine, model)
    runs: dict[str, Run] = {"unsplit": lambda: whole.run(frame), "function": lambda: graph_function(*tensors)}
    optimised = {"function", "frozen"}
    if model.nbytes < FREEZE_BELOW_BYTES:
        frozen = freeze(graph_function)
        runs["frozen"] = lambda: frozen(*tensors)
    crossing = {}
    for seed in range(placements):
        placement = random_placement(model.graph, random.Random(seed))
        runs[f"placement {seed}"] = chain(engine, model, placement, frame)
        crossing[f"placement {seed}"] = len(stages(model.graph, placement))
    seconds = interleaved(runs, optimised)
    unsplit_s = statistics.median(seconds["unsplit"])
    cuts = {run: ratio(seconds[run], seconds["unsplit"]) for run in crossing}
    others = {run: statistics.median(seconds[run]) for run in ("function", "frozen") if run in seconds}
    fastest = min(others, key=lambda run: others[run])
    return {
        "model": name,
        "blocks": len(model.graph),
        "rounds": len(seconds["unsplit"]),
        "unsplit_seconds": unsplit_s,
        "others_seconds": others,
        "over_fastest": max(1.0, ratio(seconds["unsplit"], seconds[fastest])),
        "cut_ratios": list(cuts.values()),
        "cut_stages": list(crossing.values()),
    }


def chain(
    engine: engines.Engine, model: PreparedModel, placement: Placement, frame: Mapping[int, engines.Array]
) -> Run:
    """Runs the stages one after another; each is given only what it would receive."""
    segments = []
    for stage in stages(model.graph, placement):
        inputs = model.graph.inputs if stage.tier is Tier.DEVICE else stage.inputs
        segments.append(engine.compile(model, stage.blocks, inputs, stage.outputs))

    def run() -> dict[int, engines.Array]:
        known = dict(frame)
        for segment in segments:
            known.update(segment.run(known))
        return known

    return run


def interleaved(runs: Mapping[str, Run], optimised: set[str]) -> dict[str, list[float]]:
    """Seconds of each, one round after another, each round in another order.

    The optimised are run with TensorFlow's own choice of graph optimisers, not with that which keeps cuts exact.
    """
    names, seconds = list(runs), {name: list[float]() for name in runs}
    for name, run in runs.items():
        choose_optimisers(own=name in optimised)
        run()
    began = time.perf_counter()
    for number in range(MOST_ROUNDS):
        if number >= LEAST_ROUNDS and time.perf_counter() - began > SECONDS_PER_MODEL:
            break
        random.Random(number).shuffle(names)
        for name in names:
            choose_optimisers(own=name in optimised)
            start = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def choose_optimisers(*, own: bool) -> None:
    """For the calls that follow. Asking for the call options once keeps their making out of the measurement."""
    from tensorflow.python.eager import context

    tf.config.optimizer.set_experimental_options(dict.fromkeys(OPTIMISERS, own))
    context.context().function_call_options  # noqa: B018


def ratio(seconds: list[float], base: list[float]) -> float:
    """Of medians."""
    return statistics.median(seconds) / statistics.median(base)


def is_zoo(name: str) -> bool:
    """Whether `load` knows it; what it does not is taken from keras.applications by its class's name."""
    from pipeline.models import ZOO

    return name in ZOO or name.endswith(".keras")


def keras_model(name: str) -> Any:
    """The model as Keras builds it, random weights."""
    from importlib import import_module

    from pipeline.models import ZOO

    if name.endswith(".keras"):
        return keras.saving.load_model(name, compile=False)
    if name not in ZOO:
        return getattr(keras.applications, name)(weights=None)
    module, function = ZOO[name].build.split(":")
    made = keras.applications if module == "keras.applications" else import_module(module)
    return getattr(made, function)(weights=None, input_shape=ZOO[name].input_shape, classes=ZOO[name].classes)


def freeze(function: Any) -> Any:
    """The graph with constants for variables."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function)


def random_placement(graph: ModelGraph, draw: random.Random) -> Placement:
    """Monotone along the edges, otherwise free: branches may stand on different tiers; never on one tier alone."""
    while True:
        pace, tiers = draw.random() * 2 / len(graph), [Tier.DEVICE]
        for block in graph.blocks[1:]:
            least = max((tiers[graph.producer[t]] for t in block.inputs), default=Tier.DEVICE)
            tiers.append(Tier(min(least + (draw.random() < pace) + (draw.random() < pace), Tier.CLOUD)))
        if len(set(tiers[1:])) > 1:
            return tuple(tiers)


def frame_of(graph: ModelGraph) -> dict[int, engines.Array]:
    """Random inputs."""
    draw, made = np.random.default_rng(0), {}
    for i in graph.inputs:
        tensor = graph.tensors[i]
        is_float = np.dtype(tensor.dtype).kind == "f"
        values = draw.standard_normal(tensor.shape) if is_float else draw.integers(0, 4, tensor.shape)
        made[i] = values.astype(tensor.dtype)
    return made


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """For people."""
    table = Table(title="Cost of preparing and of cutting (medians of interleaved runs)")
    for column in ("model", "blocks", "unsplit ms", "tf.function ms", "frozen ms", "unsplit / fastest", "cut", "worst"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        others = row["others_seconds"]
        table.add_row(
            row["model"],
            str(row["blocks"]),
            f"{row['unsplit_seconds'] * 1e3:.1f}",
            f"{others['function'] * 1e3:.1f}",
            f"{others['frozen'] * 1e3:.1f}" if "frozen" in others else "-",
            f"{row['over_fastest']:.3f}",
            f"{statistics.median(row['cut_ratios']):.3f}",
            f"{max(row['cut_ratios']):.3f}",
        )
    console.print(table)
    cuts = [ratio_ for row in rows for ratio_ in row["cut_ratios"]]
    console.print(f"cutting: median {statistics.median(cuts):.3f} (goal {CUT_GOAL}), worst {max(cuts):.3f}")
    prepared = [row["over_fastest"] for row in rows]
    console.print(f"prepared over fastest: {', '.join(f'{x:.3f}' for x in prepared)} (goal {PREPARED_GOAL})")


if __name__ == "__main__":
    main()
