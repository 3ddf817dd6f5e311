"""How soon a node is ready and how much memory it takes, with its model's package at hand: medians of fresh processes.

    python benchmarks/light_nodes.py [MODEL ...] [--repeats 5] [--json rows.json]

A device node runs the whole network (the planner has no other node to choose) and answers ten photos. Ready: from the
start of its process until the broker has its state `ready`; `cpu`: the processor seconds that it had taken by then.
Memory: resident bytes after the last answer, standby and profile included. Bytecode is kept, as by `pip install` and
`make setup`, also where the environment forbids Python to write it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import yaml

from broker.server import Server, ServerSettings
from nodes.cli import demo, sample_images
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from pipeline.models import store
from pipeline.models.source import ModelSource

FRAMES = 10
PATIENCE_S = 300.0


def main() -> None:
    """Measure each model and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["mobilenet_v2", "resnet50", "vgg16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    rows = []
    for model in arguments.models:
        store.load(ModelSource(model, model))  # packed, if it is not yet
        runs = [measure(model) for _ in range(arguments.repeats + 1)][1:]  # the first one profiles
        row = {"model": model} | {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        rows.append(row)
        print(
            f"{model:14s} ready after {row['ready_s']:.2f} s (cpu {row['ready_cpu_s']:.2f} s), "
            f"first answer after {row['answer_s']:.2f} s, "
            f"{row['resident_mb']:.0f} MB resident",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(model: str) -> dict[str, float]:
    """One device node, from its start until it has answered."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trisect-light-")))
        (folder / "broker").mkdir()
        server = stack.enter_context(Server(ServerSettings(persistence_dir=folder / "broker")))
        config_path = demo.write_config(folder, model, server.port)
        settings: dict[str, Any] = yaml.safe_load(config_path.read_text())
        settings["nodes"] = {str(demo.DEVICE): settings["nodes"][str(demo.DEVICE)]}
        config_path.write_text(yaml.safe_dump(settings))
        processes = stack.enter_context(Processes(folder))
        client = stack.enter_context(StreamClient(load_config(config_path), demo.STREAM))
        processes.start("planner", ["planner", "-c", str(config_path)])
        _wait(lambda: "planner" in client.states)
        began = time.monotonic()
        arguments = ["node", "-c", str(config_path), "--id", str(demo.DEVICE), "--state-dir", str(folder / "state")]
        process = psutil.Process(processes.start(str(demo.DEVICE), arguments))
        _wait(lambda: demo.DEVICE in client.ready())
        ready_s = time.monotonic() - began
        ready_cpu_s = sum(process.cpu_times()[:2])
        _wait(lambda: client.active is not None)
        for number, image in enumerate(sample_images.frames(FRAMES)):
            client.publish(image, str(number))
            _wait(lambda number=number: client.collected.whole > number)  # type: ignore[misc]
            if number == 0:
                answer_s = time.monotonic() - began
        resident_mb = process.memory_info().rss / 1e6
        return {"ready_s": ready_s, "ready_cpu_s": ready_cpu_s, "answer_s": answer_s, "resident_mb": resident_mb}


def _wait(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError("the pipeline did not come up; see its logs")
        time.sleep(0.005)


if __name__ == "__main__":
    main()
