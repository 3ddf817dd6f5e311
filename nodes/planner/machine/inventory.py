"""The planner's inventory: what it learns from events about nodes, streams and plans that exist already."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nodes.config.plan_request import PlanRequest, read_plan_request
from nodes.planner.costs.compute_seconds import MOST_PROFILES
from nodes.planner.machine.equality import Equality
from nodes.planner.machine.events import (
    InfoArrived,
    LinkArrived,
    ManifestArrived,
    PlannerAction,
    PlannerEvent,
    PlanSeen,
    ProfileArrived,
    TelemetryArrived,
)
from nodes.planner.machine.failure_detector import FailureDetector
from nodes.planner.machine.registry import MOST_GRAPHS, Registry, StreamBinding
from nodes.planner.machine.static_costs import StaticCosts
from nodes.planner.machine.stream import FORCED, PlannedStream
from nodes.planner.machine.utilisation import Rates
from nodes.protocol.messages import LifeState
from nodes.protocol.peers import EPOCHS_AHEAD, MOST_FIRST_EPOCH
from nodes.tier.machine.actions import Log, Refuse
from nodes.tier.machine.events import ConnectionLost, ConnectionRestored, PeerAppliedArrived, PeerStateArrived, Tick
from pipeline.errors import TrisectError
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.ranges import MOST_NODES, MOST_STREAMS


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerSettings:
    """A new plan must be better by `margin` (a share), `min_seconds_between_plans` after the last one.

    Nothing is decided before `settle_s` after each connect, so that retained messages are in. A living node that has
    not prepared its part of a plan `prepare_timeout_s` after it could is treated like one that refuses, and one from
    which nothing has come for `lost_after_s` like one that is lost, until it speaks again. `band` is the share by which
    a time or a rate may differ from what the present plan assumed without being reason to think again.
    """

    margin: float = 0.1
    min_seconds_between_plans: float = 5.0
    settle_s: float = 1.0
    prepare_timeout_s: float = 120.0
    lost_after_s: float = 4.0
    band: float = 0.2
    equality: Equality = field(default_factory=Equality)


def _sender(event: PlannerEvent) -> NodeId | None:
    """The node that an event is about, None for none."""
    match event:
        case PeerStateArrived(state):
            return state.node
        case PeerAppliedArrived(applied):
            return applied.node
        case InfoArrived(info):
            return info.node
        case LinkArrived(report):
            return report.node
        case ProfileArrived(node) | TelemetryArrived(node):
            return node
        case _:
            return None


class Inventory:
    """The planner's state; `learn` takes an event, and the rules read the rest."""

    def __init__(
        self,
        settings: PlannerSettings,
        *,
        started_at: float,
        static_costs: StaticCosts | None = None,
        plan_requests: Mapping[StreamId, PlanRequest] | None = None,
    ) -> None:
        self.settings, self.static_costs, self.plan_requests = (
            settings,
            static_costs or StaticCosts(),
            plan_requests or {},
        )
        self.decide_after = started_at + settings.settle_s
        self.lost_at: dict[NodeId, float] = {}
        self.registry = Registry(settings.equality)
        self.failure_detector = FailureDetector(settings.lost_after_s, started_at)
        self.rates = Rates()
        self.now = started_at
        self.seen_plans: dict[StreamId, Plan] = {}
        self.streams: dict[StreamId, PlannedStream] = {}
        self.nodes: set[NodeId] = set()
        self.rivals_logged: dict[StreamId, list[NodeId]] = {}
        self._learn: dict[type, Callable[[Any, float], list[PlannerAction]]] = {
            PeerStateArrived: self._state_arrived,
            PeerAppliedArrived: self._applied_arrived,
            InfoArrived: self._info_arrived,
            ProfileArrived: self._profile_arrived,
            LinkArrived: self._link_arrived,
            TelemetryArrived: self._telemetry_arrived,
            ManifestArrived: self._manifest_arrived,
            PlanSeen: self._plan_seen,
            ConnectionLost: self._connection_lost,
            ConnectionRestored: self._connection_restored,
            Tick: lambda _event, _now: [],
        }

    def learn(self, event: PlannerEvent, now: float, *, more_wait: bool = False) -> list[PlannerAction]:
        """Take one event that is no person's request, and see who has fallen silent.

        Not while more events wait: what a node has said meanwhile may be among them.
        """
        if why_not := self._why_not(event):
            return [Refuse(type(event).__name__, why_not)]
        actions = self._learn[type(event)](event, now) + self._take_over()
        return actions if more_wait else actions + self._fall_silent(now)

    def _why_not(self, event: PlannerEvent) -> str:
        """The reason to refuse an event for which there is no room, empty if there is room."""
        node = _sender(event)
        if node is not None:
            if node not in self.nodes and len(self.nodes) >= MOST_NODES:
                return (
                    f"node: {MOST_NODES} are known, and {node} would be one more; `trisect forget` those that are gone"
                )
            self.nodes.add(node)
        if (
            isinstance(event, ManifestArrived)
            and self.registry.graphs.get(event.graph.digest, event.graph) != event.graph
        ):
            return f"digest: another manifest of {event.graph.digest} is known, and a digest names one"
        if isinstance(event, ManifestArrived) and not self.registry.has_room_for(event.graph):
            return f"digest: {MOST_GRAPHS} models of living nodes are known, and {event.graph.digest} would be one more"
        if isinstance(event, ProfileArrived) and not self.registry.compute.has_room_for(event.node, event.profile):
            return f"model: {MOST_PROFILES} profiles of {event.node} are known, and this would be one more"
        if isinstance(event, InfoArrived) and len(self.streams.keys() | event.info.streams.keys()) > MOST_STREAMS:
            return f"streams: {MOST_STREAMS} are known, and {event.info.node} has more"
        if isinstance(event, PlanSeen):
            if event.plan.epoch > MOST_FIRST_EPOCH:
                return f"epoch: at most {MOST_FIRST_EPOCH} in a plan of an earlier planner, not {event.plan.epoch}"
            if event.plan.stream not in self.seen_plans and len(self.seen_plans) >= MOST_STREAMS:
                return f"stream: {MOST_STREAMS} are known, and {event.plan.stream} would be one more"
        return ""

    def validate(self) -> None:
        """Assert what always holds."""
        self.registry.validate()
        told_of = (self.registry.peers.states, self.registry.peers.applied, self.registry.infos, self.registry.links)
        for table in (*told_of, self.lost_at):
            assert table.keys() <= self.nodes, f"{table.keys() - self.nodes} are known and not counted"
        assert len(self.nodes) <= MOST_NODES
        assert len(self.streams) <= MOST_STREAMS
        assert len(self.seen_plans) <= MOST_STREAMS
        assert not math.isnan(self.decide_after)
        for name, stream in self.streams.items():
            stream.validate()
            assert stream.plan is None or stream.plan.stream == name
            assert stream.binding.device in self.registry.infos

    def newest_believable(self, name: StreamId) -> int:
        """The highest epoch of the stream that a node can have seen."""
        stream, seen = self.streams.get(name), self.seen_plans.get(name)
        known = [plan.epoch for plan in (stream.plan if stream is not None else None, seen) if plan is not None]
        return max(known) + EPOCHS_AHEAD if known else MOST_FIRST_EPOCH

    def _connection_lost(self, event: ConnectionLost, now: float) -> list[PlannerAction]:
        self.decide_after = math.inf
        self.failure_detector.cut_off()
        return []

    def _fall_silent(self, now: float) -> list[PlannerAction]:
        peers, before = self.registry.peers, self.registry.silent
        self.registry.silent = frozenset(
            n for n in peers.states if peers.alive(n) and self.failure_detector.suspects(n, now)
        )
        after_s = self.settings.lost_after_s
        fallen = [Log(logging.WARNING, f"nothing from {n} for {after_s:g} s") for n in self.registry.silent - before]
        back = [Log(logging.INFO, f"{n} is heard again") for n in before - self.registry.silent if peers.alive(n)]
        return [*fallen, *back]

    def _connection_restored(self, event: ConnectionRestored, now: float) -> list[PlannerAction]:
        self.decide_after = now + self.settings.settle_s
        self.failure_detector.listening(now)
        for stream in self.streams.values():
            stream.preparing.clear()
        return []

    def _state_arrived(self, event: PeerStateArrived, now: float) -> list[PlannerAction]:
        state = event.state
        self.failure_detector.heard(state.node, now)
        has_changed = self.registry.peers.learn_state(state)
        if has_changed and state.state is LifeState.LOST:
            self.lost_at[state.node] = now
        return [Log(logging.INFO, f"{state.node} ({state.tier}) is {state.state.value}")] if has_changed else []

    def _info_arrived(self, event: InfoArrived, now: float) -> list[PlannerAction]:
        info = event.info
        wrong = self.registry.learn_info(info)
        for name, model in info.streams.items():
            known = self.streams.get(name)
            if known is None or (known.binding.device == info.node and known.binding.model != model):
                self._serve(name, info.node, model)
        return [Log(logging.WARNING, wrong)] if wrong else []

    def _serve(self, name: StreamId, device: NodeId, model: str) -> None:
        configured = self.plan_requests.get(name) or PlanRequest()
        self.streams[name] = PlannedStream(StreamBinding(device, model), configured)
        self._adopt(name)

    def _take_over(self) -> list[PlannerAction]:
        """A stream has one device: who had it first, while it lives. Another one that has it, too, is told of."""
        actions: list[PlannerAction] = []
        for name, stream in list(self.streams.items()):
            device = stream.binding.device
            rivals = [node for node in self.registry.devices_of(name) if node != device]
            if rivals and not self.registry.peers.alive(device):
                self._serve(name, rivals[0], self.registry.infos[rivals[0]].streams[name])
            elif rivals and rivals != self.rivals_logged.get(name):
                others = ", ".join(rivals)
                text = f"stream {name} is of {device}, and {others} takes its frames as well: each is answered twice"
                actions.append(Log(logging.ERROR, f"{text}; give it one device in all configurations, and restart"))
            self.rivals_logged[name] = rivals
        return actions

    def _profile_arrived(self, event: ProfileArrived, now: float) -> list[PlannerAction]:
        self.registry.compute.learn_profile(event.node, event.profile)
        return []

    def _link_arrived(self, event: LinkArrived, now: float) -> list[PlannerAction]:
        self.registry.link_rates.learn_report(event.report)
        return []

    def _telemetry_arrived(self, event: TelemetryArrived, now: float) -> list[PlannerAction]:
        self.failure_detector.heard(event.node, now)
        plans = [stream.plan for stream in self.streams.values() if stream.plan is not None]
        report = event.report
        self.registry.compute.learn_telemetry(event.node, report.segments, plans, report.probe_seconds)
        self.registry.learn_tiles(event.node, report.tiles, [p for p in plans if p.nodes.get(Tier.EDGE) == event.node])
        if not any(event.node in plan.workers for plan in plans):
            self.registry.tile_overhead.fade(event.node)
        self.registry.learn_legs(report.legs, [p for p in plans if p.device == event.node])
        if not any(event.node in plan.nodes.values() and len(plan.nodes) > 1 for plan in plans):
            self.registry.send_receive_overhead.rest(event.node, report.probe_seconds)
        self.registry.link_rates.learn_measured(event.node, report.link)
        own = {name: stream.binding for name, stream in self.streams.items() if stream.binding.device == event.node}
        for segment in report.segments:
            if segment.stream in own:
                self.rates.counted(segment.stream, segment.frames, now)
        for name in own.keys() & report.frame_overheads.keys():
            self.registry.learn_frame_overhead(own[name], report.frame_overheads[name])
        return []

    def _manifest_arrived(self, event: ManifestArrived, now: float) -> list[PlannerAction]:
        self.registry.graphs[event.graph.digest] = event.graph
        return []

    def _plan_seen(self, event: PlanSeen, now: float) -> list[PlannerAction]:
        self.seen_plans.setdefault(event.plan.stream, event.plan)
        self._adopt(event.plan.stream)
        return []

    def _adopt(self, name: StreamId) -> None:
        """Go on with the plan of an earlier planner, and with what a person had placed by hand."""
        stream, plan = self.streams.get(name), self.seen_plans.get(name)
        if stream is not None and stream.plan is None and plan is not None and plan.device == stream.binding.device:
            stream.plan, stream.adopted = plan, True
            if plan.planner == FORCED:
                stream.forced, stream.forced_tiles = plan.placement, plan.tiles
            if plan.plan_request is not None:
                with contextlib.suppress(TrisectError):  # of another version of trisect: the configuration's hold
                    stream.requested = read_plan_request(plan.plan_request)

    def _applied_arrived(self, event: PeerAppliedArrived, now: float) -> list[PlannerAction]:
        self.registry.peers.applied[event.applied.node] = event.applied
        for name, stream in self.streams.items():
            held = event.applied.streams.get(name)
            active = held is not None and stream.plan is not None and held.active == stream.plan.epoch
            if active and event.applied.node == stream.binding.device:
                stream.last_good = stream.plan
        return []
