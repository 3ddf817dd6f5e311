"""Does anything grow, does anything get slower: a stream over three tiers, for long.

As fast as the slowest allows, or at a rate; the device has its whole network standing by, as it does by default.

After a warm-up (five minutes, or a tenth of a shorter run): resident memory, threads and file descriptors of each
process at its beginning and its end (medians over a tenth of the rest), and the latency's p99 of both ends.

    python benchmarks/soak.py --minutes 30 --json soak.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from rich.console import Console
from rich.table import Table

from broker.server import Server, ServerSettings
from nodes.cli import demo, sample_images
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config

IMAGES = 40
WARM_UP_S = 300.0
NAMES = ("planner", *map(str, demo.NODES))


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at some moment of the monotonic clock."""

    at: float
    rss_bytes: int
    threads: int
    files: int


def main() -> int:
    """Run and print; 1 when a frame was lost or came twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--rate-hz", type=float, default=0.0, help="frames a second at most; as many as there can be")
    parser.add_argument("--sample-s", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        report = soak(
            Path(temporary), arguments.model, 60.0 * arguments.minutes, arguments.sample_s, arguments.rate_hz, console
        )
    show(report, console)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if report["results"] == report["frames"] and not report["duplicates"] else 1


def soak(folder: Path, model: str, seconds: float, sample_s: float, rate_hz: float, console: Console) -> dict[str, Any]:
    """Run the pipeline for so long; returns the report."""
    with Server(ServerSettings()) as server, Processes(folder) as processes:
        path = demo.write_config(folder, model, server.port)
        settings = yaml.safe_load(path.read_text())
        settings["streams"][str(demo.STREAM)]["outputs"] = False
        path.write_text(yaml.safe_dump(settings))
        config = load_config(path)
        demo.start_nodes(processes, path, folder, console)
        with StreamClient(config, demo.STREAM) as client:
            if not client.wait(lambda: client.ready() >= set(demo.NODES) and client.active is not None, 300.0):
                raise TimeoutError("the nodes are not ready after 300 s")
            demo.split_in_three(client)
            ended = threading.Event()
            samples: dict[str, list[Sample]] = {name: [] for name in NAMES}
            pids = {name: processes.pid(name) for name in NAMES}
            sampler = threading.Thread(target=watch, args=(pids, samples, sample_s, ended), name="soak.sampler")
            began = time.monotonic()
            sampler.start()
            try:
                frames = feed(client, began + seconds, rate_hz)
            finally:
                ended.set()
                sampler.join()
    arrived = sorted((client.collected.arrivals[s], r["seconds"]) for s, r in client.collected.results.items())
    start = began + min(WARM_UP_S, seconds / 10)
    share = (began + seconds - start) / 10
    first, last = (start, start + share), (began + seconds - share, began + seconds)
    return {
        "model": model,
        "seconds": seconds,
        "rate_hz": rate_hz,
        "stands_by": "standing by" in processes.log(str(demo.DEVICE)).read_text(),
        "frames": frames,
        "results": len(client.collected.results),
        "duplicates": client.collected.duplicates,
        "frames_per_s": round(frames / seconds, 1),
        "latency_seconds_p99": {name: p99(arrived, *span) for name, span in (("first", first), ("last", last))},
        "processes": {
            name: {
                "first": middle(taken, *first),
                "last": middle(taken, *last),
                "rss_mb_by_minute": by_minute(taken, began, seconds),
            }
            for name, taken in samples.items()
        },
    }


def by_minute(taken: Sequence[Sample], began: float, seconds: float) -> list[float]:
    """Medians of resident megabytes of each minute: whether it grows on, or has settled."""
    minutes = [[s.rss_bytes for s in taken if m <= (s.at - began) / 60 < m + 1] for m in range(int(seconds // 60))]
    return [round(statistics.median(sizes) / 1e6, 1) for sizes in minutes if sizes]


def feed(client: StreamClient, until: float, rate_hz: float) -> int:
    """Keep the window full, at no more than `rate_hz` unless that is 0; returns how many frames went in."""
    images = sample_images.frames(IMAGES)
    sent = 0
    next_at = time.monotonic()
    while time.monotonic() < until:
        client.publish(images[sent % IMAGES], str(sent))
        sent += 1
        client.wait(lambda: client.in_flight < demo.WINDOW, 60.0)
        if rate_hz:
            next_at = max(next_at + 1 / rate_hz, time.monotonic() - 1.0)
            time.sleep(max(0.0, next_at - time.monotonic()))
    client.wait(lambda: client.in_flight == 0, 60.0)
    return sent


def watch(pids: dict[str, int], samples: dict[str, list[Sample]], every_s: float, ended: threading.Event) -> None:
    """Take samples of all processes until it has ended."""
    while not ended.wait(every_s):
        for name, pid in pids.items():
            process = psutil.Process(pid)
            with process.oneshot():
                rss, threads, files = process.memory_info().rss, process.num_threads(), process.num_fds()
            samples[name].append(Sample(time.monotonic(), rss, threads, files))


def middle(taken: Sequence[Sample], since: float, until: float) -> dict[str, float]:
    """Medians of a span."""
    inside = [sample for sample in taken if since <= sample.at <= until]
    return {name: statistics.median(getattr(s, name) for s in inside) for name in ("rss_bytes", "threads", "files")}


def p99(arrived: Sequence[tuple[float, float]], since: float, until: float) -> float:
    """Of the latencies of results that came in a span."""
    return float(np.percentile([seconds for at, seconds in arrived if since <= at <= until], 99))


def show(report: dict[str, Any], console: Console) -> None:
    """For people."""
    p99s = report["latency_seconds_p99"]
    table = Table(title=f"{report['model']}, {report['seconds'] / 60:.0f} minutes, {report['frames_per_s']} frames/s")
    for column in ("process", "MB", "then", "growth", "threads", "then", "files", "then"):
        table.add_column(column, justify="left" if column == "process" else "right")
    for name, ends in report["processes"].items():
        first, last = ends["first"], ends["last"]
        growth = last["rss_bytes"] / first["rss_bytes"] - 1
        memory = [f"{end['rss_bytes'] / 1e6:.1f}" for end in (first, last)]
        others = [f"{end[what]:.0f}" for what in ("threads", "files") for end in (first, last)]
        table.add_row(name, *memory, f"{growth:+.2%}", *others)
    console.print(table)
    console.print(f"{report['frames']} frames, {report['results']} results, {report['duplicates']} duplicates")
    console.print(f"latency p99 {p99s['first'] * 1e3:.1f} ms, at the end {p99s['last'] * 1e3:.1f} ms")


if __name__ == "__main__":
    raise SystemExit(main())
