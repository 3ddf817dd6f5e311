"""The planner's shell: listens to what nodes say of themselves, publishes plans, answers requests. No TensorFlow."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

from pydantic import Field, Strict

from broker import topics
from broker.complaints import shortened
from broker.messages import Channel
from broker.session import Message
from broker.topics import Namespace
from nodes.config.plan_request import read_plan_request
from nodes.config.sections import Config
from nodes.instruments.node_metrics import NodeMetrics
from nodes.planner.inbox import STOP, Inbox
from nodes.planner.machine import events as pe
from nodes.planner.machine.equality import Equality
from nodes.planner.machine.planner import PlannerMachine, PlannerSettings
from nodes.planner.offline import static_costs_of
from nodes.protocol import versions
from nodes.protocol.commands import OBJECTIVE, PLACE, PRICE
from nodes.protocol.messages import (
    LifeState,
    MessageError,
    NodeInfo,
    NodeName,
    NodeState,
    StreamName,
    parse_json,
    to_bytes,
)
from nodes.protocol.packages import Holdings
from nodes.session import service
from nodes.session.guard import Guard
from nodes.session.presence import PLANNER_TIER, IdCheck, Presence
from nodes.tier.machine.actions import Log, Refuse
from nodes.tier.machine.events import (
    ConnectionLost,
    ConnectionRestored,
    PeerAppliedArrived,
    PeerForgotten,
    PeerStateArrived,
    Tick,
)
from nodes.tier.meter import Meter
from pipeline import ranges
from pipeline.errors import ConfigError
from pipeline.plan import NodeId
from pipeline.ranges import MOST_REASON, Plain, Word
from pipeline.tiles_cost import MOST_TILES

_log = logging.getLogger(__name__)

REPORTS_MISSED = 3
TICK_S = 0.25
LEARN_S = DECIDE_S = 0.05
"""So long events are taken that keep coming, and so long streams are decided for then, one after the other."""


class PlannerNode:
    """The planner process; `run` serves until `stop`. `check` is that of its id, where it has begun already."""

    def __init__(self, config: Config, *, check: IdCheck | None = None) -> None:
        self.config = config
        self.names, self._check = Namespace(config.pipeline), check
        self.meter = Meter()
        self._metrics = NodeMetrics(config.planner.metrics, config.planner.id, PLANNER_TIER)
        self.is_serving = False
        self._why_stopped = ""
        self._guard = Guard(_log, str(config.planner.id))
        self._version = version("trisect")
        self._inbox = Inbox()
        self._births_heard = 0

    def run(self) -> None:
        """Come up, plan, leave. Raises IdInUse, SessionTaken, BrokerError."""
        section = self.config.planner
        check = self._check or IdCheck(self.config, self.names, section.id)
        import_module("scipy.optimize")  # a third of a second, which the first plan would wait for
        check.result()
        self.presence = Presence(
            self.config,
            self.names,
            section.id,
            PLANNER_TIER,
            on_down=lambda _: self._inbox.put(ConnectionLost()),
            on_taken=self.stop,
            why_stopped=lambda: self._why_stopped,
        )
        self.session = self.presence.session
        self._subscribe()
        self.presence.enter(LifeState.READY)
        self._inbox.put(ConnectionLost())  # until all that is retained has come
        settings = PlannerSettings(
            margin=section.margin,
            min_seconds_between_plans=section.min_seconds_between_plans,
            settle_s=section.settle_s,
            prepare_timeout_s=section.prepare_timeout_s,
            band=section.band,
            rule=section.rule,
            equality=Equality(self.config.exact, self.config.tolerance),
            lost_after_s=max(section.lost_after_s, REPORTS_MISSED * self.config.telemetry.interval_s),
        )
        self.machine = PlannerMachine(
            settings,
            started_at=time.monotonic(),
            static_costs=static_costs_of(self.config),
            processor_s=time.thread_time,
            plan_requests={id_: stream.plan for id_, stream in self.config.streams.items()},
        )
        with self._metrics, self.presence:
            self._loop()

    def stop(self, why: str = "") -> None:
        """End, and say why; from any thread or a signal handler."""
        self._why_stopped = why
        self._inbox.stop()

    def _subscribe(self) -> None:
        for kind, event in _RETAINED.items():
            self.session.subscribe([self.names.filter(kind)], partial(self._on_message, event), qos=kind.qos)
        for verb, read_request in (
            (PLACE, read_placing),
            (OBJECTIVE, read_objective_request),
            (PRICE, read_price_request),
        ):
            topic = self.names.topic(topics.COMMAND, node=self.config.planner.id, verb=verb)
            self.session.subscribe([topic], partial(self._on_request, read_request))

    def _on_message(self, event: Callable[[NodeId, Any], pe.PlannerEvent], message: Message) -> None:
        parsed, read = self.names.parse(message.topic), self.presence.border.read(message)
        if parsed is not None and not message.payload and (cleared := _CLEARED.get(parsed[0])) is not None:
            self._inbox.put(cleared(parsed[1]))
            return
        if isinstance(read, NodeInfo) and (why := versions.refusal(read.version, self._version)) is not None:
            self.presence.border.refuse(message.topic, why)
            return
        if parsed is not None and read is not None:
            self._inbox.put(event(NodeId(parsed[1].get("node", "")), read))
        if isinstance(read, NodeState):
            self._note_own_birth(read)

    def _note_own_birth(self, state: NodeState) -> None:
        """Said once all subscriptions stand, and on the same connection: what is retained has come before it."""
        said = (self.config.planner.id, self.presence.token, self.presence.births)
        if (state.node, state.session, state.births) == said and state.births != self._births_heard:
            if not self._births_heard:
                self._subscribe_reports()
            self._births_heard = state.births
            self._inbox.put(ConnectionRestored())

    def _subscribe_reports(self) -> None:
        """Ask for what many nodes say each second: once all that is retained has come, so that no first plan waits for
        it, and on a connection of its own, so that no acknowledgement of a plan does.
        """
        kind, handler = topics.TELEMETRY, partial(self._on_message, pe.TelemetryArrived)
        self.session.subscribe([self.names.filter(kind)], handler, qos=kind.qos, channel=Channel.BULK)

    def _on_request(self, read: Callable[[Message], pe.PlannerEvent], message: Message) -> None:
        if self.presence.border.is_repeated(message):
            return
        try:
            self._inbox.put(read(message))
        except (MessageError, ConfigError) as error:
            self.presence.border.refuse(message.topic, str(error))
            self.presence.reply(message, {"ok": False, "error": shortened(str(error), MOST_REASON)})

    def _loop(self) -> None:
        """Learn what has come, and decide for streams in between, so that neither has to wait for long.

        The machine's time is that at which the last event came while others wait behind it: nobody is taken for silent
        whose report is among them, however long decisions take.
        """
        self.is_serving = True
        service.ready()
        now = time.monotonic()
        tick_at = report_at = decide_at = now
        may_decide = True
        while True:
            item = self._inbox.take(0.0 if may_decide else TICK_S)
            service.alive()
            if item is STOP:
                service.stopping()
                return
            if item is not None:
                event, came = item
                now = max(now, came)  # it may have come while the inbox was looked at
                self._handle(event, now)
                may_decide = True
            if self._inbox.is_empty:
                now = max(now, time.monotonic())
            if now >= tick_at:
                tick_at = now + TICK_S
                self._handle(Tick(), now)
                may_decide = True
            if may_decide and (item is None or time.monotonic() >= decide_at):
                may_decide = self._decide_for(DECIDE_S if item is not None else 0.0, now)
                decide_at = time.monotonic() + LEARN_S
            if now >= report_at:
                report_at = now + self.config.telemetry.interval_s
                with self._guard.over("report"):
                    self._report()

    def _handle(self, event: pe.PlannerEvent, now: float) -> None:
        actions: list[pe.PlannerAction] = []
        with self._guard.over(event):
            actions = self.machine.learn(event, now, time.time())
        self._perform_all(actions)

    def _decide_for(self, seconds: float, now: float) -> bool:
        """Decide for one stream, and for others while there is time; returns whether there may be more."""
        until = time.monotonic() + seconds
        while self._decide(now):
            if time.monotonic() >= until:
                return True
        return False

    def _decide(self, now: float) -> bool:
        """Decide for one stream; returns whether there may be others."""
        actions: list[pe.PlannerAction] | None = []
        with self._guard.over("a decision"):
            actions = self.machine.decide_next(now, time.time())
        self._perform_all(actions or [])
        return actions is not None

    def _perform_all(self, actions: Sequence[pe.PlannerAction]) -> None:
        for action in actions:
            with self._guard.over(action):
                self._perform(action)

    def _perform(self, action: pe.PlannerAction) -> None:
        if isinstance(action, pe.PublishPlan):
            payload = to_bytes(action.plan.to_json(action.graph))
            self.session.keep(self.names.topic(topics.PLAN, stream=action.plan.stream), payload)
            self.meter.count("plans_total", int(not action.stays))
        elif isinstance(action, pe.Reply):
            self.presence.reply(action.request, dict(action.answer))
        elif isinstance(action, Refuse):
            self.presence.border.refuse(action.about, action.why)
        elif isinstance(action, Log):
            _log.log(action.level, "%s", action.text)

    def _report(self) -> None:
        report = self.meter.report() | {
            "refused_total": self.presence.border.total + self.session.refused_total,
            "missed_messages_total": self.session.missed_total,
            "internal_errors_total": self._guard.total + self.session.internal_errors_total,
            **self.presence.certificate_report(),
        }
        self._metrics.report(report, self.presence.state)
        if self.session.is_up:
            topic = self.names.topic(topics.TELEMETRY, node=self.config.planner.id)
            self.session.publish(topic, to_bytes(report), qos=topics.TELEMETRY.qos)


_RETAINED: dict[topics.Topic, Callable[[NodeId, Any], pe.PlannerEvent]] = {
    topics.STATE: lambda _, state: PeerStateArrived(state),
    topics.APPLIED: lambda _, applied: PeerAppliedArrived(applied),
    topics.INFO: lambda _, info: pe.InfoArrived(info),
    topics.LINK: lambda _, report: pe.LinkArrived(report),
    topics.MODEL: lambda _, graph: pe.ManifestArrived(graph),
    topics.PACKAGE: lambda _, package: pe.PackageArrived(package),
    topics.HOLDINGS: lambda _, holdings: pe.HoldingsArrived(holdings),
    topics.PLAN: lambda _, plan: pe.PlanSeen(plan),
    topics.PROFILE: pe.ProfileArrived,
}
_CLEARED: dict[topics.Topic, Callable[[dict[str, str]], pe.PlannerEvent]] = {
    topics.STATE: lambda fields: PeerForgotten(NodeId(fields["node"])),
    topics.HOLDINGS: lambda fields: pe.HoldingsArrived(Holdings(NodeId(fields["node"]))),
    topics.PACKAGE: lambda fields: pe.PackageRemoved(fields["digest"]),
}
"""What an empty message means, by topic and the topic's fields: who retained something there has taken it back."""


@dataclass(frozen=True, slots=True)
class _Tiles:
    """Tiles by hand, as a request has them."""

    grid: Word
    stack: Word
    workers: Annotated[tuple[NodeName, ...], Field(max_length=MOST_TILES)]


@dataclass(frozen=True, slots=True)
class _Placing:
    """A request to place a stream."""

    stream: StreamName
    edge_from: Word | None = None
    cloud_from: Word | None = None
    auto: Annotated[bool, Strict()] = False
    tiles: _Tiles | None = None


@dataclass(frozen=True, slots=True)
class _ObjectiveRequest:
    """A request to plan a stream for something else; null is the configuration's request."""

    stream: StreamName
    plan_request: Plain | None


@dataclass(frozen=True, slots=True)
class _PriceRequest:
    """A question for a price: of a placement, or with `plan_request` of the best plan under it."""

    stream: StreamName
    edge_from: Word | None = None
    cloud_from: Word | None = None
    plan_request: Plain | None = None


def read_placing(message: Message) -> pe.PlannerEvent:
    """A request to place a stream. Raises MessageError."""
    asked = ranges.read(_Placing, parse_json(message.payload), error=MessageError, what="a place request")
    tiles = pe.TilesByHand(asked.tiles.grid, asked.tiles.stack, asked.tiles.workers) if asked.tiles else None
    return pe.PlaceRequested(asked.stream, message, asked.edge_from, asked.cloud_from, asked.auto, tiles)


def read_objective_request(message: Message) -> pe.PlannerEvent:
    """A request to plan a stream for something else. Raises MessageError, ConfigError."""
    asked = ranges.read(_ObjectiveRequest, parse_json(message.payload), error=MessageError, what="an objective request")
    plan_request = None if asked.plan_request is None else read_plan_request(asked.plan_request)
    return pe.PlanRequested(asked.stream, message, plan_request)


def read_price_request(message: Message) -> pe.PlannerEvent:
    """A question for the price of a placement or a plan request. Raises MessageError, ConfigError."""
    asked = ranges.read(_PriceRequest, parse_json(message.payload), error=MessageError, what="a price request")
    plan_request = None if asked.plan_request is None else read_plan_request(asked.plan_request)
    return pe.PriceRequested(asked.stream, message, asked.edge_from, asked.cloud_from, plan_request)
