"""The planner's inventory: what it learns from events about nodes, streams and plans that exist already."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Mapping

from typing_extensions import assert_never

from nodes.config.plan_request import PlanRequest, read_plan_request
from nodes.planner.machine.admission import sender_of, why_no_room
from nodes.planner.machine.agenda import Agenda, Need
from nodes.planner.machine.binding import StreamBinding
from nodes.planner.machine.concerns import Concerns
from nodes.planner.machine.events import (
    HoldingsArrived,
    InfoArrived,
    LinkArrived,
    ManifestArrived,
    PackageArrived,
    PackageRemoved,
    PlannerAction,
    PlanSeen,
    ProfileArrived,
    TelemetryArrived,
    Told,
)
from nodes.planner.machine.failure_detector import FailureDetector
from nodes.planner.machine.lateness import no_longer_late
from nodes.planner.machine.registry import Registry
from nodes.planner.machine.settings import PlannerSettings
from nodes.planner.machine.static_costs import StaticCosts
from nodes.planner.machine.stream import PlannedStream
from nodes.planner.machine.utilisation import Rates
from nodes.protocol.messages import LifeState
from nodes.protocol.packages import family_of
from nodes.protocol.peers import EPOCHS_AHEAD, MOST_FIRST_EPOCH
from nodes.tier.machine.actions import Log, Refuse
from nodes.tier.machine.events import (
    ConnectionLost,
    ConnectionRestored,
    PeerAppliedArrived,
    PeerForgotten,
    PeerStateArrived,
    Tick,
)
from pipeline.energy import NO_DRAW
from pipeline.errors import TrisectError
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.ranges import MOST_NODES, MOST_STREAMS

SILENCE_S = 0.25
"""Between two looks at who has fallen silent."""
_TIERS = frozenset(tier.label for tier in Tier)


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
        self.agenda = Agenda()
        self._silence_seen_at = -math.inf
        self.concerns = Concerns(self.registry, self.agenda, settings.band)

    def learn(self, event: Told, now: float, *, more_wait: bool = False) -> list[PlannerAction]:
        """Take one event that is no person's request, and see who has fallen silent.

        Not while more events wait: what a node has said meanwhile may be among them.
        """
        if why_not := why_no_room(self, event):
            return [Refuse(type(event).__name__, why_not)]
        sender = sender_of(event)
        if sender is not None:
            self.nodes.add(sender)
        actions = self._take(event, now)
        self.concerns.look_at_others(now)
        if isinstance(event, (InfoArrived, PeerStateArrived)):
            actions += self._take_over(self._named_by(sender))
        if more_wait:
            return actions
        if now >= self._silence_seen_at + SILENCE_S:
            self._silence_seen_at = now
            return actions + self._fall_silent(now, self.registry.peers.states)
        return actions + self._fall_silent(now, [sender]) if sender in self.registry.silent else actions

    def _take(self, event: Told, now: float) -> list[PlannerAction]:
        match event:
            case PeerStateArrived():
                return self._state_arrived(event, now)
            case PeerAppliedArrived():
                return self._applied_arrived(event, now)
            case InfoArrived():
                return self._info_arrived(event, now)
            case ProfileArrived():
                return self._profile_arrived(event, now)
            case LinkArrived():
                return self._link_arrived(event, now)
            case TelemetryArrived():
                return self._telemetry_arrived(event, now)
            case ManifestArrived():
                return self._manifest_arrived(event, now)
            case PackageArrived() | PackageRemoved() | HoldingsArrived():
                return self._pieces_event(event, now)
            case PeerForgotten():
                return self._forgotten(event.node)
            case PlanSeen():
                return self._plan_seen(event, now)
            case ConnectionLost():
                return self._connection_lost(event, now)
            case ConnectionRestored():
                return self._connection_restored(event, now)
            case Tick():
                return []
        assert_never(event)

    def validate(self) -> None:
        """Assert what always holds."""
        self.registry.validate()
        told_of = (
            self.registry.peers.states,
            self.registry.peers.applied,
            self.registry.infos,
            self.registry.learned.first,
        )
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

    def _named_by(self, node: NodeId | None) -> list[StreamId]:
        """The streams that the node says are its own."""
        info = self.registry.infos.get(node) if node is not None else None
        return [name for name in info.streams if name in self.streams] if info is not None else []

    def hold(self, stream: PlannedStream, plan: Plan) -> None:
        """Make a plan the stream's present one."""
        self.concerns.hold(stream.name, stream.plan.members if stream.plan is not None else (), plan.members)
        stream.plan = plan
        self._count_load(stream)

    def _count_load(self, stream: PlannedStream) -> None:
        """Take what the stream's frames take of its nodes, and have other streams looked at that this concerns."""
        plan, load = stream.plan, None
        if plan is not None and self.registry.peers.alive(stream.binding.device):
            load = self.registry.stream_load(stream.binding, plan, self.rates.rate_of(stream.name, self.now))
        device = stream.binding.device
        shared = self.registry.loads.take(stream.name, load)
        if self.concerns.of_device(device) == {stream.name}:
            shared -= {device}  # what a stream takes of a device of its own is no news to anybody
        for node in sorted(shared):
            self.concerns.look_soon(node, self.now, but=stream.name)

    def _node_changed(self, node: NodeId) -> None:
        """A node came, went or became another."""
        self.concerns.changed(node, streams=self.streams)

    def _connection_lost(self, event: ConnectionLost, now: float) -> list[PlannerAction]:
        self.decide_after = math.inf
        self.failure_detector.cut_off()
        return []

    def _fall_silent(self, now: float, nodes: Iterable[NodeId]) -> list[PlannerAction]:
        """See which of these nodes have said nothing for too long, or are heard again."""
        peers, before = self.registry.peers, self.registry.silent
        # a planner's own reports are nobody's business here, least of all this one's
        living = {n for n in nodes if peers.alive(n) and peers.states[n].tier in _TIERS}
        suspects = {n for n in living if self.failure_detector.suspects(n, now)}
        self.registry.silent = frozenset((before - set(nodes)) | suspects)
        after_s = self.settings.lost_after_s
        fallen, back = self.registry.silent - before, before - self.registry.silent
        for node in sorted(fallen | back):
            self._node_changed(node)
        return [
            *(Log(logging.WARNING, f"nothing from {n} for {after_s:g} s") for n in sorted(fallen)),
            *(Log(logging.INFO, f"{n} is heard again") for n in sorted(back) if peers.alive(n)),
        ]

    def _connection_restored(self, event: ConnectionRestored, now: float) -> list[PlannerAction]:
        self.decide_after = now + self.settings.settle_s
        self.failure_detector.listening(now)
        for stream in self.streams.values():
            stream.preparing.clear()
        self.agenda.mark(self.streams)
        return []

    def _state_arrived(self, event: PeerStateArrived, now: float) -> list[PlannerAction]:
        state = event.state
        self.failure_detector.heard(state.node, now)
        before, was_there = self.registry.peers.states.get(state.node), self.registry.is_there(state.node)
        has_changed = self.registry.learn_state(state)
        if has_changed and (state.state is LifeState.LOST or (was_there and state.state is not LifeState.STOPPED)):
            self.lost_at[state.node] = now
        if self.registry.peers.states.get(state.node) != before:
            self._node_changed(state.node)
            for name in sorted(self.concerns.of_device(state.node)):
                self._count_load(self.streams[name])
        return [Log(logging.INFO, f"{state.node} ({state.tier}) is {state.state.value}")] if has_changed else []

    def _forgotten(self, node: NodeId) -> list[PlannerAction]:
        """Make room for others. A device is remembered with its streams, whose epochs go on should it come back."""
        if self.concerns.of_device(node) or not self.registry.forget(node):
            return []
        self.nodes.discard(node)
        self.lost_at.pop(node, None)
        self.failure_detector.forget(node)
        self._node_changed(node)
        return [Log(logging.INFO, f"{node} is forgotten")]

    def _info_arrived(self, event: InfoArrived, now: float) -> list[PlannerAction]:
        info = event.info
        is_new = self.registry.infos.get(info.node) != info
        wrong = self.registry.learn_info(info)
        for name, model in info.streams.items():
            known = self.streams.get(name)
            if known is None or (known.binding.device == info.node and known.binding.model != model):
                self._serve(name, info.node, model)
        if is_new:
            self._node_changed(info.node)
        return [Log(logging.WARNING, wrong)] if wrong else []

    def _serve(self, name: StreamId, device: NodeId, model: str) -> None:
        configured = self.plan_requests.get(name) or PlanRequest()
        before = self.streams.get(name)
        rolled_from = before.plan if before is not None and before.binding.device == device else None
        if before is not None:
            self.concerns.leave(name, before.binding)
            self.concerns.hold(name, before.plan.members if before.plan is not None else (), ())
        self.streams[name] = PlannedStream(name, StreamBinding(device, model), configured)
        if rolled_from is not None and family_of(rolled_from.model) == family_of(model):
            self.streams[name].rolled_from, self.streams[name].rolled_at = rolled_from, self.now
            self.streams[name].requested = before.requested if before is not None else None
        self.concerns.serve(name, self.streams[name].binding)
        self._adopt(name)
        self._count_load(self.streams[name])
        self.agenda.mark([name], Need.URGENT)

    def _take_over(self, names: Iterable[StreamId]) -> list[PlannerAction]:
        """A stream has one device: who had it first, while it lives. Another one that has it, too, is told of."""
        actions: list[PlannerAction] = []
        for name in names:
            device = self.streams[name].binding.device
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
        self.registry.learn_profile(event.node, event.profile)
        self.concerns.look_at(event.node, now)
        return []

    def _link_arrived(self, event: LinkArrived, now: float) -> list[PlannerAction]:
        self.registry.learned.learn_link(event.report, now)
        self.concerns.look_at(event.report.node, now)
        return []

    def _telemetry_arrived(self, event: TelemetryArrived, now: float) -> list[PlannerAction]:
        self.failure_detector.heard(event.node, event.heard_at if event.heard_at is not None else now)
        node, report, registry = event.node, event.report, self.registry
        named = sorted(self.concerns.with_member(node) | self.concerns.of_device(node))
        plans = [plan for name in named if (plan := self.streams[name].plan) is not None]
        registry.learned.learn(node, report, plans, now)
        if report.work_watts is not None:
            self._learn_watts(node, report.work_watts)
        own = {name: self.streams[name] for name in sorted(self.concerns.of_device(node))}
        for segment in report.segments:
            if segment.stream in own:
                self.rates.counted(segment.stream, segment.frames, now)
        for ratio in report.ratios:
            coded = self.streams.get(ratio.stream)
            if coded is not None and coded.binding.ratios.learn(ratio, self.settings.band):
                self.agenda.mark([coded.name])
        for name, stream in own.items():
            if name in report.frame_overheads:
                registry.learned.learn_frame_overhead(node, stream.binding.model, report.frame_overheads[name], now)
        touched = {n for p in plans if p.device == node for n in p.members} | {tile.worker for tile in report.tiles}
        self.concerns.look_at(node, now)
        for other in sorted(touched - {node}):  # a device's legs and tiles say something of others as well
            self.concerns.look_soon(other, now)
        for stream in own.values():
            self._count_load(stream)
        return []

    def _learn_watts(self, node: NodeId, watts: float) -> None:
        """Take what a node measured once that has left its band."""
        known = self.static_costs.draws.get(node, NO_DRAW).watts
        if abs(watts - known) > self.settings.band * known:
            self.static_costs = self.static_costs.with_watts(node, watts)
            self.agenda.mark(self.streams)

    def _manifest_arrived(self, event: ManifestArrived, now: float) -> list[PlannerAction]:
        if event.graph.digest not in self.registry.graphs:
            self.registry.learn_graph(event.graph)
            self.agenda.mark(self.streams)
        return []

    def _pieces_event(
        self, event: PackageArrived | PackageRemoved | HoldingsArrived, now: float
    ) -> list[PlannerAction]:
        match event:
            case PackageArrived():
                self.registry.fetches.learn_package(event.package)
            case PackageRemoved():
                self.registry.fetches.forget_package(event.digest)
            case HoldingsArrived():
                return self._holdings_arrived(event, now)
        return []

    def _holdings_arrived(self, event: HoldingsArrived, now: float) -> list[PlannerAction]:
        """A node to which pieces come is at it, however long that takes."""
        node = event.holdings.node
        if self.registry.fetches.learn_holdings(event.holdings):
            for name in sorted(self.concerns.with_member(node)):
                stream = self.streams[name]
                stream.preparing = {key: now if key[0] == node else at for key, at in stream.preparing.items()}
        return []

    def _plan_seen(self, event: PlanSeen, now: float) -> list[PlannerAction]:
        self.seen_plans.setdefault(event.plan.stream, event.plan)
        self._adopt(event.plan.stream)
        if event.plan.stream in self.streams:
            self.agenda.mark([event.plan.stream])
        return []

    def _adopt(self, name: StreamId) -> None:
        """Go on with the plan of an earlier planner, and with what a person had placed by hand."""
        stream, plan = self.streams.get(name), self.seen_plans.get(name)
        if stream is not None and stream.plan is None and plan is not None and plan.device == stream.binding.device:
            self.hold(stream, plan)
            stream.adopted = True
            if plan.by_hand is not None:
                stream.forced, stream.forced_tiles = plan.by_hand.placement, plan.by_hand.tiles
            if plan.plan_request is not None:
                with contextlib.suppress(TrisectError):  # of another version of trisect: the configuration's hold
                    stream.requested = read_plan_request(plan.plan_request)

    def _applied_arrived(self, event: PeerAppliedArrived, now: float) -> list[PlannerAction]:
        applied, actions = event.applied, list[PlannerAction]()
        for name in sorted(self.registry.learn_applied(applied) & self.streams.keys()):
            stream, held = self.streams[name], applied.streams.get(name)
            active = held is not None and stream.plan is not None and held.active == stream.plan.epoch
            if active and applied.node == stream.binding.device:
                stream.last_good = stream.plan
            self.agenda.mark([name])
            if text := no_longer_late(self.registry.peers, stream, applied.node):
                self._node_changed(applied.node)
                actions.append(Log(logging.INFO, text))
        return actions
