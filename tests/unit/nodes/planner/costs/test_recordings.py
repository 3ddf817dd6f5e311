"""What the filter expects of recorded telemetry, a report ahead, in `benchmarks/replan.py`, `tiles.py`, `headline.py`.

Errors are logarithms of expected over measured seconds; `BEFORE` is what the rules that the filter replaced had on the
same reports. All were recorded on two cores that up to 60 processes shared: `replan` and `replan_loaded` are of steps
in load and links, `noise` of a steady pipeline with noisy neighbours, `tiles` of tiles under load, `resnet18_5g` of a
case of the headline.
"""

from __future__ import annotations

import json
import lzma
import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nodes.planner.machine import events as pe
from nodes.planner.machine.planner import PlannerMachine, PlannerSettings
from nodes.protocol.messages import LinkReport, NodeInfo, NodeState, from_bytes, to_bytes
from nodes.protocol.reports import WHOLE, read_report
from nodes.tier.machine.events import PeerStateArrived
from pipeline.cost import INTERVAL_DEVIATIONS
from pipeline.graph import ModelGraph
from pipeline.plan import NodeId, Plan
from pipeline.profiling.profile import Profile
from pipeline.protocol_version import PROTOCOL_VERSION

FOLDER = Path(__file__).parents[4] / "cases" / "telemetry"
BEFORE = {"replan": (0.523, 0.282), "replan_loaded": (0.888, 0.857)}
"""Mean absolute errors of segments and of whole frames."""
RECORDINGS = ("replan", "replan_loaded", "resnet18_5g", "tiles", "noise")
WITHIN = 0.87, 0.93
"""Shares of single frames that may lie in the interval in which nine of ten are expected."""
LEAST_S, CLOCK_S = 1e-3, 5e-3

Line = dict[str, Any]
READERS: dict[str, Callable[[Line, bytes], pe.PlannerEvent]] = {
    "state": lambda line, raw: PeerStateArrived(from_bytes(NodeState, raw)),
    "info": lambda line, raw: pe.InfoArrived(from_bytes(NodeInfo, raw)),
    "link": lambda line, raw: pe.LinkArrived(from_bytes(LinkReport, raw)),
    "profile": lambda line, raw: pe.ProfileArrived(NodeId(line["node"]), Profile.from_json(line["payload"])),
    "model": lambda line, raw: pe.ManifestArrived(ModelGraph.from_json(line["payload"])),
    "telemetry": lambda line, raw: pe.TelemetryArrived(NodeId(line["node"]), read_report(raw)),
}


def lines(name: str) -> Iterator[Line]:
    """A recording's lines; what is read of them is as in the protocol of today. All nodes were on one machine."""
    with lzma.open(FOLDER / f"{name}.jsonl.xz", "rt") as file:
        for line in map(json.loads, file):
            key = "version" if line["kind"] == "plan" else "protocol"
            spoken: Line = {key: PROTOCOL_VERSION} if key in line["payload"] else {}
            spoken |= {"machine": "recorded"} if line["kind"] == "info" else {}
            yield line | {"payload": line["payload"] | spoken}


@dataclass(slots=True)
class Replay:
    """A planner's machine that learns and does not decide: plans are those of the recording."""

    machine: PlannerMachine
    segments: list[float] = field(default_factory=list)
    frames: list[float] = field(default_factory=list)
    within: list[bool] = field(default_factory=list)
    answered_at: float = -math.inf

    def take(self, line: Line) -> None:
        inventory = self.machine.inventory
        if line["kind"] == "result" and line["payload"]["ok"]:
            self.judge_frame(line)
        elif line["kind"] == "plan":
            inventory.registry.learned.filter.validate()
            plan = Plan.from_json(line["payload"])
            stream = inventory.streams.get(plan.stream)
            if stream is not None and (stream.plan is None or plan.epoch > stream.plan.epoch):
                inventory.hold(stream, plan)
        elif line["kind"] in READERS:
            event = READERS[line["kind"]](line, to_bytes(line["payload"]))
            if isinstance(event, pe.TelemetryArrived):
                self.judge(event)
            self.machine.learn(event, line["at"], line["at"])

    def judge(self, event: pe.TelemetryArrived) -> None:
        """Compare a report with what was expected before it came."""
        inventory, node = self.machine.inventory, event.node
        learned = inventory.registry.learned
        for plan in (stream.plan for stream in inventory.streams.values()):
            basis = inventory.registry.blocks.basis(node, plan.model, plan.digest) if plan is not None else None
            tier = plan.tier_of(node) if plan is not None else None
            if plan is None or basis is None or tier is None:
                continue
            terms = learned.computing(node, plan.model, basis, learned.blocks.stage_seconds(basis, plan, tier))
            for segment in event.report.segments:
                if segment.epoch == plan.epoch and segment.compute_seconds > LEAST_S:
                    self.segments.append(math.log(learned.filter.seconds(terms) / segment.compute_seconds))
            frame = learned.frame(plan)
            for leg in event.report.legs:
                if leg.epoch == plan.epoch and plan.device == node and frame is not None:
                    self.frames.append(math.log(learned.filter.seconds(frame) / leg.seconds[WHOLE]))

    def judge_frame(self, line: Line) -> None:
        """See whether a frame that had the pipeline to itself lies in the interval of its plan."""
        inventory, result = self.machine.inventory, line["payload"]
        learned, entered_at = inventory.registry.learned, line["at"] - result["seconds"]
        was_alone, self.answered_at = entered_at >= self.answered_at - CLOCK_S, line["at"]
        for plan in (stream.plan for stream in inventory.streams.values()):
            if plan is None or plan.epoch != result["epoch"] or not was_alone:
                continue
            frame, deviation = learned.frame(plan), learned.deviation(plan)
            if frame is not None and deviation is not None:
                off = math.log(learned.filter.seconds(frame) / result["seconds"])
                self.within.append(abs(off) < INTERVAL_DEVIATIONS * deviation)


@pytest.mark.parametrize("name", RECORDINGS)
def test_errors_a_report_ahead_are_less_than_those_of_the_rules_before_and_intervals_hold(name: str) -> None:
    began = next(lines(name))["at"]
    replay = Replay(PlannerMachine(PlannerSettings(settle_s=1e12, lost_after_s=1e9), started_at=began))
    for line in lines(name):
        replay.take(line)
    if name in BEFORE:
        segments_before, frames_before = BEFORE[name]
        assert statistics.mean(map(abs, replay.segments)) < 0.7 * segments_before
        assert statistics.mean(map(abs, replay.frames)) < 0.7 * frames_before
    least, most = WITHIN
    assert least <= statistics.mean(replay.within) <= most
