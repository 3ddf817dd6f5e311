"""A request of one process to another, and its answer.

Where the answer goes and which request it is for stand in the MQTT 5 properties and in the payload as well: a bridge in
MQTT 3.1.1, which is mosquitto's default, takes properties off.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Final

from broker import topics
from broker.session import Session
from broker.topics import Namespace
from nodes.protocol.commands import PING, TAKEN
from nodes.protocol.messages import MessageError, parse_json, to_bytes
from pipeline.plan import NodeId

REPLY_TO: Final = "reply_to"
REQUEST_ID: Final = "request_id"
_OWN_TOPICS: Final = {PING: topics.PING, TAKEN: topics.TAKEN}
REQUESTS: Final = (topics.COMMAND, *_OWN_TOPICS.values())
"""Kinds of topics whose messages are answered."""


def ask(
    session: Session,
    names: Namespace,
    node: NodeId,
    verb: str,
    request: Mapping[str, Any],
    *,
    reply_topic: str,
    timeout_s: float,
) -> dict[str, Any]:
    """Send a request to a node and return its answer. Not in a network thread.

    Raises RequestTimeout, BrokerRefused without the right to ask, MessageError.
    """
    request_id = secrets.token_hex(8)
    payload = to_bytes({**request, REPLY_TO: reply_topic, REQUEST_ID: request_id})
    return parse_json(
        session.request(
            request_topic(names, node, verb),
            payload,
            reply_topic=reply_topic,
            timeout_s=timeout_s,
            correlation=request_id.encode(),
            id_of=_id_of,
        )
    )


def request_topic(names: Namespace, node: NodeId, verb: str) -> str:
    """The topic of requests of this kind to a node: others may write a ping than may command."""
    if verb in _OWN_TOPICS:
        return names.topic(_OWN_TOPICS[verb], node=node)
    return names.topic(topics.COMMAND, node=node, verb=verb)


def way_back(payload: bytes) -> tuple[str | None, bytes | None]:
    """Reply topic and id of a request, as its payload has them; None for what is not there."""
    try:
        asked = parse_json(payload)
    except MessageError:
        return None, None
    topic, request_id = asked.get(REPLY_TO), asked.get(REQUEST_ID)
    return (
        topic if isinstance(topic, str) else None,
        request_id.encode(errors="replace") if isinstance(request_id, str) else None,
    )


def _id_of(answer: bytes) -> bytes | None:
    return way_back(answer)[1]
