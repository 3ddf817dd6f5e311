"""Requests to a running pipeline: frames, placements, plans. No TensorFlow."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from broker import topics
from broker.errors import RequestTimeout
from broker.session import Message, Session
from broker.topics import Namespace, valid_id
from nodes.config.sections import Config
from nodes.protocol.asking import ask
from nodes.protocol.border import Border
from nodes.protocol.commands import DRAIN, OBJECTIVE, PING, PING_TIMEOUT_S, PLACE
from nodes.protocol.messages import Applied, LifeState, MessageError, NodeName, NodeState, from_bytes, parse_json
from nodes.session.presence import guest_session, reply_topic
from pipeline import ranges
from pipeline.errors import ConfigError, TrisectError
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.ranges import Epoch

CONNECT_WAIT_S = 10.0
QUIET_S = 0.5
ASK_AGAIN_S = 2.0
ABSENT_S = 10.0


@dataclass(frozen=True, slots=True)
class _Placed:
    """The planner's answer to a request that it has met."""

    device: NodeName
    epoch: Epoch
    plan: dict[str, Any]


class RequestRefused(TrisectError):
    """A node answered a request with an error, or in time with nothing."""


def require_stream(config: Config, stream: str | None) -> StreamId:
    """The stream of this name, or the only one there is. Raises ConfigError."""
    known = ", ".join(config.streams)
    if stream is None and len(config.streams) == 1:
        return next(iter(config.streams))
    if stream is None or stream not in config.streams:
        raise ConfigError(f"unknown stream {stream!r}: give --stream, one of {known}")
    return StreamId(stream)


def place(
    config: Config,
    stream: StreamId,
    *,
    edge_from: str | None = None,
    cloud_from: str | None = None,
    auto: bool = False,
    tiles: Mapping[str, Any] | None = None,
    timeout_s: float = 60.0,
) -> dict[str, Any]:
    """Force a placement, or hand it back to the planner; returns the plan's JSON once the device has made it active.

    `tiles` shares blocks of the edge out: `grid` (2x2), `stack` (FROM:TO), `workers` (a list; empty: all that can).
    Raises RequestRefused with the planner's reason, or when the plan is not active in time.
    """
    request = {"stream": stream, "edge_from": edge_from, "cloud_from": cloud_from, "auto": auto, "tiles": tiles}
    return _ask_for_plan(config, stream, PLACE, request, timeout_s)


def request_plan(
    config: Config, stream: StreamId, plan_request: Mapping[str, Any] | None, *, timeout_s: float = 60.0
) -> dict[str, Any]:
    """Have the stream planned for something else, as a configuration would have it (None: as it does).

    Returns the plan's JSON once the device has made it, or one that has followed it, active. Raises RequestRefused, as
    `place` does.
    """
    return _ask_for_plan(config, stream, OBJECTIVE, {"stream": stream, "plan_request": plan_request}, timeout_s)


def _ask_for_plan(
    config: Config, stream: StreamId, verb: str, request: Mapping[str, Any], timeout_s: float
) -> dict[str, Any]:
    names = Namespace(config.pipeline)
    active: dict[str, int | None] = {}
    changed = threading.Condition()
    border = Border(names)

    def on_applied(message: Message) -> None:
        applied: Applied | None = border.read(message)
        with changed:
            if applied is not None and stream in applied.streams:
                active[applied.node] = applied.streams[stream].active
                changed.notify_all()

    with guest_session(config, verb) as session:
        session.start(CONNECT_WAIT_S)
        answer = _request(config, session, names, verb, request, timeout_s=timeout_s)
        session.subscribe([names.filter(topics.APPLIED)], on_applied)
        placed = ranges.read(_Placed, answer, error=MessageError, what="an answer of the planner")
        with changed:
            # a plan that the planner has changed once more meanwhile is never active itself
            done = changed.wait_for(lambda: (active.get(placed.device) or 0) >= placed.epoch, timeout_s)
    if not done:
        raise RequestRefused(
            f"epoch {placed.epoch} of stream {stream} was published but is not active after {timeout_s:.0f} s; "
            "see `trisect watch` for the node that is not ready"
        )
    return placed.plan


def drain(config: Config, node: NodeId, *, undo: bool = False, timeout_s: float = 60.0) -> None:
    """Have plans leave the node out, and return when no epoch holds it; with `undo`, have it take part again.

    Holds for as long as the node's process lives. Raises ConfigError for a node that is neither
    in the configuration nor there, RequestRefused also when it still holds epochs in the end.
    """
    names = Namespace(config.pipeline)
    held: dict[str, tuple[int, ...]] = {}
    changed = threading.Condition()
    border = Border(names)

    def on_applied(message: Message) -> None:
        applied: Applied | None = border.read(message)
        if applied is None:
            return
        with changed:
            held.clear()
            held.update({stream: one.ready for stream, one in applied.streams.items() if one.ready})
            held[""] = ()
            changed.notify_all()

    with guest_session(config, DRAIN) as session:
        session.start(CONNECT_WAIT_S)
        _require_there(config, session, names, node)
        answers = reply_topic(config, session)
        try:
            request = {"undo": True} if undo else {}
            answer = ask(session, names, node, DRAIN, request, reply_topic=answers, timeout_s=CONNECT_WAIT_S)
        except RequestTimeout as error:
            raise RequestRefused(f"{node} did not answer; is it running? {error}") from error
        if not answer.get("ok"):
            raise RequestRefused(str(answer.get("error", "refused without a reason")))
        if undo:
            return
        session.subscribe([names.topic(topics.APPLIED, node=node)], on_applied)
        with changed:
            empty = changed.wait_for(lambda: held == {"": ()}, timeout_s)
    if not empty:
        still = "; ".join(f"{stream} epoch {max(epochs)}" for stream, epochs in held.items() if epochs)
        raise RequestRefused(
            f"{node} still holds {still or 'what it has not said'} after {timeout_s:.0f} s; is the planner running?"
        )


def forget(config: Config, node: NodeId) -> list[str]:
    """Clear what the broker retains of a node that is gone for good; returns the topics.

    Raises RequestRefused when a living process answers to its id, or nothing is retained, or the broker has an access
    list that lets the node alone clear its topics.
    """
    member = config.broker.credentials
    if member is not None and member.name != node:
        raise RequestRefused(
            f"only {node} itself may clear its topics at this broker, or who enrolled it: trisect forget {node} "
            "--folder FOLDER, with the folder that `trisect init` made"
        )
    names = Namespace(config.pipeline)
    state_topic = names.topic(topics.STATE, node=node)
    arrived: queue.SimpleQueue[Message] = queue.SimpleQueue()
    found: dict[str, bytes] = {}
    with guest_session(config, "forget") as session:
        session.start(CONNECT_WAIT_S)
        answers = reply_topic(config, session)
        try:
            answer = ask(session, names, node, PING, {}, reply_topic=answers, timeout_s=PING_TIMEOUT_S)
            where = f"process {answer.get('pid')} on {answer.get('host')}"
            raise RequestRefused(f"{node} is alive: {where} answers to it; stop it first")
        except RequestTimeout:
            pass
        discovery = topics.discovery_filter(config.pipeline, node)
        session.subscribe([f"{state_topic.rpartition('/')[0]}/#", discovery], arrived.put)
        while True:
            try:
                message = arrived.get(timeout=QUIET_S)
            except queue.Empty:
                break
            found[message.topic] = message.payload
        found = {topic: payload for topic, payload in found.items() if payload}
        if not found:
            raise RequestRefused(f"the broker retains nothing of a node {node!r}")
        if state_topic in found:
            state = _state(found[state_topic])
            if state is not None and state.state not in (LifeState.LOST, LifeState.STOPPED):
                raise RequestRefused(
                    f"{node} is {state.state.value} as far as the broker knows, though it does not answer; if it is "
                    "gone, the broker says `lost` in a moment: try again then"
                )
        for topic in found:
            session.publish(topic, b"", retain=True)
    return sorted(found)


def _state(payload: bytes) -> NodeState | None:
    """None for what is no state: nobody wrote it who could be alive, and it is to be cleared."""
    try:
        return from_bytes(NodeState, payload)
    except MessageError:
        return None


def _require_there(config: Config, session: Session, names: Namespace, node: NodeId) -> None:
    """Raise ConfigError for a node that is not in the configuration and has not joined by itself either."""
    if node in config.nodes:
        return
    states: queue.SimpleQueue[Message] = queue.SimpleQueue()
    if valid_id(node):
        session.subscribe([names.topic(topics.STATE, node=node)], states.put)
        with suppress(queue.Empty):
            states.get(timeout=QUIET_S)
            return
    raise ConfigError(
        f"no node {node!r:.150} in the configuration, which has: {', '.join(config.nodes)}; and none has joined as that"
    )


def _request(
    config: Config, session: Session, names: Namespace, verb: str, request: Mapping[str, Any], *, timeout_s: float
) -> dict[str, Any]:
    """Ask the planner, and again while it does not answer: it may be starting, and asking twice does no harm.

    Each time it gets twice as long, since a busy planner has to answer what was asked before, too. One whose state does
    not say that it is there is given up after `ABSENT_S`.
    """
    planner, answers = config.planner.id, reply_topic(config, session)
    states: list[NodeState | None] = [None]

    def on_state(message: Message) -> None:
        states[0] = _state(message.payload)

    session.subscribe([names.topic(topics.STATE, node=planner)], on_state)
    began, wait_s = time.monotonic(), ASK_AGAIN_S
    while True:
        left_s = began + timeout_s - time.monotonic()
        try:
            wait_s = max(ASK_AGAIN_S, min(wait_s, left_s))
            answer = ask(session, names, planner, verb, request, reply_topic=answers, timeout_s=wait_s)
            break
        except RequestTimeout as error:
            is_there = states[0] is not None and states[0].state in (LifeState.INIT, LifeState.READY)
            if time.monotonic() - began > (timeout_s if is_there else min(timeout_s, ABSENT_S)):
                raise RequestRefused(f"the planner ({planner}) did not answer: {error}") from error
            wait_s *= 2
    if not answer.get("ok"):
        raise RequestRefused(str(answer.get("error", "refused without a reason")))
    return answer


def running_plans(config: Config) -> list[dict[str, Any]]:
    """The plans that are retained on the broker, by stream."""
    names = Namespace(config.pipeline)
    arrived: queue.SimpleQueue[Message] = queue.SimpleQueue()
    plans: dict[str, dict[str, Any]] = {}
    border = Border(names)
    with guest_session(config, "plan") as session:
        session.start(CONNECT_WAIT_S)
        session.subscribe([names.filter(topics.PLAN)], arrived.put)
        while True:
            try:
                message = arrived.get(timeout=QUIET_S)
            except queue.Empty:
                return [plans[stream] for stream in sorted(plans)]
            plan: Plan | None = border.read(message)
            if plan is not None:
                plans[plan.stream] = parse_json(message.payload)
