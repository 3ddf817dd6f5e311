"""How long a planner takes with many streams.

`machine` feeds the planner's machine by itself: seconds of processor for the first plans, milliseconds for a steady
telemetry event, and what it takes when one edge's link falls to a tenth, and when an edge dies.

    python benchmarks/fleet.py machine --streams 50 --edges 4 --clouds 2
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nodes.planner.machine import events as pe
from nodes.planner.machine.planner import PlannerMachine, PlannerSettings
from nodes.protocol.messages import (
    Applied,
    LifeState,
    LinkMeasured,
    LinkReport,
    NodeInfo,
    NodeState,
    Report,
    SegmentSeconds,
    StreamApplied,
)
from nodes.tier.machine import events as ev
from pipeline.graph import ModelGraph
from pipeline.models.graphs import shipped_graph
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.profiling.profile import Profile

SPEED = {Tier.DEVICE: 3e9, Tier.EDGE: 2e10, Tier.CLOUD: 2e11}
"""Multiply-accumulates per second."""
RATE = {Tier.DEVICE: 1e7, Tier.EDGE: 1e8, Tier.CLOUD: 3e6}
"""Bytes per second to the broker, and from it."""
ROUND_TRIP_S = {Tier.DEVICE: 4e-3, Tier.EDGE: 1e-3, Tier.CLOUD: 3e-2}
FRAMES_PER_S = 2
HARDWARE, ENGINE, VERSION = "simulated", "litert", "1"


@dataclass(frozen=True, slots=True)
class Member:
    """One node of the fleet, with what it is like."""

    node: NodeId
    tier: Tier
    speed: float
    rate: float
    stream: StreamId | None = None


class Fleet:
    """Nodes, and what they say: devices with a stream each, edges and clouds that they share."""

    def __init__(self, graph: ModelGraph, streams: int, edges: int, clouds: int, seed: int = 0) -> None:
        self.graph, self._draw = graph, random.Random(seed)
        self.members: dict[NodeId, Member] = {}
        for tier, number in ((Tier.EDGE, edges), (Tier.CLOUD, clouds), (Tier.DEVICE, streams)):
            for place in range(number):
                node = NodeId(f"{tier.label}-{place}")
                stream = StreamId(f"camera-{place}") if tier is Tier.DEVICE else None
                speed, rate = (value * self._draw.uniform(0.7, 1.4) for value in (SPEED[tier], RATE[tier]))
                self.members[node] = Member(node, tier, speed, rate, stream)

    def joins(self, member: Member) -> Iterator[pe.PlannerEvent]:
        """All that a node says of itself when it starts."""
        streams = {member.stream: self.graph.name} if member.stream else {}
        models = {self.graph.name: self.graph.digest}
        yield ev.PeerStateArrived(self.state(member))
        yield pe.InfoArrived(
            NodeInfo(
                member.node, member.tier.label, "one", "1", ENGINE, VERSION, 1, HARDWARE, models, streams, bits="same"
            )
        )
        times = tuple((block.macs + 1e4) / member.speed for block in self.graph.blocks)
        profile = Profile(
            self.graph.name, self.graph.digest, ENGINE, VERSION, 1, HARDWARE, times, times, sum(times), 0.0
        )
        yield pe.ProfileArrived(member.node, profile)
        yield pe.LinkArrived(LinkReport(member.node, "one", member.rate, member.rate, ROUND_TRIP_S[member.tier]))

    def state(self, member: Member, life: LifeState = LifeState.READY) -> NodeState:
        """What its retained state says."""
        return NodeState(member.node, member.tier.label, life, "one", 1, 0.0)

    def applied(self, member: Member, plan: Plan) -> ev.PeerAppliedArrived:
        """The device has made its stream's plan active."""
        held = StreamApplied(plan.epoch, (plan.epoch,), {}, plan.epoch, (plan.epoch,))
        return ev.PeerAppliedArrived(Applied(member.node, "one", {plan.stream: held}))

    def telemetry(self, member: Member, plans: dict[StreamId, Plan]) -> pe.TelemetryArrived:
        """A second's report, each number a few percent off what was foreseen."""
        segments = []
        for plan in [plans[member.stream]] if member.stream in plans else []:
            own = [b.macs + 1e4 for b, at in zip(self.graph.blocks, plan.placement, strict=True) if at is member.tier]
            took_s = sum(own) / member.speed * self._draw.gauss(1.0, 0.03)
            segments.append(SegmentSeconds(plan.stream, plan.epoch, FRAMES_PER_S, max(took_s, 1e-6)))
        seen = LinkMeasured(*(member.rate * self._draw.gauss(1.0, 0.02) for _ in range(2)), ROUND_TRIP_S[member.tier])
        return pe.TelemetryArrived(member.node, Report(tuple(segments), link=seen))


class MachineRun:
    """A planner's machine with a fleet, on a clock of its own; measures what events take."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.now = 0.0
        self.plans: dict[StreamId, Plan] = {}
        self.machine = PlannerMachine(PlannerSettings(settle_s=1.0, lost_after_s=1e9), started_at=0.0)

    def send(self, event: pe.PlannerEvent, *, more_wait: bool = False) -> float:
        """Processor seconds of an event; new plans are made active at once."""
        began = time.process_time()
        actions = self.machine.handle(event, self.now, self.now, more_wait=more_wait)
        took_s = time.process_time() - began
        for action in actions:
            if isinstance(action, pe.PublishPlan):
                self.plans[action.plan.stream] = action.plan
        return took_s

    def start(self) -> tuple[float, float]:
        """Processor seconds until every stream has a plan, and until the first has."""
        took_s = self.send(pe.ManifestArrived(self.fleet.graph), more_wait=True)
        for member in self.fleet.members.values():
            for event in self.fleet.joins(member):
                took_s += self.send(event, more_wait=True)
        self.now, first_s = 1.0, 0.0
        streams = sum(member.stream is not None for member in self.fleet.members.values())
        while len(self.plans) < streams:
            took_s += self.send(ev.Tick())
            first_s = first_s or took_s
            self.now += 0.25
        return took_s, first_s

    def second(self) -> list[float]:
        """Processor seconds of each node's report."""
        self.now += 1.0
        return [self.send(self.fleet.telemetry(member, self.plans)) for member in self.fleet.members.values()]

    def until_quiet(self) -> tuple[float, int]:
        """Ticks until no plan changes any more: processor seconds and plans that changed."""
        took_s, changed = 0.0, 0
        for _ in range(200):
            before = dict(self.plans)
            took_s += self.send(ev.Tick())
            now = sum(plan.epoch != before[stream].epoch for stream, plan in self.plans.items())
            changed += now
            if not now:
                break
        return took_s, changed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["machine"])
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--edges", type=int, default=4)
    parser.add_argument("--clouds", type=int, default=2)
    parser.add_argument("--model", default="mobilenet_v2")
    asked = parser.parse_args()
    run = MachineRun(Fleet(shipped_graph(asked.model), asked.streams, asked.edges, asked.clouds))
    all_s, first_s = run.start()
    print(f"first plans   {all_s:8.2f} s, the first after {first_s:.2f}", flush=True)
    for _ in range(8):
        run.second()
    steady = [took_s for _ in range(3) for took_s in run.second()]
    mean_ms, longest_ms = statistics.mean(steady) * 1e3, max(steady) * 1e3
    print(f"steady event  {mean_ms:8.2f} ms in the mean, {longest_ms:.1f} the longest", flush=True)
    run.now += 60
    edge = run.fleet.members[NodeId("edge-0")]
    fallen = replace(edge, rate=edge.rate / 100)
    took_s = 0.0
    run.fleet.members[edge.node] = fallen
    for _ in range(3):
        run.now += 1.0
        took_s += run.send(run.fleet.telemetry(fallen, run.plans))
    more_s, changed = run.until_quiet()
    print(f"link falls    {took_s + more_s:8.2f} s, {changed} plans changed", flush=True)
    run.now += 60
    took_s = run.send(ev.PeerStateArrived(run.fleet.state(edge, LifeState.LOST)))
    run.now += 1.0
    more_s, changed = run.until_quiet()
    print(f"an edge dies  {took_s + more_s:8.2f} s, {changed} plans changed", flush=True)


if __name__ == "__main__":
    main()
