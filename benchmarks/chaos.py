"""Random faults on a pipeline of real processes, over two streams: what was lost, doubled or wrong, and for how long.

`camera` takes frames over MQTT, `folder` is the device's own source; both run on all three tiers. After each fault the
pipeline gets time to come back, so that a gap belongs to one fault. Lost frames of `folder` are holes in the order of
its images, which go round; at the end the device stops in order and answers what it has. Nodes reach the broker
through lines that can be cut.

    python benchmarks/chaos.py --faults 100 --seed 1 --json chaos.json
    python benchmarks/chaos.py --faults 100 --seed 1 --bridge --disk
    python benchmarks/chaos.py --sum one.json other.json

Most of a fault's time is a wait for a clock or a timeout: several runs, each with a pipeline of its own, share a
machine well. SIGTERM ends a run after its present fault, with its report.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.chaos_faults import BRIDGE_KINDS, DISK_BYTES, DISK_KINDS, FOLDER, IMAGES, KINDS, NODES, FaultyPipeline
from benchmarks.line import Line
from broker.server import Server, ServerSettings
from broker.settings import Bridge
from nodes.cli import demo
from nodes.client import requests
from nodes.client.processes import Processes
from pipeline.plan import StreamId


class Chaos(FaultyPipeline):
    """A run of faults, and what came of both streams."""

    def publish_until(self, ended: threading.Event) -> None:
        """Frames for `camera`, as fast as `rate_hz`, with at most twice the window unanswered."""
        client = self.clients[demo.STREAM]
        while not ended.wait(1 / self.rate_hz):
            if client.in_flight < 2 * demo.WINDOW:
                client.publish(self.images[self.sent % IMAGES], str(self.sent))
                self.sent += 1

    def run(self, kinds: Sequence[str], ended_early: threading.Event) -> None:
        """All faults, or those until it shall end early, then the end of both streams."""
        for name in ("planner", *NODES):
            self.start(name)
        self.wait("start", lambda: all(c.ready() >= set(demo.NODES) and c.active for c in self.clients.values()))
        self.place()
        ended = threading.Event()
        publisher = threading.Thread(target=self.publish_until, args=(ended,), name="chaos.publisher")
        publisher.start()
        try:
            for kind in kinds:
                if ended_early.is_set():
                    break
                self.fault(kind)
        finally:
            ended.set()
            publisher.join()
        camera = self.clients[demo.STREAM]
        answered = lambda: len({r["correlation"] for r in camera.collected.results.values()}) >= self.sent  # noqa: E731
        camera.wait(answered, 60.0)
        self.processes.stop(str(demo.DEVICE))
        time.sleep(1.0)

    def report(self) -> dict[str, Any]:
        """Counts for each stream, and for each kind of fault the longest gap between results in each of its times.

        Of killed processes also how much of that gap came after they were started again.
        """
        streams = {str(stream): self._stream_report(stream) for stream in self.clients}
        arrivals = [sorted(client.collected.arrivals.values()) for client in self.clients.values()]
        gaps: dict[str, list[float]] = {}
        restarts: dict[str, list[float]] = {}
        for fault in self.faults:
            pairs = [(a, b) for at in arrivals for a, b in pairwise(at) if fault.began <= (a + b) / 2 < fault.ended]
            a, b = max(pairs, key=lambda pair: pair[1] - pair[0], default=(0.0, 0.0))
            gaps.setdefault(fault.kind, []).append(round(b - a, 2))
            if fault.restarted is not None:
                restarts.setdefault(fault.kind, []).append(round(b - max(a, fault.restarted), 2))
        kinds = Counter(fault.kind for fault in self.faults)
        done = {"faults": len(self.faults), "kinds": dict(kinds), "plans_refused": self.refused_total}
        return {**done, "streams": streams, "gap_seconds": gaps, "seconds_after_restart": restarts}

    def _stream_report(self, stream: StreamId) -> dict[str, Any]:
        collected = self.clients[stream].collected
        results = [collected.results[sequence] for sequence in sorted(collected.results)]
        if stream == FOLDER:
            numbers = [int(result["source"][:3]) for result in results]
            steps = [(b - a) % IMAGES for a, b in pairwise(numbers)]
            lost, again = sum(step - 1 for step in steps if step > 1), steps.count(0)
            frames_in = len(results) + lost - again
        else:
            names = Counter(int(result["correlation"]) for result in results)
            numbers = [int(result["correlation"]) % IMAGES for result in results]
            frames_in, lost, again = self.sent, self.sent - len(names), names.total() - len(names)
        named = [{**r, "correlation": number} for r, number in zip(results, numbers, strict=True)]
        equal, _ = demo.compare(self.config, named, collected.outputs, self.images)
        return {
            "frames_in": frames_in,
            "results": len(results),
            "lost": lost,
            "duplicates": again + collected.duplicates,
            "errors": sum(not result["ok"] for result in results),
            "bit_equal": equal,
        }


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own, in memory. Needs root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _brokers(stack: ExitStack, folder: Path, *, is_bridged: bool) -> tuple[Server, dict[str, Line]]:
    """The broker, and the lines to it; the cloud's own one behind a bridge, whose line is among them."""
    settings = ServerSettings(persistence_dir=folder / "broker")
    if not is_bridged:
        server = stack.enter_context(Server(settings))
        return server, {name: stack.enter_context(Line(server.host, server.port)) for name in NODES}
    (folder / "far").mkdir()
    far = stack.enter_context(Server(ServerSettings(persistence_dir=folder / "far")))
    line = stack.enter_context(Line(far.host, far.port))
    bridge = Bridge(line.address.host, line.address.port)
    server = stack.enter_context(Server(replace(settings, bridge=bridge)))
    ends = {name: far if name == str(demo.CLOUD) else server for name in NODES}
    lines = {name: stack.enter_context(Line(end.host, end.port)) for name, end in ends.items()}
    return server, {**lines, "bridge": line}


def run(
    kinds: Sequence[str],
    seed: int,
    folder: Path,
    *,
    scale: float = 1.0,
    is_bridged: bool = False,
    rate_hz: float = 4.0,
    ended_early: threading.Event | None = None,
) -> Mapping[str, Any]:
    """These faults, in `folder`; returns the report, with `ended` saying why it ended early if it did."""
    (folder / "broker").mkdir(parents=True)
    with ExitStack() as stack:
        if any(kind in DISK_KINDS for kind in kinds):
            stack.enter_context(small_disk(folder / "state"))
        server, lines = _brokers(stack, folder, is_bridged=is_bridged)
        processes = stack.enter_context(Processes(folder))
        chaos = Chaos(folder, server, processes, lines, seed, scale, rate_hz)
        for client in chaos.clients.values():
            stack.enter_context(client)
        ended = ""
        try:
            chaos.run(kinds, ended_early or threading.Event())
        except (TimeoutError, requests.RequestRefused) as error:
            ended = str(error)
        processes.stop()
        return {"seed": seed, **chaos.report(), "ended": ended}


def summed(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several runs' reports as one: counts added, gaps by kind with how often, their median and the longest."""
    streams: dict[str, Counter[str]] = {}
    gaps: dict[str, list[float]] = {}
    for report in reports:
        for name, counts in report["streams"].items():
            streams.setdefault(name, Counter()).update(counts)
        for kind, seconds in report["gap_seconds"].items():
            gaps.setdefault(kind, []).extend(seconds)
    return {
        "faults": sum(report["faults"] for report in reports),
        "plans_refused": sum(report["plans_refused"] for report in reports),
        "streams": {name: dict(counts) for name, counts in streams.items()},
        "gaps": {
            kind: {"times": len(of), "median_s": round(statistics.median(of), 2), "longest_s": max(of)}
            for kind, of in sorted(gaps.items())
        },
        "ended": "; ".join(report["ended"] for report in reports if report["ended"]),
    }


def holds(report: Mapping[str, Any]) -> bool:
    """Whether all went through, nothing was lost, nothing came twice, and every output is the unsplit model's."""
    return not report["ended"] and all(
        stream["results"]
        and stream["frames_in"] == stream["results"] == stream["bit_equal"]
        and not stream["duplicates"]
        for stream in report["streams"].values()
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate-hz", type=float, default=4.0, help="frames a second of each stream; 4")
    parser.add_argument("--only", help="kinds that begin with this")
    parser.add_argument("--bridge", action="store_true", help="the cloud at a broker of its own, behind a bridge")
    parser.add_argument("--disk", action="store_true", help="state in a small file system of its own; needs root")
    parser.add_argument("--sum", type=Path, nargs="+", help="print the sum of these reports, and run nothing")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--directory", type=Path, help="keep the logs here; it must not exist")
    arguments = parser.parse_args()
    if arguments.sum:
        report: Mapping[str, Any] = summed([json.loads(path.read_text()) for path in arguments.sum])
        print(json.dumps(report, indent=2))
        return 0 if holds(report) else 1
    known = KINDS + BRIDGE_KINDS * arguments.bridge + DISK_KINDS * arguments.disk
    chosen = [kind for kind in known if kind.startswith(arguments.only or "")]
    kinds = [chosen[number % len(chosen)] for number in range(arguments.faults)]
    random.Random(arguments.seed).shuffle(kinds)
    ended_early = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended_early.set())
    with tempfile.TemporaryDirectory(prefix="trisect-chaos-") as temporary:
        folder = arguments.directory or Path(temporary) / "run"
        report = run(
            kinds,
            arguments.seed,
            folder,
            is_bridged=arguments.bridge,
            rate_hz=arguments.rate_hz,
            ended_early=ended_early,
        )
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    return 0 if holds(report) else 1


if __name__ == "__main__":
    sys.exit(main())
