"""Frames a second of the plan for throughput against the best of cuts placed by hand, on this machine's cores.

A device, an edge and a cloud node with a thread each share the machine, with 4 frames in flight. By hand: where device,
edge and cloud begin, at even shares of the multiply-accumulates, by two or three nodes. Each cut has a first look; then
the best ones and the plan's own placement take turns, the plan first and last. Before all that the plan is measured
right after the start, when profiles are all that it was made with. Ratios are of one run.

    python -m benchmarks.hand_cuts resnet50 --cuts 20 --seconds 8
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

from broker.server import Server, ServerSettings
from nodes.cli import demo, sample_images
from nodes.client import requests
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from pipeline.graph import ModelGraph
from pipeline.models.graphs import shipped_graph

IN_FLIGHT = 4
PATIENCE_S = 300.0
WARM_UP_S = 2.0
SETTLE_S = 20.0
FINALISTS = 3

Cut: TypeAlias = tuple[str | None, str | None]
"""Where the edge begins, and where the cloud does."""


class Bench:
    """The pipeline, with the plan for throughput or one by hand."""

    def __init__(self, model: str, stack: ExitStack) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trisect-hand-")))
        (folder / "broker").mkdir()
        server = stack.enter_context(Server(ServerSettings(persistence_dir=folder / "broker")))
        path = demo.write_config(folder, model, server.port)
        self.config = load_config(path)
        self.processes = stack.enter_context(Processes(folder))
        self.client = stack.enter_context(StreamClient(self.config, demo.STREAM))
        self.images = sample_images.frames(8, seed=1)
        self.sent = 0
        self.processes.start("planner", ["planner", "-c", str(path)])
        for node in map(str, demo.NODES):
            self.processes.start(node, ["node", "-c", str(path), "--id", node, "--state-dir", str(folder / "state")])
        self._wait(lambda: self.client.ready() >= set(self.config.nodes) and self.client.active is not None)

    def by_planner(self, seconds: float, settle_s: float) -> float:
        """Frames a second under the plan for throughput, after frames from which the planner learns."""
        requests.request_plan(self.config, demo.STREAM, {"objective": "throughput"}, timeout_s=PATIENCE_S)
        self._stream(settle_s)
        return self._stream(seconds)

    def by_hand(self, cut: Cut, seconds: float) -> float:
        """Frames a second of a cut."""
        edge_from, cloud_from = cut
        requests.place(self.config, demo.STREAM, edge_from=edge_from, cloud_from=cloud_from, timeout_s=PATIENCE_S)
        self._stream(WARM_UP_S)
        return self._stream(seconds)

    def described(self) -> str:
        """The active plan: where each tier begins, and why."""
        assert self.client.active is not None
        plan: dict[str, Any] = self.client.plans[self.client.active]
        stages = ", ".join(f"{stage['tier']} from {stage['first']}" for stage in plan["stages"])
        return f"epoch {plan['epoch']}, {stages}; {plan['reason']}"

    def _stream(self, seconds: float) -> float:
        began, before = time.monotonic(), len(self.client.collected.results)
        while time.monotonic() - began < seconds:
            self._wait(lambda: self.client.in_flight < IN_FLIGHT)
            self.client.publish(self.images[self.sent % len(self.images)], str(self.sent))
            self.sent += 1
        took_s = time.monotonic() - began
        return (len(self.client.collected.results) - before) / took_s

    def _wait(self, condition: Any) -> None:
        if not self.client.wait(condition, PATIENCE_S, self.processes.check):
            raise TimeoutError("the pipeline did not answer")


def cuts_by_hand(graph: ModelGraph, count: int) -> list[Cut]:
    """Single nodes and cuts at even shares of the work: device and edge, device and cloud, all three."""
    work, names, passed = sum(block.macs for block in graph.blocks), [], 0
    shares = iter(range(1, 8))
    due = next(shares)
    for block in graph.blocks:
        passed += block.macs
        if passed * 8 >= due * work:
            names.append(block.name)
            due = next(shares, 9)
    return list(_cuts(graph.blocks[1].name, names))[:count]


def _cuts(first: str, names: list[str]) -> Iterator[Cut]:
    yield from ((None, None), (first, None), (None, first))
    for step in (3, 4, 2, 5, 1, 6):  # both cores at work: near halves first
        yield names[step], None
        yield None, names[step]
    for lower, upper in ((1, 4), (2, 4), (2, 5), (1, 5), (3, 5), (1, 3), (0, 3), (0, 4)):
        yield names[lower], names[upper]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="resnet50")
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with ExitStack() as stack:
        bench = Bench(asked.model, stack)
        at_first = bench.by_planner(asked.seconds, WARM_UP_S)
        print(f"plan right after the start: {at_first:.2f} frames/s; {bench.described()}", flush=True)
        own = [bench.by_planner(asked.seconds, SETTLE_S)]
        print(f"plan: {own[0]:.2f} frames/s; {bench.described()}", flush=True)
        looks = {}
        for cut in cuts_by_hand(shipped_graph(asked.model), asked.cuts):
            looks[cut] = bench.by_hand(cut, asked.seconds / 2)
            print(f"edge from {cut[0]}, cloud from {cut[1]}: {looks[cut]:.2f}", flush=True)
        finalists = sorted(looks, key=lambda cut: -looks[cut])[:FINALISTS]
        hand: dict[Cut, list[float]] = {cut: [] for cut in finalists}
        for _ in range(asked.rounds):
            for cut in finalists:
                hand[cut].append(bench.by_hand(cut, asked.seconds))
            own.append(bench.by_planner(asked.seconds, WARM_UP_S))
        best = max(hand, key=lambda cut: statistics.median(hand[cut]))
        by_plan, by_hand = statistics.median(own[1:]), statistics.median(hand[best])
        print(f"plan: {', '.join(f'{rate:.2f}' for rate in own)} frames/s; {bench.described()}")
        print(f"best by hand, edge from {best[0]}, cloud from {best[1]}: {', '.join(f'{r:.2f}' for r in hand[best])}")
        print(f"{by_plan / by_hand:.2f} of the best of {len(looks)} cuts by hand")
        print(f"{at_first / by_hand:.2f} of it right after the start")


if __name__ == "__main__":
    main()
