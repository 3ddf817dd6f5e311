"""Forecasts of the cost filter on recorded telemetry: what is expected a report ahead, against what is measured.

Replays what `--record` of `replan.py`, `tiles.py`, `whole_plan.py` or `headline.py` kept, without deciding anything:
plans are those of the recording. By part of a frame's way the error, as logarithm of expected over measured seconds;
*fresh* are plans before their first frame, *last* is what the report before says, for comparison; *within* is the share
of single frames that had the pipeline to themselves and lie in the interval in which nine of ten are expected.

    python -m benchmarks.forecasts tests/cases/telemetry/*.jsonl.xz
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nodes.planner.costs.block_seconds import StageSeconds
from nodes.planner.costs.cost_filter import Term
from nodes.planner.costs.transfers import legs_of
from nodes.planner.machine import events as pe
from nodes.planner.machine.planner import PlannerMachine, PlannerSettings
from nodes.protocol.messages import LegSeconds, LinkReport, NodeInfo, NodeState, Report, from_bytes, to_bytes
from nodes.protocol.reports import WHOLE, read_report
from nodes.tier.machine.events import PeerStateArrived
from pipeline.cost import INTERVAL_DEVIATIONS
from pipeline.graph import ModelGraph
from pipeline.plan import NodeId, Plan
from pipeline.profiling.profile import Profile
from pipeline.protocol_version import PROTOCOL_VERSION

LEAST_S, CLOCK_S = 1e-3, 5e-3
"""What took less is not judged; how far a frame's own seconds and the recorder's clock may differ."""
LEAST_FRAMES = 3
"""Of a plan, to judge what was expected before its first."""
PARTS = ("segment", "tile", "gather", "leg", "frame", "last", "fresh")

Line = dict[str, Any]
READERS: dict[str, Callable[[Line, bytes], pe.PlannerEvent]] = {
    "state": lambda line, raw: PeerStateArrived(from_bytes(NodeState, raw)),
    "info": lambda line, raw: pe.InfoArrived(from_bytes(NodeInfo, raw)),
    "link": lambda line, raw: pe.LinkArrived(from_bytes(LinkReport, raw)),
    "profile": lambda line, raw: pe.ProfileArrived(NodeId(line["node"]), Profile.from_json(line["payload"])),
    "model": lambda line, raw: pe.ManifestArrived(ModelGraph.from_json(line["payload"])),
    "telemetry": lambda line, raw: pe.TelemetryArrived(NodeId(line["node"]), read_report(raw)),
}


def lines(path: Path) -> Iterator[Line]:
    """A recording's lines, as in the protocol of today. All nodes were on one machine."""
    with lzma.open(path, "rt") as file:
        for line in map(json.loads, file):
            key = "version" if line["kind"] == "plan" else "protocol"
            spoken: Line = {key: PROTOCOL_VERSION} if key in line["payload"] else {}
            spoken |= {"machine": "recorded"} if line["kind"] == "info" else {}
            yield line | {"payload": line["payload"] | spoken}


@dataclass(slots=True)
class Replay:
    """A planner's machine that learns and does not decide. `errors` are logarithms by part of a frame's way."""

    machine: PlannerMachine
    errors: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    within: list[bool] = field(default_factory=list)
    _answered_at: float = -math.inf
    _last: dict[int, float] = field(default_factory=dict)
    _first: dict[int, float] = field(default_factory=dict)
    _seconds: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, path: Path) -> Replay:
        """Replay a recording from its first line to its last."""
        began = next(lines(path))["at"]
        replay = cls(PlannerMachine(PlannerSettings(settle_s=1e12, lost_after_s=1e9), started_at=began))
        for line in lines(path):
            replay.take(line)
        replay.machine.inventory.registry.learned.filter.validate()
        for epoch, expected_s in replay._first.items():
            if len(seconds := replay._seconds[epoch]) >= LEAST_FRAMES:
                replay.errors["fresh"].append(math.log(expected_s / statistics.median(seconds)))
        return replay

    def take(self, line: Line) -> None:
        """Judge a line by what is known before it, then learn from it."""
        if line["kind"] == "result" and line["payload"]["ok"]:
            self.judge_frame(line)
        elif line["kind"] == "plan":
            inventory, plan = self.machine.inventory, Plan.from_json(line["payload"])
            inventory.registry.learned.filter.validate()
            stream = inventory.streams.get(plan.stream)
            if stream is not None and (stream.plan is None or plan.epoch > stream.plan.epoch):
                inventory.hold(stream, plan)
        elif line["kind"] in READERS:
            event = READERS[line["kind"]](line, to_bytes(line["payload"]))
            if isinstance(event, pe.TelemetryArrived):
                for plan in self._plans():
                    self.judge(event.node, event.report, plan)
            self.machine.learn(event, line["at"], line["at"])

    def _plans(self) -> list[Plan]:
        return [stream.plan for stream in self.machine.inventory.streams.values() if stream.plan is not None]

    def judge(self, node: NodeId, report: Report, plan: Plan) -> None:
        """Compare a report with what was expected before it came."""
        learned = self.machine.inventory.registry.learned
        basis, tier = learned.blocks.basis(node, plan.model, plan.digest), plan.tier_of(node)
        for segment in report.segments if basis is not None and tier is not None else ():
            if segment.epoch == plan.epoch and basis is not None and tier is not None:
                foreseen = learned.blocks.stage_seconds(basis, plan, tier)
                self._note("segment", learned.computing(node, plan.model, basis, foreseen), segment.compute_seconds)
        tiles = {tile.number: tile for tile in learned.blocks.tiles(plan)}
        for tile in report.tiles:
            basis = learned.blocks.basis(tile.worker, plan.model, plan.digest)
            if tile.epoch == plan.epoch and basis is not None and tile.tile in tiles:
                seconds = tiles[tile.tile].seconds_of(learned.blocks.foreseen(basis, plan.digest))
                terms = learned.computing(tile.worker, plan.model, basis, StageSeconds(seconds))
                self._note("tile", terms, tile.compute_seconds)
        for gather in report.gathers:
            if gather.epoch == plan.epoch and plan.tiles is not None:
                self._note("gather", learned.gather(plan), gather.seconds)
        for leg in report.legs:
            if leg.epoch == plan.epoch and plan.device == node:
                self.judge_legs(leg, plan)

    def judge_legs(self, took: LegSeconds, plan: Plan) -> None:
        """Compare a frame's ways between nodes, and the whole of it."""
        learned = self.machine.inventory.registry.learned
        for leg in legs_of(plan):
            if leg.name in took.seconds and {leg.sender, leg.receiver} <= learned.first.keys():
                self._note("leg", learned.way(leg), took.seconds[leg.name])
        if WHOLE in took.seconds:
            self._note("frame", learned.frame(plan), took.seconds[WHOLE])
            if plan.epoch in self._last:
                self.errors["last"].append(math.log(self._last[plan.epoch] / took.seconds[WHOLE]))
            self._last[plan.epoch] = took.seconds[WHOLE]

    def _note(self, part: str, terms: Sequence[Term] | None, took_s: float) -> None:
        if terms is not None and took_s > LEAST_S:
            expected_s = max(self.machine.inventory.registry.learned.filter.seconds(terms), LEAST_S)
            self.errors[part].append(math.log(expected_s / took_s))

    def judge_frame(self, line: Line) -> None:
        """See whether a frame that had the pipeline to itself lies in the interval of its plan."""
        learned, result = self.machine.inventory.registry.learned, line["payload"]
        was_alone = line["at"] - result["seconds"] >= self._answered_at - CLOCK_S
        self._answered_at = line["at"]
        for plan in self._plans():
            frame, deviation = learned.frame(plan), learned.deviation(plan)
            if plan.epoch == result["epoch"] and was_alone and frame is not None and deviation is not None:
                expected_s = learned.filter.seconds(frame)
                self._first.setdefault(plan.epoch, expected_s)
                self._seconds[plan.epoch].append(result["seconds"])
                self.within.append(abs(math.log(expected_s / result["seconds"])) < INTERVAL_DEVIATIONS * deviation)


def main() -> None:
    """Replay, and print a row for each recording."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path, nargs="+", metavar="RECORDING.jsonl.xz")
    table = Table(title="errors: median, mean (number)")
    for column in ("recording", *PARTS, "within"):
        table.add_column(column, justify="left" if column == "recording" else "right")
    for path in parser.parse_args().recordings:
        replay = Replay.of(path)
        cells = [
            f"{statistics.median(map(abs, found)):.3f}, {statistics.mean(map(abs, found)):.3f} ({len(found)})"
            if (found := replay.errors[part])
            else "-"
            for part in PARTS
        ]
        inside = f"{statistics.mean(replay.within):.1%} ({len(replay.within)})" if replay.within else "-"
        table.add_row(path.name.partition(".")[0], *cells, inside)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
