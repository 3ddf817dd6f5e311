"""Device, an edge with workers, cloud: the whole plan with tiles against every baseline, each run on the same testbed.

One frame in flight, medians over frames, planners in turn. Device and cloud are behind token buckets; the coordinator
and its workers have equal shares of a core. `--slow` then keeps a full window in flight under the plan with tiles,
takes two thirds of a worker's processor away, and says how soon its tiles are balanced anew and what that does to the
throughput.

    python benchmarks/whole_plan.py vgg16 --slow --json whole.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.network import Network
from benchmarks.testbed import CLOUD, DEVICE, EDGE, Testbed
from nodes.cli import demo
from nodes.client import requests
from pipeline.errors import TrisectError

PLANNERS = (
    "exact",
    "device-only",
    "edge-only",
    "cloud-only",
    "neurosurgeon",
    "dads-light",
    "dads-heavy",
    "scission",
)
DEVICE_MBIT, CLOUD_MBIT = 85.0, 31.5
DEVICE_SHARE, CLOUD_SHARE, EDGE_SHARE = 0.2, 0.4, 0.22
WORKERS = 4
WARM_UP = 3
SETTLE_S = 15.0
SPAN_S = 10.0
PATIENCE_S = 60.0


class Bench(Testbed):
    """The testbed with its workers."""

    def __init__(
        self, model: str, folder: Path, network: Network, stack: ExitStack, record: Path | None = None
    ) -> None:
        self.workers = [f"worker-{number}" for number in range(1, WORKERS + 1)]
        nodes = {node: {"tier": node.split("-")[0]} for node in (DEVICE, EDGE, CLOUD)}
        nodes |= {worker: {"tier": "edge", "role": "worker"} for worker in self.workers}
        super().__init__(folder, network, stack, model=model, nodes=nodes, record=record)

    def begin(self) -> None:
        """All processes under their shares."""
        self.network.limit(DEVICE, DEVICE_MBIT)
        self.network.limit(CLOUD, CLOUD_MBIT)
        self.start(
            {DEVICE: DEVICE_SHARE, EDGE: EDGE_SHARE, CLOUD: CLOUD_SHARE, **dict.fromkeys(self.workers, EDGE_SHARE)}
        )

    def frames(self, count: int) -> list[float]:
        """Latencies of so many frames, one in flight."""
        known = set(self.client.collected.results)
        for _ in range(count):
            self.publish()
            self.wait(lambda: self.client.in_flight == 0)
        return [result["seconds"] for s, result in self.client.collected.results.items() if s not in known]

    def planned_by(self, planner: str, count: int) -> tuple[float, dict[str, Any]]:
        """The median latency under this planner's plan, after some frames for it to follow what it measures."""
        requests.request_plan(self.config, demo.STREAM, {"planner": planner}, timeout_s=PATIENCE_S)
        until = time.monotonic() + (SETTLE_S if planner == "exact" else 0.0)
        self.frames(WARM_UP)
        while time.monotonic() < until:
            self.frames(1)
        latency_s = statistics.median(self.frames(count))
        assert self.client.active is not None
        return latency_s, self.client.plans[self.client.active]

    def slow_a_worker(self) -> dict[str, Any]:
        """Throughput before, during and after, and seconds until other borders are active."""
        requests.request_plan(self.config, demo.STREAM, None, timeout_s=PATIENCE_S)
        self._stream(SETTLE_S)
        before = self._stream(SPAN_S)
        assert self.client.active is not None
        tiles = self.client.plans[self.client.active]["tiles"]
        if tiles is None:
            return {"tiles": None}
        worker = next(name for name in tiles["workers"] if name != EDGE)
        began = time.monotonic()
        self.quotas.limit(worker, EDGE_SHARE / 3)
        epoch = self.client.active
        while self.client.active == epoch and time.monotonic() - began < PATIENCE_S:
            self._stream(0.2)
        active_after_s = time.monotonic() - began
        during = self._rate(began, time.monotonic())
        self._stream(SETTLE_S)
        after = self._stream(SPAN_S)
        plan = self.client.plans[self.client.active or epoch]
        return {
            "slowed": worker,
            "active_after_s": active_after_s if self.client.active != epoch else None,
            "frames_per_s": {"before": before, "during": during, "after": after},
            "tiles": {"before": tiles, "after": plan["tiles"]},
            "reason": plan["reason"],
        }

    def _stream(self, seconds: float) -> float:
        """Keep the window full for so long; returns frames per second."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            self.publish()
            self.wait(lambda: self.client.in_flight < demo.WINDOW)
        return self._rate(began, time.monotonic())

    def _rate(self, since: float, until: float) -> float:
        return sum(since <= at <= until for at in self.client.collected.arrivals.values()) / (until - since)


def main() -> int:
    """Measure and print; 1 when a frame was lost or came twice, 2 when this machine cannot do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--frames", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--planners", nargs="+", choices=PLANNERS, default=PLANNERS)
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--record", type=Path, help="keep what the planner learns from here, as .jsonl.xz")
    parser.add_argument("--directory", type=Path, help="keep the logs here; it must not exist")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)
    with tempfile.TemporaryDirectory(prefix="trisect-whole-") as temporary, ExitStack() as stack:
        folder = arguments.directory or Path(temporary) / "run"
        folder.mkdir(parents=True)
        try:
            network = stack.enter_context(Network([DEVICE, CLOUD]))
            bench = Bench(arguments.model, folder, network, stack, arguments.record)
        except TrisectError as error:
            console.print(f"not measured: {error}")
            return 2
        bench.begin()
        rounds: dict[str, list[float]] = {planner: [] for planner in arguments.planners}
        plans: dict[str, dict[str, Any]] = {}
        for _ in range(arguments.repeats):
            for planner, measured in rounds.items():
                latency_s, plans[planner] = bench.planned_by(planner, arguments.frames)
                measured.append(latency_s)
        slowed = bench.slow_a_worker() if arguments.slow else None
        bench.client.wait(lambda: bench.client.in_flight == 0, PATIENCE_S)
        lost, duplicates = bench.client.in_flight, bench.client.collected.duplicates
    medians = {planner: statistics.median(values) for planner, values in rounds.items()}
    show(arguments.model, medians, plans, console)
    console.print(slowed or "", f"{bench.sent} frames, {lost} lost, {duplicates} twice")
    if arguments.json:
        predicted = {planner: plan["predicted"]["seconds"] for planner, plan in plans.items()}
        report = {"model": arguments.model, "seconds": medians, "rounds": rounds, "predicted_seconds": predicted}
        report |= {"plans": {p: described(plan) for p, plan in plans.items()}, "slowed": slowed, "frames": bench.sent}
        arguments.json.write_text(json.dumps(report | {"lost": lost, "duplicates": duplicates}, indent=2) + "\n")
    return 1 if lost or duplicates else 0


def described(plan: dict[str, Any]) -> str:
    """Which tiers, and in how many tiles."""
    tiers = "+".join(stage["tier"] for stage in plan["stages"])
    tiles = plan["tiles"]
    grid = f", {len(tiles['rows'])}x{len(tiles['columns'])} tiles of {tiles['from']}:{tiles['to']}" if tiles else ""
    return tiers + grid


def show(model: str, medians: dict[str, float], plans: dict[str, dict[str, Any]], console: Console) -> None:
    """For people."""
    first = next(iter(medians))
    table = Table(title=f"{model}: {WORKERS} workers, one frame in flight")
    for column in ("planner", "plan", "predicted ms", "measured ms", f"times {first}"):
        table.add_column(column, justify="left" if column in ("planner", "plan") else "right")
    for planner, seconds in medians.items():
        predicted = plans[planner]["predicted"]["seconds"]
        numbers = (f"{predicted * 1e3:.0f}", f"{seconds * 1e3:.0f}", f"{seconds / medians[first]:.2f}")
        table.add_row(planner, described(plans[planner]), *numbers)
    console.print(table)


if __name__ == "__main__":
    raise SystemExit(main())
