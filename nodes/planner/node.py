"""The planner's shell: listens to what nodes say of themselves, publishes plans, answers requests. No TensorFlow."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from broker import topics
from broker.session import Message
from broker.topics import Namespace
from nodes.config.plan_request import read_wishes
from nodes.config.sections import Config
from nodes.planner.machine import events as pe
from nodes.planner.machine.equality import Equality
from nodes.planner.machine.planner import PlannerMachine, PlannerSettings
from nodes.planner.offline import terms_of
from nodes.protocol.commands import OBJECTIVE, PLACE
from nodes.protocol.messages import (
    Applied,
    LifeState,
    LinkReport,
    MessageError,
    NodeInfo,
    NodeState,
    from_bytes,
    parse_json,
    to_bytes,
)
from nodes.protocol.reports import read_report
from nodes.session.presence import PLANNER_TIER, Presence, require_free
from nodes.tier.machine.actions import Log
from nodes.tier.machine.events import ConnectionLost, ConnectionRestored, PeerAppliedArrived, PeerStateArrived, Tick
from nodes.tier.meter import Meter
from pipeline.errors import ConfigError, TrisectError
from pipeline.graph import ModelGraph
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.profiling.profile import Profile

_log = logging.getLogger(__name__)

REPORTS_MISSED = 3
TICK_S = 0.25
DECIDE_S = 1.0
"""So long a decision may wait for events that keep coming."""


class PlannerNode:
    """The planner process; `run` serves until `stop`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.names = Namespace(config.pipeline)
        self.meter = Meter()
        self.is_serving = False
        self._inbox: queue.SimpleQueue[pe.PlannerEvent | None] = queue.SimpleQueue()

    def run(self) -> None:
        """Come up, plan, leave. Raises IdInUse, SessionTaken, BrokerError."""
        section = self.config.planner
        require_free(self.config, self.names, section.id)
        self.presence = Presence(
            self.config,
            self.names,
            section.id,
            PLANNER_TIER,
            on_up=lambda: self._inbox.put(ConnectionRestored()),
            on_down=lambda _: self._inbox.put(ConnectionLost()),
            on_taken=self.stop,
        )
        self.session = self.presence.session
        self._subscribe()
        self.presence.enter(LifeState.READY)
        settings = PlannerSettings(
            margin=section.margin,
            min_seconds_between_plans=section.min_seconds_between_plans,
            settle_s=section.settle_s,
            prepare_timeout_s=section.prepare_timeout_s,
            band=section.band,
            equality=Equality(self.config.exact, self.config.tolerance),
            lost_after_s=max(section.lost_after_s, REPORTS_MISSED * self.config.telemetry.interval_s),
        )
        self.machine = PlannerMachine(
            settings,
            started_at=time.monotonic(),
            terms=terms_of(self.config),
            wishes={id_: stream.plan for id_, stream in self.config.streams.items()},
        )
        with self.presence:
            import_module("scipy.optimize")  # half a second, which the first plan would wait for
            self._loop()

    def stop(self) -> None:
        """End; from any thread or a signal handler."""
        self._inbox.put(None)

    def _subscribe(self) -> None:
        readers: dict[topics.Topic, Callable[[bytes, dict[str, str]], pe.PlannerEvent]] = {
            topics.STATE: lambda payload, _: PeerStateArrived(from_bytes(NodeState, payload)),
            topics.APPLIED: lambda payload, _: PeerAppliedArrived(from_bytes(Applied, payload)),
            topics.INFO: lambda payload, _: pe.InfoArrived(from_bytes(NodeInfo, payload)),
            topics.LINK: lambda payload, _: pe.LinkArrived(from_bytes(LinkReport, payload)),
            topics.MODEL: lambda payload, _: pe.ManifestArrived(ModelGraph.from_json(parse_json(payload))),
            topics.PLAN: lambda payload, _: pe.PlanSeen(Plan.from_json(parse_json(payload))),
            topics.PROFILE: _read_profile,
            topics.TELEMETRY: _read_telemetry,
        }
        for kind, read in readers.items():
            self.session.subscribe([self.names.filter(kind)], partial(self._on_json, read), qos=kind.qos)
        for verb, read_request in ((PLACE, _read_placing), (OBJECTIVE, _read_wishes)):
            topic = self.names.topic(topics.COMMAND, node=self.config.planner.id, verb=verb)
            self.session.subscribe([topic], partial(self._on_request, read_request))

    def _on_json(self, read: Callable[[bytes, dict[str, str]], pe.PlannerEvent], message: Message) -> None:
        parsed = self.names.parse(message.topic)
        if not message.payload or parsed is None:
            return
        try:
            self._inbox.put(read(message.payload, parsed[1]))
        except TrisectError as error:
            self.meter.count("bad_messages_total")
            _log.warning("%s: %s", message.topic, error)

    def _on_request(self, read: Callable[[Message], pe.PlannerEvent], message: Message) -> None:
        try:
            self._inbox.put(read(message))
        except (MessageError, ConfigError) as error:
            self.presence.reply(message, {"ok": False, "error": str(error)})

    def _loop(self) -> None:
        self.is_serving = True
        report_at = decided_at = 0.0
        while True:
            try:
                event: pe.PlannerEvent | None = self._inbox.get(timeout=TICK_S)
            except queue.Empty:
                event = Tick()
            if event is None:
                return
            now = time.monotonic()
            # a decision may take longer than reports take to come: one for all that have
            more_wait = not self._inbox.empty() and now - decided_at < DECIDE_S
            decided_at = decided_at if more_wait else now
            for action in self.machine.handle(event, now, time.time(), more_wait=more_wait):
                self._perform(action)
            if now >= report_at:
                report_at = now + self.config.telemetry.interval_s
                self._report()

    def _perform(self, action: pe.PlannerAction) -> None:
        if isinstance(action, pe.PublishPlan):
            payload = to_bytes(action.plan.to_json(action.graph))
            self.session.keep(self.names.topic(topics.PLAN, stream=action.plan.stream), payload)
            self.meter.count("plans_total", int(not action.stays))
        elif isinstance(action, pe.Reply):
            self.presence.reply(action.ticket, dict(action.answer))
        elif isinstance(action, Log):
            _log.log(action.level, "%s", action.text)

    def _report(self) -> None:
        if self.session.is_up:
            topic = self.names.topic(topics.TELEMETRY, node=self.config.planner.id)
            self.session.publish(topic, to_bytes(self.meter.report()), qos=topics.TELEMETRY.qos)


def _read_profile(payload: bytes, fields: dict[str, str]) -> pe.PlannerEvent:
    return pe.ProfileArrived(NodeId(fields["node"]), Profile.from_json(parse_json(payload)))


def _read_telemetry(payload: bytes, fields: dict[str, str]) -> pe.PlannerEvent:
    return pe.TelemetryArrived(NodeId(fields["node"]), read_report(payload))


def _read_placing(message: Message) -> pe.PlannerEvent:
    request: dict[str, Any] = parse_json(message.payload)
    stream, edge_from, cloud_from = (request.get(name) for name in ("stream", "edge_from", "cloud_from"))
    if not isinstance(stream, str):
        raise MessageError("a place request needs a stream")
    for name, value in (("edge_from", edge_from), ("cloud_from", cloud_from)):
        if value is not None and not isinstance(value, str):
            raise MessageError(f"{name} must be a block's name, not {value!r}")
    auto, tiles = request.get("auto") is True, _read_tiles(request.get("tiles"))
    return pe.PlaceRequested(StreamId(stream), message, edge_from, cloud_from, auto, tiles)


def _read_tiles(value: Any) -> pe.TilesByHand | None:
    if value is None:
        return None
    asked = value if isinstance(value, dict) else {}
    grid, stack, workers = (asked.get(name) for name in ("grid", "stack", "workers"))
    if not isinstance(grid, str) or not isinstance(stack, str) or not isinstance(workers, list):
        raise MessageError("tiles need a grid and a stack as text, and a list of workers")
    return pe.TilesByHand(grid, stack, tuple(NodeId(str(worker)) for worker in workers))


def _read_wishes(message: Message) -> pe.PlannerEvent:
    request: dict[str, Any] = parse_json(message.payload)
    if not isinstance(request.get("stream"), str) or "wishes" not in request:
        raise MessageError("an objective request needs a stream, and wishes (null for the configuration's)")
    wishes = None if request["wishes"] is None else read_wishes(request["wishes"])
    return pe.WishesRequested(StreamId(request["stream"]), message, wishes)
