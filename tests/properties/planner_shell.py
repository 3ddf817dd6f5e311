"""A simulated planner: the real machine on the simulated broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from broker import topics
from nodes.planner.machine import events as pe
from nodes.planner.machine.planner import PlannerMachine, PlannerSettings
from nodes.planner.machine.stream import assignment
from nodes.protocol import border
from nodes.protocol.messages import (
    LifeState,
    to_bytes,
)
from nodes.tier.machine import events as ev
from pipeline.plan import NodeId, Plan, StreamId
from tests.properties.simulated_broker import Client
from tests.properties.symbolic import MODEL

if TYPE_CHECKING:
    from tests.properties.cluster import Cluster

LOST_AFTER_S = 150.0  # longer than time ever passes in one step
WALL_TS = 1_760_000_000.0


class PlannerShell(Client):
    """The planner's shell."""

    machine: PlannerMachine
    more_wait = False

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.broker, NodeId("planner"), "planner")
        self.cluster = cluster

    def begin(self) -> None:
        settings = PlannerSettings(margin=0.1, min_seconds_between_plans=1.0, settle_s=0.5, lost_after_s=LOST_AFTER_S)
        self.machine = PlannerMachine(settings, started_at=self.cluster.now)
        self.newest: dict[StreamId, Plan] = {}
        self.state = LifeState.READY
        self.subscribe("state", "applied", "info", "link", "model", "plan", "profile", "telemetry")

    def came_up(self) -> None:
        self.handle(ev.ConnectionRestored())

    def disconnect(self, *, will: bool = True) -> None:
        super().disconnect(will=will)
        self.handle(ev.ConnectionLost())

    def tick(self) -> None:
        self.handle(ev.Tick())

    def handle(self, event: pe.PlannerEvent) -> None:
        wall_ts = WALL_TS + self.cluster.now
        actions = self.machine.handle(event, self.cluster.now, wall_ts, more_wait=self.more_wait)
        self.machine.validate()
        for action in actions:
            if isinstance(action, pe.PublishPlan):
                action.plan.check(action.graph)
                before = self.newest.get(action.plan.stream)
                if before is not None:
                    assert action.plan.epoch >= before.epoch, "epochs only grow"
                    is_same = action.plan.epoch == before.epoch
                    assert not is_same or assignment(action.plan) == assignment(before), "an epoch is one plan"
                self.newest[action.plan.stream] = action.plan
                self.cluster.plans_total += 1
                self.keep(f"plan/{action.plan.stream}", to_bytes(action.plan.to_json(action.graph)))

    def arrived(self, topic: str, payload: bytes) -> None:
        kind, _, rest = topic.partition("/")
        readers: dict[str, Callable[[], pe.PlannerEvent]] = {
            "state": lambda: ev.PeerStateArrived(border.read(topics.STATE, {"node": rest}, payload)),
            "applied": lambda: ev.PeerAppliedArrived(border.read(topics.APPLIED, {"node": rest}, payload)),
            "info": lambda: pe.InfoArrived(border.read(topics.INFO, {"node": rest}, payload)),
            "link": lambda: pe.LinkArrived(border.read(topics.LINK, {"node": rest}, payload)),
            "model": lambda: pe.ManifestArrived(border.read(topics.MODEL, {"digest": rest}, payload)),
            "plan": lambda: pe.PlanSeen(border.read(topics.PLAN, {"stream": rest}, payload)),
            "profile": lambda: pe.ProfileArrived(NodeId(rest), border.read(topics.PROFILE, {"model": MODEL}, payload)),
            "telemetry": lambda: pe.TelemetryArrived(NodeId(rest), border.read(topics.TELEMETRY, {}, payload)),
        }
        self.handle(readers[kind]())
