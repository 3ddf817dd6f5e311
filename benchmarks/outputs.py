"""Outputs of a megabyte on their way back to the device over a slow line, as they are and coded as the plan says.

    python -m benchmarks.outputs [--mbit-s 20 85] [--frames 10]     as root

A small network over pictures, seeded, whose output is a map: features behind a ReLU, or a softmax for each place, as
detectors and segmenters without a task have them. A device in a network namespace behind a token bucket, the edge on
the broker's machine; frames travel as they came and the network is pinned to the edge, so that the two plans differ in
the output's codec alone. One frame in flight, the plans in turn, four times; medians, also of the plans' predictions.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.network import Network
from benchmarks.testbed import DEVICE, EDGE, Testbed
from nodes.cli import demo
from nodes.client import requests

SIDE, CLASSES, WARM_UP, ROUNDS = 224, 21, 2, 4
KINDS = ("features behind a ReLU", "scores of a softmax")


def main() -> None:
    """Measure, and print a row for each output and line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mbit-s", type=float, nargs="+", default=[20.0, 85.0])
    parser.add_argument("--frames", type=int, default=6)
    asked = parser.parse_args()
    print("| output | line, Mbit/s | codec | kB back | predicted ms | measured ms | its way back, ms | times |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in KINDS:
        for mbit_s in asked.mbit_s:
            with tempfile.TemporaryDirectory(prefix="trisect-outputs-") as folder:
                print(f"| {kind} | {mbit_s:g} | {' | '.join(_measured(Path(folder), kind, mbit_s, asked.frames))} |")


def _measured(folder: Path, kind: str, mbit_s: float, frames: int) -> Iterator[str]:
    source = _network(folder, kind)
    with ExitStack() as stack:
        network = stack.enter_context(Network([DEVICE]))
        network.limit(DEVICE, mbit_s)
        nodes = {DEVICE: {"tier": "device"}, EDGE: {"tier": "edge"}}
        settings = {"models": {"maps": {"source": str(source), "preprocess": {"size": [SIDE, SIDE], "mode": "unit"}}}}
        bench = Testbed(folder, network, stack, model="maps", nodes=nodes, source=str(source), settings=settings)
        bench.start({DEVICE: None, EDGE: None})
        plans: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        seconds: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for _ in range(ROUNDS):
            for is_coded, taken in seconds.items():
                pinned = {"pin": {"frame_decode": "edge", "last": "edge"}}
                plan_request = {"codecs": is_coded, "constraints": pinned}
                requests.request_plan(bench.config, demo.STREAM, plan_request)
                taken.extend([_answered(bench) for _ in range(WARM_UP + frames)][WARM_UP:])
                assert bench.client.active is not None
                plans[is_coded].append(bench.client.plans[bench.client.active])
    yield from _row(plans, seconds)


def _answered(bench: Testbed) -> tuple[float, float]:
    """Seconds of a frame on its own, from its entry to its answer, and those of the answer's way back."""
    known = bench.client.collected.results.keys() | set[int]()
    bench.publish()
    bench.wait(lambda: bench.client.in_flight == 0)
    (result,) = (r for sequence, r in bench.client.collected.results.items() if sequence not in known)
    return float(result["seconds"]), float(result["links"]["return"])


def _row(plans: dict[bool, list[dict[str, Any]]], seconds: dict[bool, list[tuple[float, float]]]) -> Iterator[str]:
    (output,) = plans[True][-1]["results"]
    links = [plans[is_coded][-1]["predicted"]["links"]["device_edge"] for is_coded in (False, True)]
    predicted = (
        statistics.median(plan["predicted"]["seconds"] for plan in plans[is_coded]) for is_coded in (False, True)
    )
    yield output["codec"]
    yield " → ".join(f"{link['result_nbytes'] / 1e3:,.0f}" for link in links)
    frames, ways = (
        [statistics.median(taken[part] for taken in seconds[is_coded]) for is_coded in (False, True)] for part in (0, 1)
    )
    for medians in (predicted, frames, ways):
        yield " → ".join(f"{median_s * 1e3:.0f}" for median_s in medians)
    yield f"{frames[0] / frames[1]:.2f}"


def _network(folder: Path, kind: str) -> Path:
    """Three convolutions down, two up, and a map of 112 x 112 places."""
    from pipeline.tensorflow_runtime import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((SIDE, SIDE, 3))
    x = image
    for filters in (16, 32, 32):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    for filters in (32, 32):
        x = layers.UpSampling2D()(layers.Conv2D(filters, 3, padding="same", activation="relu")(x))
    if kind == KINDS[0]:
        x = layers.Conv2D(24, 3, padding="same", activation="relu", name="last")(x)
    else:
        # seeded weights give nearly the same to all classes, trained ones do not
        x = layers.Softmax(name="last")(layers.Rescaling(200.0)(layers.Conv2D(CLASSES, 1)(x)))
    path = folder / "maps.keras"
    keras.Model(image, x).save(path)
    return path


if __name__ == "__main__":
    main()
