"""How long a planner takes with many streams.

`processes` starts a broker, a planner and a few processes that play all nodes: seconds until there are plans and until
all affected streams have new ones, the planner's processor and memory. `machine` feeds the planner's machine by
itself: seconds of processor for the first plans, milliseconds for a telemetry event, and what it takes when one edge's
link falls to a hundredth, and when an edge dies.

    python benchmarks/fleet.py --streams 50 --edges 4 --clouds 2
    python benchmarks/fleet.py machine --streams 50 --edges 4 --clouds 2
    python benchmarks/fleet.py machine --streams 1000 --edges 4 --clouds 1 --edge-strength 60 --cloud-strength 0.01 \
        --settle 2 --events death  # some 250 streams on each edge
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from types import MappingProxyType

import psutil

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
SETTLING = 12
"""Seconds after which all streams have the plans that follow from each other's load: twice what is between plans."""
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

    def __init__(
        self,
        graph: ModelGraph,
        streams: int,
        edges: int,
        clouds: int,
        seed: int = 0,
        factors: Mapping[Tier, float] = MappingProxyType({}),
    ) -> None:
        """`factors` multiply the speed and the rate of a tier's nodes."""
        self.graph, self._draw = graph, random.Random(seed)
        self.members: dict[NodeId, Member] = {}
        for tier, number in ((Tier.EDGE, edges), (Tier.CLOUD, clouds), (Tier.DEVICE, streams)):
            for place in range(number):
                node = NodeId(f"{tier.label}-{place}")
                stream = StreamId(f"camera-{place}") if tier is Tier.DEVICE else None
                strength = factors.get(tier, 1.0)
                values = (strength * SPEED[tier], strength * RATE[tier])
                speed, rate = (value * self._draw.uniform(0.7, 1.4) for value in values)
                self.members[node] = Member(node, tier, speed, rate, stream)

    def joins(self, member: Member) -> Iterator[pe.PlannerEvent]:
        """All that a node says of itself when it starts."""
        streams = {member.stream: self.graph.name} if member.stream else {}
        models = {self.graph.name: self.graph.digest}
        yield ev.PeerStateArrived(self.state(member))
        yield pe.InfoArrived(
            NodeInfo(
                member.node,
                member.tier.label,
                "one",
                version("trisect"),
                ENGINE,
                VERSION,
                1,
                HARDWARE,
                models,
                streams,
                bits="same",
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
        return NodeState(member.node, member.tier.label, life, "one", 1)

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
        up, down = (member.rate * self._draw.gauss(1.0, 0.02) for _ in range(2))
        seen = LinkMeasured(up, down, ROUND_TRIP_S[member.tier])
        return pe.TelemetryArrived(member.node, Report(tuple(segments), link=seen))


class MachineRun:
    """A planner's machine with a fleet, on a clock of its own; measures what events take."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.now = 0.0
        self.plans: dict[StreamId, Plan] = {}
        self.changed = 0
        self.gone: set[NodeId] = set()
        self.last_s = 0.0
        self.machine = PlannerMachine(PlannerSettings(settle_s=1.0, lost_after_s=1e9), started_at=0.0)

    def learn(self, event: pe.PlannerEvent) -> float:
        """Processor seconds of taking an event; plans that it makes at once are made active."""
        began = time.process_time()
        self._perform(self.machine.learn(event, self.now, self.now))
        return time.process_time() - began

    def decide(self) -> float | None:
        """Processor seconds of the next decision, None when there is none."""
        began = time.process_time()
        actions = self.machine.decide_next(self.now, self.now)
        took_s = time.process_time() - began
        if actions is None:
            return None
        self._perform(actions)
        return took_s

    def send(self, event: pe.PlannerEvent) -> float:
        """Processor seconds of an event with all decisions that follow from it."""
        return self.learn(event) + self._decide_all()

    def _perform(self, actions: Sequence[pe.PlannerAction]) -> None:
        for action in actions:
            if isinstance(action, pe.PublishPlan):
                self.changed += action.plan.stream not in self.plans or not action.stays
                self.plans[action.plan.stream] = action.plan

    def start(self) -> tuple[float, float, float]:
        """Processor seconds until the first stream has a plan, until all have, and until all plans are proved."""
        took_s = self.learn(pe.ManifestArrived(self.fleet.graph))
        for member in self.fleet.members.values():
            for event in self.fleet.joins(member):
                took_s += self.learn(event)
        self.now, first_s, all_s = 1.0, 0.0, 0.0
        streams = sum(member.stream is not None for member in self.fleet.members.values())
        took_s += self.learn(ev.Tick())
        while (more_s := self.decide()) is not None:
            took_s += more_s
            first_s = first_s or (took_s if self.plans else 0.0)
            all_s = all_s or (took_s if len(self.plans) == streams else 0.0)
        return first_s, all_s, took_s

    def second(self) -> tuple[list[float], float]:
        """A second of reports, one node after the other: processor seconds of each, and of all decisions that follow.

        Devices make the plans that they have got active at its end.
        """
        learned, decided_s, before = [], 0.0, dict(self.plans)
        for member in list(self.fleet.members.values()):
            self.now += 1.0 / len(self.fleet.members)
            if member.node not in self.gone:
                learned.append(self.learn(self.fleet.telemetry(member, self.plans)))
            decided_s += self._decide_all()
        for member in self.fleet.members.values():
            if member.stream and (plan := self.plans.get(member.stream)) not in (None, before.get(member.stream)):
                self.learn(self.fleet.applied(member, plan))
        return learned, decided_s + self._decide_all()

    def _decide_all(self) -> float:
        took_s = 0.0
        while (more_s := self.decide()) is not None:
            took_s += more_s
        return took_s

    def until_decided(self, *events: pe.PlannerEvent, watched: Mapping[StreamId, Plan]) -> tuple[float, int]:
        """Events a second apart, with all decisions: processor seconds, and how many plans changed.

        `last_s` is then after how many of them the last of the `watched` plans was replaced.
        """
        before, took_s, left = self.changed, 0.0, dict(watched)
        self.last_s = 0.0
        for event in (*events, ev.Tick()):
            took_s += self.learn(event)
            while (more_s := self.decide()) is not None:
                took_s += more_s
                replaced = [name for name, plan in left.items() if self.plans[name].epoch != plan.epoch]
                for name in replaced:
                    del left[name]
                    self.last_s = took_s
            self.now += 1.0
        return took_s, self.changed - before


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["processes", "machine"], nargs="?", default="processes")
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--edges", type=int, default=4)
    parser.add_argument("--clouds", type=int, default=2)
    parser.add_argument("--edge-strength", type=float, default=1.0, help="of the machine: edges' speed and rate")
    parser.add_argument("--cloud-strength", type=float, default=1.0, help="the same of clouds")
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--events", default="steady,link,death", help="of the machine, in this order, after settling")
    parser.add_argument("--settle", type=int, default=SETTLING, help="seconds of reports before each of them")
    asked = parser.parse_args()
    if asked.what == "processes":
        from benchmarks import fleet_processes

        fleet_processes.run(asked.model, asked.streams, asked.edges, asked.clouds)
        return
    factors = {Tier.EDGE: asked.edge_strength, Tier.CLOUD: asked.cloud_strength}
    run = MachineRun(Fleet(shipped_graph(asked.model), asked.streams, asked.edges, asked.clouds, factors=factors))
    first_s, all_s, proved_s = run.start()
    print(f"first plans   {all_s:8.2f} s, the first after {first_s:.2f}, all proved after {proved_s:.2f}", flush=True)
    settling_s = sum(sum(learned) + decided_s for learned, decided_s in (run.second() for _ in range(asked.settle)))
    print(f"settling      {settling_s:8.2f} s in {asked.settle} s of reports, {run.changed} plans in all", flush=True)
    for event in asked.events.split(","):
        EVENTS[event](run)
        if event != asked.events.split(",")[-1]:
            for _ in range(asked.settle):
                run.second()
    print(f"memory        {psutil.Process().memory_info().rss / 1e6:8.0f} MB")


def _steady(run: MachineRun) -> None:
    before = run.changed
    rounds = [run.second() for _ in range(5)]
    learned = [took_s for taken, _ in rounds for took_s in taken]
    all_s = sum(learned) + sum(decided_s for _, decided_s in rounds)
    text = f"{statistics.mean(learned) * 1e3:.2f} ms to learn, {max(learned) * 1e3:.1f} the longest"
    print(
        f"steady event  {all_s / len(learned) * 1e3:8.2f} ms in the mean with all decisions; {text}; "
        f"{run.changed - before} plans changed; {all_s / 5:.2f} s of a processor each second",
        flush=True,
    )


def _link_falls(run: MachineRun) -> None:
    edge = run.fleet.members[NodeId("edge-0")]
    run.fleet.members[edge.node] = replace(edge, rate=edge.rate / 100)
    _changed("link falls", run, edge, *(run.fleet.telemetry(run.fleet.members[edge.node], run.plans) for _ in range(3)))


def _edge_dies(run: MachineRun) -> None:
    edge = run.fleet.members[NodeId("edge-1")]
    run.gone.add(edge.node)
    _changed("an edge dies", run, edge, ev.PeerStateArrived(run.fleet.state(edge, LifeState.LOST)))


def _busiest_dies(run: MachineRun) -> None:
    edges = [member for member in run.fleet.members.values() if member.tier is Tier.EDGE]
    used = Counter(node for plan in run.plans.values() for node in plan.nodes.values())
    edge = max(edges, key=lambda member: used[member.node])
    run.gone.add(edge.node)
    _changed("busiest dies", run, edge, ev.PeerStateArrived(run.fleet.state(edge, LifeState.LOST)))


def _changed(what: str, run: MachineRun, edge: Member, *events: pe.PlannerEvent) -> None:
    affected = {name: plan for name, plan in run.plans.items() if edge.node in plan.nodes.values()}
    took_s, changed = run.until_decided(*events, watched=affected)
    left = sum(run.plans[name] is plan for name, plan in affected.items())
    print(
        f"{what:12s}  {took_s:8.2f} s, {changed} plans changed; {len(affected)} streams had it, of which {left} kept "
        f"their plan, and the last new one came after {run.last_s:.2f} s",
        flush=True,
    )


EVENTS: dict[str, Callable[[MachineRun], None]] = {
    "steady": _steady,
    "link": _link_falls,
    "death": _edge_dies,
    "busiest": _busiest_dies,
}


if __name__ == "__main__":
    main()
