"""One frame in flight, forced over three tiers: end-to-end latency beside the unsplit model's, and where it goes.

Run: python benchmarks/latency.py [--model NAME] [--frames N] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from broker.server import Server, ServerSettings
from nodes.cli import demo, sample_images
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config

BUDGET_S = 0.015
BUDGET_BYTES_PER_S = 300e6
WARM_UP = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder, Server(ServerSettings()) as server:
        config_path = demo.write_config(Path(folder), arguments.model, server.port)
        config = load_config(config_path)
        images = sample_images.frames(arguments.frames + WARM_UP)
        with Processes(Path(folder)) as processes:
            demo.start_nodes(processes, config_path, Path(folder), console)
            with StreamClient(config, demo.STREAM) as client:
                client.wait(
                    lambda: client.ready() >= set(demo.NODES) and client.active is not None, 300, processes.check
                )
                plan = demo.split_in_three(client)
                measured = one_by_one(client, images)
            memory = {name: psutil.Process(processes.pid(name)).memory_info().rss for name in ("planner", *demo.NODES)}
        results = [client.collected.results[sequence] for sequence in sorted(client.collected.results)]
        equal, unsplit_s = demo.compare(config, results, client.collected.outputs, images)
    numbers = summary(results[WARM_UP:], measured[WARM_UP:], plan, unsplit_s)
    numbers |= {"bit_equal": equal, "frames": len(images), "resident_bytes": memory, "model": arguments.model}
    show(numbers, console)
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")


def one_by_one(client: StreamClient, images: list[bytes]) -> list[float]:
    """Seconds from publishing each frame to its result, at the client."""
    seconds = []
    for number, image in enumerate(images):
        began = time.perf_counter()
        client.publish(image, str(number))
        client.wait(lambda: client.in_flight == 0, 60)
        seconds.append(time.perf_counter() - began)
        time.sleep(0.02)
    return seconds


def summary(
    results: list[dict[str, Any]], at_client: list[float], plan: dict[str, Any], unsplit_s: float
) -> dict[str, Any]:
    """Medians over frames, of the whole and of each part, in seconds."""
    parts: dict[str, list[float]] = defaultdict(list)
    for result in results:
        for stage in result["path"]:
            for name in ("decode_seconds", "queue_seconds", "compute_seconds", "encode_seconds"):
                parts[f"{stage['tier']} {name.removesuffix('_seconds')}"].append(stage[name])
        for link, seconds in result["links"].items():
            parts[f"link {link}"].append(seconds)
    nbytes = sum(link["nbytes"] + link["result_nbytes"] for link in plan["predicted"]["links"].values())
    latency_s = statistics.median(result["seconds"] for result in results)
    return {
        "latency_seconds_p50": latency_s,
        "latency_at_client_seconds_p50": statistics.median(at_client),
        "unsplit_seconds_p50": unsplit_s,
        "transfer_bytes": nbytes,
        "budget_seconds": unsplit_s + BUDGET_S + nbytes / BUDGET_BYTES_PER_S,
        "over_unsplit_seconds": latency_s - unsplit_s,
        "predicted_seconds": plan["predicted"]["seconds"],
        "parts_seconds_p50": {name: statistics.median(values) for name, values in parts.items()},
    }


def show(numbers: dict[str, Any], console: Console) -> None:
    """For people."""
    table = Table(title=f"{numbers['model']}: one frame in flight over three tiers, medians of {numbers['frames']}")
    table.add_column("part")
    table.add_column("ms", justify="right")
    for name, seconds in numbers["parts_seconds_p50"].items():
        table.add_row(name, f"{seconds * 1e3:.2f}")
    for name in ("latency", "latency_at_client", "unsplit"):
        table.add_row(name, f"{numbers[f'{name}_seconds_p50'] * 1e3:.2f}", style="bold")
    table.add_row(f"budget for {numbers['transfer_bytes']:,} bytes", f"{numbers['budget_seconds'] * 1e3:.2f}")
    console.print(table)
    console.print({name: f"{nbytes / 1e6:.0f} MB" for name, nbytes in numbers["resident_bytes"].items()})
    console.print(f"bit-equal: {numbers['bit_equal']} of {numbers['frames']}")


if __name__ == "__main__":
    main()
