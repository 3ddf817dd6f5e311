"""What the command line asks of a running pipeline: frames, placements, plans. No TensorFlow."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from broker import topics
from broker.errors import BrokerError, RequestTimeout
from broker.session import Channel, Message, Session
from broker.topics import Namespace
from nodes.messages import Applied, MessageError, from_bytes, parse_json, to_bytes
from nodes.planner_node import OBJECTIVE, PLACE
from nodes.presence import guest_session
from nodes.sections import Config
from pipeline.errors import ConfigError, TrisectError
from pipeline.plan import StreamId

CONNECT_WAIT_S = 10.0
QUIET_S = 0.5
ASK_AGAIN_S = 2.0


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
    timeout_s: float = 60.0,
) -> dict[str, Any]:
    """Force a placement, or hand it back to the planner; returns the plan's JSON once the device has made it active.

    Raises RequestRefused with the planner's reason, or when the plan is not active in time.
    """
    request = {"stream": stream, "edge_from": edge_from, "cloud_from": cloud_from, "auto": auto}
    return _ask_for_plan(config, stream, PLACE, request, timeout_s)


def wish(
    config: Config, stream: StreamId, wishes: Mapping[str, Any] | None, *, timeout_s: float = 60.0
) -> dict[str, Any]:
    """Have the stream planned for something else, as a configuration would have it (None: as it does).

    Returns the plan's JSON once the device has made it active. Raises RequestRefused, as `place` does.
    """
    return _ask_for_plan(config, stream, OBJECTIVE, {"stream": stream, "wishes": wishes}, timeout_s)


def _ask_for_plan(
    config: Config, stream: StreamId, verb: str, request: Mapping[str, Any], timeout_s: float
) -> dict[str, Any]:
    names = Namespace(config.pipeline)
    active: dict[str, int | None] = {}
    changed = threading.Condition()

    def on_applied(message: Message) -> None:
        try:
            applied = from_bytes(Applied, message.payload)
        except MessageError:
            return  # cleared, or from a node of another version; what counts is the device's
        with changed:
            if stream in applied.streams:
                active[applied.node] = applied.streams[stream].active
                changed.notify_all()

    with guest_session(config, verb) as session:
        session.start(CONNECT_WAIT_S)
        answer = _request(config, session, names, verb, request, timeout_s=min(10.0, timeout_s))
        session.subscribe([names.filter(topics.APPLIED)], on_applied)
        with changed:
            done = changed.wait_for(lambda: active.get(answer["device"]) == answer["epoch"], timeout_s)
    if not done:
        raise RequestRefused(
            f"epoch {answer['epoch']} of stream {stream} was published but is not active after {timeout_s:.0f} s; "
            "see `trisect watch` for the node that is not ready"
        )
    plan: dict[str, Any] = answer["plan"]
    return plan


def _request(
    config: Config, session: Session, names: Namespace, verb: str, request: Mapping[str, Any], *, timeout_s: float
) -> dict[str, Any]:
    """Ask the planner, again and again while it does not answer: it may be starting, and asking twice does no harm."""
    topic = names.topic(topics.COMMAND, node=config.planner.id, verb=verb)
    reply_topic = names.topic(topics.REPLY, client=session.name)
    give_up = time.monotonic() + timeout_s
    while True:
        try:
            reply = session.request(topic, to_bytes(request), reply_topic=reply_topic, timeout_s=ASK_AGAIN_S)
            break
        except RequestTimeout as error:
            if time.monotonic() > give_up:
                raise RequestRefused(f"the planner ({config.planner.id}) did not answer: {error}") from error
    answer = parse_json(reply)
    if not answer.get("ok"):
        raise RequestRefused(str(answer.get("error", "refused without a reason")))
    return answer


def running_plans(config: Config) -> list[dict[str, Any]]:
    """The plans that are retained on the broker, by stream."""
    names = Namespace(config.pipeline)
    arrived: queue.SimpleQueue[Message] = queue.SimpleQueue()
    plans: dict[str, dict[str, Any]] = {}
    with guest_session(config, "plan") as session:
        session.start(CONNECT_WAIT_S)
        session.subscribe([names.filter(topics.PLAN)], arrived.put)
        while True:
            try:
                message = arrived.get(timeout=QUIET_S)
            except queue.Empty:
                return [plans[stream] for stream in sorted(plans)]
            if message.payload:
                plan = parse_json(message.payload)
                plans[str(plan["stream"])] = plan


def publish(
    config: Config, stream: StreamId, files: Sequence[Path], *, rate_hz: float | None, timeout_s: float
) -> Iterator[dict[str, Any]]:
    """Publish files as frames, and yield the result of each as it comes.

    Raises ConfigError for a file that cannot be read, RequestRefused when results stay away for `timeout_s`.
    """
    names = Namespace(config.pipeline)
    results: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with guest_session(config, "publish") as session:
        session.start(CONNECT_WAIT_S)
        reply_topic = names.topic(topics.REPLY, client=session.name)
        session.subscribe([reply_topic], results.put)
        topic = names.topic(topics.FRAME, stream=stream)
        open_: set[bytes] = set()
        next_at = time.monotonic()
        for number, file in enumerate(files):
            time.sleep(max(0.0, next_at - time.monotonic()))
            next_at = time.monotonic() + (1.0 / rate_hz if rate_hz else 0.0)
            correlation = f"{file.name}#{number}".encode()
            _publish_frame(session, topic, file, reply_topic, correlation)
            open_.add(correlation)
        while open_:
            try:
                message = results.get(timeout=timeout_s)
            except queue.Empty:
                raise RequestRefused(
                    f"{len(open_)} of {len(files)} frames have no result after {timeout_s:.0f} s; "
                    "is the device node running? see `trisect watch`"
                ) from None
            if message.correlation in open_:
                open_.discard(message.correlation)
                yield parse_json(message.payload)


def _publish_frame(session: Session, topic: str, file: Path, reply_topic: str, correlation: bytes) -> None:
    try:
        payload = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    try:
        session.publish(
            topic, payload, channel=Channel.BULK, response_topic=reply_topic, correlation=correlation, wait_s=None
        )
    except BrokerError as error:
        raise RequestRefused(f"{file}: {error}") from error
