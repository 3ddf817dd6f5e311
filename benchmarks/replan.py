"""Bandwidths and processors change in steps under a running stream: how soon, how smoothly and how well plans follow.

Device and cloud are network namespaces behind token buckets, the edge stands beside the broker, and each node has a
share of a core; all of that needs root. The device decodes, and float32 tensors go as they are, as in D3: of a photo of
45 kB, each of these lines carries enough for the cloud alone. One frame is in flight. After each step: seconds until
the plan that stays is active, the longest gap between results until then, and the latency under it beside that of the
old plan and of the best of several plans that are then placed by hand (the old one, each tier alone, the new one). At
the end the network goes on at constant rates with noise, and plan changes are counted; `--neighbours` are processes
that compute in bursts then.

    python benchmarks/replan.py --noise-minutes 5 --json replan.json
    python benchmarks/replan.py --steps 0 --noise-minutes 3 --neighbours 2 --record noise.jsonl.xz
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.network import Network
from benchmarks.testbed import AS_PUBLISHED, CLOUD, DEVICE, EDGE, Testbed
from nodes.cli import demo
from nodes.client import requests
from pipeline.errors import TrisectError
from pipeline.frames.input_blocks import ADDED
from pipeline.plan import Plan

MODEL = "resnet18"
NODES = (DEVICE, EDGE, CLOUD)
QUIET_S, GIVE_UP_S = 10.0, 30.0
"""A plan stays when none has followed it for so long; a step is over after so long in any case."""
CALM_S = 15.0
"""Before the first step: the device has compiled its whole network by then, as one that runs has."""
MEASURE_S = 4.0
NOISE = 0.1
BURST_S, REST_S = 2.0, 6.0
"""A noisy neighbour computes and rests for so long in the mean, each time for another."""
FIRST = 1 + ADDED
"""The network's first block, behind the frame and the blocks that make its input of it."""


@dataclass(frozen=True, slots=True)
class State:
    """Bandwidths of the device's and the cloud's line in Mbit/s, shares of a core of the three nodes."""

    device_mbit: float = 300.0
    cloud_mbit: float = 40.0
    device_share: float = 0.2
    edge_share: float = 0.6
    cloud_share: float = 0.9

    @property
    def shares(self) -> dict[str, float]:
        """By node."""
        return dict(zip(NODES, (self.device_share, self.edge_share, self.cloud_share), strict=True))


START = State()
STEPS: tuple[tuple[str, State], ...] = (
    ("edge falls to a third of its processor", replace(START, edge_share=0.2)),
    ("edge has its processor back", START),
    ("device's line falls to 10 Mbit/s", replace(START, device_mbit=10.0)),
    ("device's line is back", START),
    ("edge at a third, cloud's line at 20 Mbit/s", replace(START, edge_share=0.2, cloud_mbit=20.0)),
    ("all is back", START),
)


@dataclass(frozen=True, slots=True)
class Step:
    """What a step did, in seconds; latencies are medians."""

    name: str
    plan_before: str
    plan_after: str
    reason: str
    changes: int
    published_after_s: float
    active_after_s: float
    usual_gap_s: float
    longest_gap_s: float
    latency_before_s: float
    latency_after_s: float
    by_hand_s: dict[str, float]
    latency_old_plan_s: float
    latency_best_s: float


class Bench(Testbed):
    """The pipeline in its network, a client in the hub, and one frame in flight at any time."""

    def __init__(self, folder: Path, network: Network, stack: ExitStack, record: Path | None = None) -> None:
        nodes = {n: {"tier": n.split("-")[0]} for n in NODES}
        super().__init__(folder, network, stack, model=MODEL, nodes=nodes, record=record, plan=AS_PUBLISHED)
        self.activations: list[tuple[float, int]] = []

    def begin(self) -> None:
        """All processes, in the state of the start."""
        self.network.limit(DEVICE, START.device_mbit)
        self.network.limit(CLOUD, START.cloud_mbit)
        self.start(START.shares)

    def set(self, state: State) -> None:
        """Make it so."""
        self.network.limit(DEVICE, state.device_mbit)
        self.network.limit(CLOUD, state.cloud_mbit)
        for node, share in state.shares.items():
            self.quotas.limit(node, share)

    def note_activation(self) -> None:
        """Keep when another plan has become active."""
        active = self.client.active
        if active is not None and (not self.activations or self.activations[-1][1] != active):
            self.activations.append((time.monotonic(), active))

    def plan(self) -> Plan:
        """The active one."""
        assert self.client.active is not None
        return Plan.from_json(self.client.plans[self.client.active])

    def settle(self, since: float) -> float:
        """Wait until no plan has followed for a while; returns when the last became active (`since` if none did)."""
        while True:
            last = max([at for at, _ in self.activations if at >= since], default=since)
            now = time.monotonic()
            if now - last >= QUIET_S or now - since >= GIVE_UP_S:
                return last
            time.sleep(0.1)

    def latency(self, since: float, until: float) -> float:
        """The median latency of results that came in this span."""
        collected = self.client.collected
        inside = [r["seconds"] for s, r in collected.results.items() if since <= collected.arrivals[s] <= until]
        return statistics.median(inside) if inside else float("nan")

    def gaps(self, since: float, until: float) -> list[float]:
        """Seconds between results, of those that began or ended in this span."""
        at = sorted(self.client.collected.arrivals.values())
        return [b - a for a, b in pairwise(at) if b >= since and a <= until]

    def by_hand(self, plan: Plan | None, edge_from: str | None = None, cloud_from: str | None = None) -> float:
        """The median latency under a placement by hand: a plan's, or blocks from which on edge and cloud compute."""
        if plan is not None:
            stages = {tier.label: plan.placement.index(tier) for tier in plan.nodes if tier in plan.placement}
            edge_from, cloud_from = (str(stages[t]) if t in stages else None for t in ("edge", "cloud"))
        requests.place(self.config, demo.STREAM, edge_from=edge_from, cloud_from=cloud_from)
        time.sleep(1.0)
        began = time.monotonic()
        time.sleep(MEASURE_S)
        return self.latency(began, time.monotonic())

    def step(self, name: str, state: State) -> Step:
        """Take it, and measure what follows."""
        before_at, old = time.monotonic(), self.plan()
        time.sleep(MEASURE_S)
        began, began_ts = time.monotonic(), time.time()
        epoch = old.epoch
        self.set(state)
        active_at = self.settle(began)
        new = self.plan()
        settled = time.monotonic()
        after_s = self.latency(active_at + 0.5, settled)
        by_hand = {
            "old": self.by_hand(old),
            "device": self.by_hand(None),
            "edge": self.by_hand(None, str(FIRST)),
            "cloud": self.by_hand(None, None, str(FIRST)),
            "new": self.by_hand(new),
        }
        requests.place(self.config, demo.STREAM, auto=True)
        self.settle(time.monotonic())
        return Step(
            name=name,
            plan_before=described(old),
            plan_after=described(new),
            reason=new.reason,
            changes=sum(1 for at, e in self.activations if began <= at <= settled and e > epoch),
            published_after_s=new.created_ts - began_ts if new.epoch != epoch else 0.0,
            active_after_s=active_at - began,
            usual_gap_s=statistics.median(self.gaps(before_at, began)),
            longest_gap_s=max(self.gaps(began, active_at + 1.0)),
            latency_before_s=self.latency(before_at, began),
            latency_after_s=after_s,
            by_hand_s=by_hand,
            latency_old_plan_s=by_hand["old"],
            latency_best_s=min(by_hand.values()),
        )

    def noise(self, seconds: float, seed: int, neighbours: int) -> int:
        """Plan changes while both lines' rates vary by a tenth around those of the start, next to noisy neighbours."""
        chance, began = random.Random(seed), time.monotonic()
        others = [multiprocessing.Process(target=_neighbour, args=(n,), daemon=True) for n in range(neighbours)]
        for other in others:
            other.start()
        while time.monotonic() - began < seconds:
            for node, rate in ((DEVICE, START.device_mbit), (CLOUD, START.cloud_mbit)):
                self.network.limit(node, rate * chance.uniform(1 - NOISE, 1 + NOISE))
            time.sleep(1.0)
        for other in others:
            other.terminate()
        return sum(at >= began for at, _ in self.activations)


def _neighbour(seed: int) -> None:
    """Compute in bursts, and never end."""
    chance = random.Random(seed)
    while True:
        until = time.monotonic() + chance.expovariate(1 / BURST_S)
        while time.monotonic() < until:
            pass
        time.sleep(chance.expovariate(1 / REST_S))


def described(plan: Plan) -> str:
    """Tiers and how many blocks each has."""
    return ", ".join(f"{tier.label} {plan.placement.count(tier)}" for tier in sorted({*plan.placement}))


def main() -> int:
    """The command line; 1 when a frame was lost or came twice, 2 when this machine cannot do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise-minutes", type=float, default=5.0)
    parser.add_argument("--neighbours", type=int, default=0, help="processes that compute in bursts in the noise")
    parser.add_argument("--steps", type=int, default=len(STEPS), help="only the first of them")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--record", type=Path, help="keep what the planner learns from here, as .jsonl.xz")
    parser.add_argument("--directory", type=Path, help="keep the logs here; it must not exist")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)
    with tempfile.TemporaryDirectory(prefix="trisect-replan-") as temporary, ExitStack() as stack:
        folder = arguments.directory or Path(temporary) / "run"
        folder.mkdir(parents=True)
        try:
            bench = Bench(folder, stack.enter_context(Network([DEVICE, CLOUD])), stack, arguments.record)
        except TrisectError as error:
            console.print(f"not measured: {error}")
            return 2
        bench.begin()
        with bench.feeding(bench.note_activation):
            bench.settle(time.monotonic())
            time.sleep(CALM_S)
            steps = []
            for name, state in STEPS[: arguments.steps]:
                steps.append(bench.step(name, state))
                console.print(steps[-1])
            changes = bench.noise(60.0 * arguments.noise_minutes, seed=1, neighbours=arguments.neighbours)
        bench.client.wait(lambda: bench.client.in_flight == 0, 30.0)
        lost, duplicates = bench.client.in_flight, bench.client.collected.duplicates
    show(steps, console)
    console.print(f"{bench.sent} frames, {lost} lost, {duplicates} twice; {changes} plan changes in the noise")
    if arguments.json:
        report = {"steps": [asdict(step) for step in steps], "frames": bench.sent, "lost": lost}
        report |= {"duplicates": duplicates, "changes_in_noise": changes, "noise_minutes": arguments.noise_minutes}
        report |= {"neighbours": arguments.neighbours}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if lost or duplicates else 0


def show(steps: list[Step], console: Console) -> None:
    """For people."""
    table = Table(title=f"{MODEL}, one frame in flight; milliseconds are medians")
    for column in (
        "step",
        "plan",
        "published after s",
        "active after s",
        "usual gap",
        "longest",
        "before",
        "after",
        "old plan",
        "best",
    ):
        table.add_column(column, justify="left" if column in ("step", "plan") else "right")
    for step in steps:
        plan = f"{step.plan_before} -> {step.plan_after}" if step.plan_after != step.plan_before else step.plan_after
        times = (
            step.usual_gap_s,
            step.longest_gap_s,
            step.latency_before_s,
            step.latency_after_s,
            step.latency_old_plan_s,
            step.latency_best_s,
        )
        soon = [f"{s:.1f}" if step.changes else "-" for s in (step.published_after_s, step.active_after_s)]
        table.add_row(step.name, plan, *soon, *(f"{seconds * 1e3:.0f}" for seconds in times))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
