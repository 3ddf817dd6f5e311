"""The border where messages enter a process: each is checked once against its type and topic, or refused.

A refusal names topic, field and limit, is counted (`refused_total`) and logged now and then, and changes nothing. What
gets through is safe to decide on: finite, bounded, and from whom its topic says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from broker import topics
from broker.complaints import Complaints
from broker.errors import TopicError
from broker.messages import Message
from broker.topics import Namespace, Topic
from nodes.protocol.asking import REQUESTS, way_back
from nodes.protocol.messages import (
    Applied,
    LinkReport,
    MessageError,
    NodeInfo,
    NodeState,
    Owner,
    Report,
    from_bytes,
    parse_json,
    read_result,
)
from nodes.protocol.packages import Holdings, Version, read_fetch, read_published
from nodes.protocol.reports import read_report
from nodes.protocol.request_ids import RequestIds
from pipeline.errors import TrisectError
from pipeline.graph import ModelGraph
from pipeline.plan import NodeId, Plan
from pipeline.profiling.profile import Profile

_log = logging.getLogger(__name__)

MOST_CORRELATION = 1_024

_READERS: dict[Topic, Callable[[bytes], Any]] = {
    topics.STATE: lambda payload: from_bytes(NodeState, payload),
    topics.APPLIED: lambda payload: from_bytes(Applied, payload),
    topics.STREAM_OWNER: lambda payload: from_bytes(Owner, payload),
    topics.INFO: lambda payload: from_bytes(NodeInfo, payload),
    topics.LINK: lambda payload: from_bytes(LinkReport, payload),
    topics.MODEL: lambda payload: ModelGraph.from_json(parse_json(payload)),
    topics.PACKAGE: read_published,
    topics.VERSION: lambda payload: from_bytes(Version, payload),
    topics.HOLDINGS: lambda payload: from_bytes(Holdings, payload),
    topics.FETCH: read_fetch,
    topics.PLAN: lambda payload: Plan.from_json(parse_json(payload)),
    topics.PROFILE: lambda payload: Profile.from_json(parse_json(payload)),
    topics.TELEMETRY: read_report,
    topics.PING: parse_json,
    topics.TAKEN: parse_json,
    topics.COMMAND: parse_json,
    topics.RESULT: read_result,
    topics.REPLY: parse_json,
}
_NAMED_IN_TOPIC: dict[Topic, tuple[str, ...]] = {
    topics.STATE: ("node",),
    topics.APPLIED: ("node",),
    topics.INFO: ("node",),
    topics.LINK: ("node",),
    topics.MODEL: ("digest",),
    topics.PACKAGE: ("digest",),
    topics.VERSION: ("model",),
    topics.HOLDINGS: ("node",),
    topics.PLAN: ("stream",),
    topics.PROFILE: ("model",),
    topics.STREAM_OWNER: ("stream",),
    topics.RESULT: ("stream",),
}
"""Fields that a payload repeats from its topic. Access lists hold for topics, so a payload must not say otherwise."""


def read(kind: Topic, fields: dict[str, str], payload: bytes) -> Any:
    """The message on a topic of this kind. Raises TrisectError, which names the field and the limit."""
    value = _READERS[kind](payload)
    for name in _NAMED_IN_TOPIC.get(kind, ()):
        said = value[name] if isinstance(value, dict) else getattr(value, name)
        if said != fields[name]:
            raise MessageError(f"{name}: {fields[name]!r} as in its topic expected, not {said!r:.80}")
    return value


class Border:
    """The border of one process; `total` counts what it refused. Thread safe."""

    def __init__(self, names: Namespace) -> None:
        self._names = names
        self._refused = Complaints(_log)
        self._request_ids = RequestIds()

    @property
    def total(self) -> int:
        """Messages refused so far."""
        return self._refused.total

    def read(self, message: Message) -> Any | None:
        """The parsed message; None when it is refused, or a retained one was cleared."""
        parsed = self._names.parse(message.topic)
        if parsed is None or not message.payload:
            return None
        kind, fields = parsed
        try:
            value = read(kind, fields, message.payload)
        except TrisectError as error:
            self.refuse(message.topic, str(error))
            return None
        if isinstance(value, Report) and value.wrong:
            self.refuse(message.topic, value.wrong)  # that part of it
        return value

    def sender(self, message: Message) -> NodeId:
        """The node on whose topic the message came. Raises TopicError for a topic of no node."""
        parsed = self._names.parse(message.topic)
        if parsed is None or "node" not in parsed[1]:
            raise TopicError(f"{message.topic!r:.200} is no node's topic")
        return NodeId(parsed[1]["node"])

    def refuse(self, topic: str, why: str) -> None:
        """Count a message on this topic, and say why it is refused, once a minute for each sender."""
        parsed = self._names.parse(topic)
        sender = parsed[1].get("node") if parsed else None
        self._refused.add(sender or topic, f"{topic}: refused: {why}")

    def is_repeated(self, request: Message) -> bool:
        """True, and refused, for a request whose id was used before: it has its answer, or will have."""
        _, request_id = self.reply_to(request)
        if self._request_ids.is_new(request_id):
            return False
        self.refuse(request.topic, "its id was used before; each request needs one of its own")
        return True

    def reply_to(self, message: Message) -> tuple[str | None, bytes | None]:
        """Topic of an answer to the message, and its correlation data; None for a topic that answers may not go to.

        A request says it in its payload as well: over a bridge in MQTT 3.1.1 nothing else arrives.
        """
        topic, correlation = message.response_topic, message.correlation
        if topic is None and (parsed := self._names.parse(message.topic)) and parsed[0] in REQUESTS:
            topic, correlation = way_back(message.payload)
        if topic is None:
            return None, correlation
        if not self._names.is_reply(topic):
            self.refuse(
                message.topic, f"response topic: one below {self._names.prefix}reply/ expected, not {topic!r:.80}"
            )
            return None, correlation
        if correlation is not None and len(correlation) > MOST_CORRELATION:
            nbytes = len(correlation)
            self.refuse(message.topic, f"correlation data: at most {MOST_CORRELATION} bytes, not {nbytes}")
            return None, None
        return topic, correlation
