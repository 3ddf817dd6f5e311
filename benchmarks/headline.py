"""D3's five networks in its four networks, with one edge node or four: the exact plan against every baseline, live.

A case is a network, a bandwidth between edge and cloud, and a number of edge nodes. Each runs real processes, a real
broker and lines behind token buckets. By default nodes replay (`engine: replay`): they wait what a Raspberry Pi 4, an
i7 and a GPU server take (`benchmarks/headline_recording.py`), so that two cores hold them all. With `--live` they
compute, each under its share of a core, and then replay that under the same shares: how far both agree is how far
replays can be believed. A block's share of its network's seconds is as nodes profiled it; the whole is as it was in
frames, whose caches are colder than a profile's: one factor for each tier, and one for what makes the network's input.

Every planner is measured under one input rule: each may send the photo as it came, its pixels or floats, and any codec
(reading a). Baselines are measured a second time as their papers have them (reading b): the device decodes, and float32
tensors are sent as they are. Plans that are equal are one plan, and share their frames.

Finished cases are kept in the JSON, and left out the next time. `--show` prints the tables of what it has.

    python -m benchmarks.headline --recordings DIR --json headline.json
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import headline_tables
from benchmarks.network import Network
from benchmarks.planning import D3, D3_DEVICE_EDGE
from benchmarks.testbed import AS_PUBLISHED, CLOUD, DEVICE, EDGE, PATIENCE_S, Testbed
from broker import topics
from broker.session import Message
from nodes.cli import demo, sample_images
from nodes.client import requests
from nodes.protocol.messages import parse_json
from pipeline.engines.block_recording import BlockRecording, MachineTimes, read_recording
from pipeline.errors import TrisectError
from pipeline.frames.input_blocks import ADDED, DECODE, NORMALISE
from pipeline.profiling.profile import Profile

NETWORKS = ("alexnet", "resnet18", "vgg16", "darknet53", "inception_v4")
EDGES = (4, 1)
BASELINES = (
    "hpa",
    "neurosurgeon",
    "dads-light",
    "dads-heavy",
    "scission",
    "device-only",
    "edge-only",
    "cloud-only",
)
MACHINES = {"device": "raspi4", "edge": "i7", "cloud": "gpu"}
FRAMES_A_ROUND = 4
ROUNDS, SLOW_ROUNDS, MOST_ROUNDS = 3, 1, 10
SLOW_S = 0.6
"""Plans above it are measured in fewer rounds, and in the first repeat only."""
SETTLE_S = (6.0, 3.0)
"""For the exact planner to follow what it measures, in the first repeat and in later ones."""
FULL_S = 2.0
LIVE_SHARES = {"device": 0.25, "edge": 0.5, "cloud": 1.0}
"""Of a core, with `--live`: two cores do not hold nodes in the proportions of a Raspberry Pi and a GPU. In a tenth of a
core a frame takes longer to decode and to send than a small network to compute, and a kernel that accounts for quotas
by its ticks lets a few milliseconds of work pass at once after a pause.
"""
STANDBY_S = 30.0
"""A device that computes has compiled its whole network by then, which takes all of its share."""


@dataclass
class Measured:
    """A plan of a case: mean seconds of each round of frames, and what was predicted right before the last ones."""

    plan: str
    rounds: list[float] = field(default_factory=list)
    predicted_s: float = 0.0
    backbone_bytes: int = 0
    period_s: float | None = None
    predicted: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    """Medians over rounds."""
    blocks: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """By tier."""


class Bench(Testbed):
    """The testbed of one case."""

    def begin(self, mbit: float, shares: Mapping[str, float | None]) -> None:
        """All processes, with a photo stream as of one camera."""
        self.network.limit(DEVICE, D3_DEVICE_EDGE)
        self.network.limit(CLOUD, mbit)
        self.images = [path.read_bytes() for path in sorted(sample_images.PHOTOS.glob("*.jpg"))]
        self.start(shares)

    def profiles(self) -> dict[str, Profile]:
        """What the nodes have measured of themselves, by tier."""
        found: dict[str, Profile] = {}

        def take(message: Message) -> None:
            profile = Profile.from_json(parse_json(message.payload))
            found[self.nodes[message.topic.split("/")[4]]["tier"]] = profile

        self.client.session.subscribe([self.client.names.filter(topics.PROFILE)], take)
        self.wait(lambda: len(found) == len(MACHINES))
        return found

    def round(self, frames: int = FRAMES_A_ROUND) -> tuple[float, set[int]]:
        """Mean seconds of a frame, of each photo one, one in flight, and the epochs that answered them."""
        known = set(self.client.collected.results)
        self.sent = 0
        for _ in range(frames):
            self.publish()
            self.wait(lambda: self.client.in_flight == 0)
        results = [result for s, result in self.client.collected.results.items() if s not in known]
        if bad := [result["error"] for result in results if not result["ok"]]:
            raise RuntimeError(f"a frame failed: {bad[0]}")
        self.parts = parts_of(results)
        return statistics.mean(result["seconds"] for result in results), {result["epoch"] for result in results}

    def publish(self) -> None:
        """Send the next photo."""
        self.client.publish(self.images[self.sent % len(self.images)], str(self.sent))
        self.sent += 1

    def plan_for(self, request: Mapping[str, Any]) -> None:
        """Have the stream planned so, and wait until that plan is active here, too."""
        plan = requests.request_plan(self.config, demo.STREAM, request, timeout_s=PATIENCE_S)
        self.wait(lambda: self.client.active is not None and self.client.active >= plan["epoch"])

    def plan_now(self) -> dict[str, Any]:
        """The active plan, at its newest price."""
        assert self.client.active is not None
        return self.client.plans[self.client.active]


def measure_case(bench: Bench, repeats: int, slow_s: float) -> dict[str, Any]:
    """All planners in turn, `repeats` times; the exact one first. Plans above `slow_s` are measured less."""
    asked = [("exact", "a"), *((name, reading) for reading in "ab" for name in BASELINES)]
    plans: dict[str, Measured] = {}
    chosen: dict[str, str] = {}
    for repeat in range(repeats):
        fresh = {key for key, measured in plans.items() if measured.predicted_s > slow_s}
        for name, reading in asked:
            request = {"planner": name} | (AS_PUBLISHED if reading == "b" else {})
            bench.plan_for(request)
            until = time.monotonic() + (SETTLE_S[min(repeat, 1)] if name == "exact" else 0.0)
            key = described(bench.plan_now())
            while time.monotonic() < until or key not in fresh:
                bench.round(1 if bench.plan_now()["predicted"]["seconds"] > slow_s else FRAMES_A_ROUND)
                key = described(bench.plan_now())
                if time.monotonic() >= until:
                    measure(bench, plans, fresh, slow_s, is_last=repeat == repeats - 1)
                    key = described(bench.plan_now())
            chosen[f"{name} {reading}"] = key
    return {"chosen": chosen, "plans": {key: vars(measured) for key, measured in plans.items()}}


def measure(bench: Bench, plans: dict[str, Measured], fresh: set[str], slow_s: float, *, is_last: bool) -> None:
    """Rounds under the active plan, again where it changes meanwhile."""
    for _ in range(MOST_ROUNDS):
        plan, epoch = bench.plan_now(), bench.client.active
        predicted = plan["predicted"]["seconds"]
        rounds: list[float] = []
        parts: list[Mapping[str, float]] = []
        for _ in range(SLOW_ROUNDS if predicted > slow_s else ROUNDS):
            seconds, epochs = bench.round()
            if epochs != {epoch}:
                break
            rounds.append(seconds)
            parts.append(bench.parts)
        else:
            key = described(plan)
            found = plans.setdefault(key, Measured(key))
            found.rounds += rounds
            found.predicted_s = predicted
            link = plan["predicted"]["links"].get("edge_cloud")
            found.backbone_bytes = link["nbytes"] + link["result_nbytes"] if link else 0
            found.predicted = predicted_parts(plan["predicted"])
            found.parts = {name: statistics.median(part.get(name, 0.0) for part in parts) for name in parts[0]}
            found.blocks = {
                s["tier"]: [v for first, end in s["blocks"] for v in range(first, end)] for s in plan["stages"]
            }
            if is_last and predicted < SLOW_S:
                found.period_s = period(bench)
            fresh.add(key)
            return
    raise RuntimeError(f"the plan has not stayed the same for a measurement: {plan['reason']}")


def parts_of(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean seconds of computing on each node, on each way between two, and of all besides."""
    found: dict[str, float] = {}
    for result in results:
        here = {f"computes {hop['tier']}": hop["compute_seconds"] for hop in result["path"]}
        here |= {f"way {name}": seconds for name, seconds in result["links"].items()}
        here["besides"] = result["seconds"] - sum(here.values())
        for name, seconds in here.items():
            found[name] = found.get(name, 0.0) + seconds / len(results)
    return found


def predicted_parts(predicted: Mapping[str, Any]) -> dict[str, float]:
    """The same of a prediction."""
    found = {f"computes {tier}": seconds for tier, seconds in predicted["stages"].items()}
    found |= {f"way {name}": link["seconds"] for name, link in predicted["links"].items()}
    return {**found, "besides": predicted["frame_overhead_seconds"]}


def recorded(case: Mapping[str, Any], profiles: Mapping[str, Profile], replayed: Path) -> BlockRecording:
    """What nodes took in a case's frames, with the samples and the tiles of a recording, by tier."""
    recording, _ = read_recording(replayed)
    (network,) = recording.networks
    tile_factor = next(iter(network.machines.values())).tile_factor
    machines = {}
    for tier, profile in profiles.items():
        of_network, of_input = factors(case, tier, profile)
        seconds = (0.0, *(of_network * taken for taken in profile.seconds[1 + ADDED :]))
        machines[tier] = MachineTimes(
            seconds, tile_factor, of_input * profile.seconds[DECODE], of_input * profile.seconds[NORMALISE]
        )
    return BlockRecording("nodes under quotas", (replace(network, machines=machines),))


def factors(case: Mapping[str, Any], tier: str, profile: Profile) -> tuple[float, float]:
    """By how much the network's blocks took longer in frames than in the profile, and the input's: least squares."""
    stages, taken = [], []
    for plan in case["plans"].values():
        blocks = plan["blocks"].get(tier, ())
        if len(blocks) > 1:  # the frame alone takes nothing
            of_network = sum(profile.seconds[block] for block in blocks if block > ADDED)
            stages.append((of_network, sum(profile.seconds[block] for block in blocks) - of_network))
            taken.append(plan["parts"][f"computes {tier}"])
    rows, found = np.array(stages).reshape(-1, 2), np.ones(2)
    known = np.flatnonzero(rows.any(axis=0))
    if len(known):
        weights = 1 / np.array(taken)[:, None]  # each stage counts alike
        found[known], *_ = np.linalg.lstsq(rows[:, known] * weights, np.ones(len(taken)), rcond=None)
    return float(max(found[0], 0.0)), float(max(found[1], 0.0))


def period(bench: Bench) -> float:
    """Seconds between answers with a full window."""
    began, before = time.monotonic(), len(bench.client.collected.arrivals)
    while time.monotonic() - began < FULL_S:
        bench.publish()
        bench.wait(lambda: bench.client.in_flight < demo.WINDOW)
    taken = time.monotonic() - began
    answered = len(bench.client.collected.arrivals) - before
    bench.wait(lambda: bench.client.in_flight == 0)
    return taken / max(answered, 1)


def described(plan: dict[str, Any]) -> str:
    """A plan in a line: equal for equal plans."""
    parts = [f"{s['tier']} {','.join(f'{a}-{b - 1}' for a, b in s['blocks'])}" for s in plan["stages"]]
    if tiles := plan["tiles"]:
        parts.append(f"tiles {tiles['from']}:{tiles['to']} {tiles['rows']}x{tiles['columns']} on {tiles['workers']}")
    coded = [f"{t['tensor']} {t['codec']}" for t in plan["tensors"] if t.get("codec", "none") != "none"]
    return "; ".join([*parts, *coded])


def run_case(name: str, mbit: float, edges: int, asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One case on a testbed of its own; with `--live` on two, one after the other, of which the second replays."""
    source, replayed = (asked.recordings.resolve() / f"{name}.{suffix}" for suffix in ("trisect", "json"))
    workers = [f"worker-{number}" for number in range(1, edges)]
    nodes: dict[str, dict[str, Any]] = {node: {"tier": node.split("-")[0]} for node in (DEVICE, EDGE, CLOUD)}
    nodes |= {worker: {"tier": "edge", "role": "worker"} for worker in workers}

    def run(place: str, classes: Mapping[str, str], shares: Mapping[str, float], replayed: Path | None) -> Any:
        settings: dict[str, Any] = {}
        if replayed is not None:
            machines = {node: classes[given["tier"]] for node, given in nodes.items()}
            settings = {"engine": "replay", "replay": {"recording": str(replayed), "machines": machines}}
        (folder / place).mkdir()
        with ExitStack() as stack:
            network = stack.enter_context(Network([DEVICE, CLOUD]))
            kept = asked.record and asked.record / f"{name}-{mbit:g}-{edges}-{place}.jsonl.xz"
            bench = Bench(
                folder / place,
                network,
                stack,
                model=name,
                nodes=nodes,
                record=kept,
                source=str(source),
                settings=settings,
            )
            bench.begin(mbit, {node: shares.get(given["tier"]) for node, given in nodes.items()})
            if replayed is not None:
                return measure_case(bench, asked.repeats, math.inf if asked.live else SLOW_S)
            profiles = bench.profiles()
            time.sleep(STANDBY_S)
            case = measure_case(bench, asked.repeats, math.inf)
            recorded(case, profiles, asked.recordings / f"{name}.json").write(folder / "live.json")
            return case

    if not asked.live:
        return dict(run("replay", MACHINES, {}, replayed))
    tiers = {tier: tier for tier in LIVE_SHARES}
    live = run("live", tiers, LIVE_SHARES, None)
    return {**live, "replayed": run("replay", tiers, LIVE_SHARES, folder / "live.json")}


def main() -> int:
    """Run the cases that are asked for and not there yet, then print the tables; 2 when this machine cannot do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=[], help="such as vgg16/Wi-Fi/4; parts may be left out")
    parser.add_argument(
        "--recordings", type=Path, default=Path("recordings"), help="the folder of benchmarks.headline_recording"
    )
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--live", action="store_true", help="compute, under quotas of the processor")
    parser.add_argument("--record", type=Path, help="a folder for the telemetry of cases (benchmarks.recording)")
    parser.add_argument("--json", type=Path, default=Path("headline.json"))
    parser.add_argument("--show", action="store_true", help="print the tables and measure nothing")
    asked = parser.parse_args()
    found = json.loads(asked.json.read_text()) if asked.json.exists() else {}
    console = Console(width=None if sys.stdout.isatty() else 170)
    cases = [(n, net, e) for e in EDGES for net in D3 for n in NETWORKS]
    for name, net, edges in [] if asked.show else cases:
        key = f"{name}/{net}/{edges}"
        if key in found or (asked.cases and not any(set(c.split("/")) <= set(key.split("/")) for c in asked.cases)):
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="trisect-headline-") as folder:
            try:
                case = run_case(name, D3[net], edges, asked, Path(folder))
            except TrisectError as error:
                console.print(f"{key} not measured: {error}")
                return 2
        found[key] = case | {"taken_s": round(time.monotonic() - began)}
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
        console.print(headline_tables.line(key, case))
    headline_tables.show(found, console)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
