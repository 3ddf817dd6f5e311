"""A message to publish: its checks, its properties, and the size of its packet."""

from __future__ import annotations

import math
import time
from typing import Any, Final

from broker.errors import PayloadTooLarge, TopicError
from broker.messages import Payload, nbytes_of
from broker.mqtt.fields import MOST_VARINT
from broker.mqtt.packets import publish_size
from broker.mqtt.properties import Property
from broker.numbering import PLACEHOLDER, PROPERTY
from broker.outbox import Outgoing
from broker.trace_context import PROPERTY as TRACEPARENT

__all__ = ["expiry_s", "outgoing", "publish_properties"]

_MOST_BYTES: Final = 65_535
"""Of a topic and of correlation data: their length has two bytes."""
_MOST_PACKET_BYTES: Final = MOST_VARINT


def _check_topic(topic: str) -> None:
    try:
        nbytes = len(topic.encode())
    except UnicodeEncodeError:
        nbytes = 0
    if not 0 < nbytes <= _MOST_BYTES or any(character in topic for character in "+#\0"):
        raise TopicError(f"{topic[:80]!r} is no topic to publish on: 1 to {_MOST_BYTES:_} bytes without +, # and NUL")


def expiry_s(remaining_s: float) -> int:
    """MQTT counts whole seconds, and 0 would mean "at once"."""
    return max(1, math.ceil(remaining_s))


def publish_properties(
    *,
    remaining_s: float | None,
    response_topic: str | None,
    correlation: bytes | None,
    number: str | None = None,
    traceparent: str | None = None,
) -> dict[Property, Any]:
    """Properties of a PUBLISH. `number` is as `broker.numbering` has it, `traceparent` as `broker.trace_context`."""
    properties: dict[Property, Any] = {}
    if remaining_s is not None:
        properties[Property.MESSAGE_EXPIRY] = expiry_s(remaining_s)
    if response_topic is not None:
        properties[Property.RESPONSE_TOPIC] = response_topic
    if correlation is not None:
        properties[Property.CORRELATION_DATA] = correlation
    pairs = [(PROPERTY, number), (TRACEPARENT, traceparent)]
    if given := [pair for pair in pairs if pair[1] is not None]:
        properties[Property.USER_PROPERTY] = given
    return properties


def outgoing(
    topic: str,
    payload: Payload,
    *,
    qos: int = 1,
    retain: bool = False,
    expiry_s: float | None = None,
    response_topic: str | None = None,
    correlation: bytes | None = None,
    traceparent: str | None = None,
) -> Outgoing:
    """A message for an outbox, with the size of its packet. Raises TopicError, PayloadTooLarge.

    Refused here, where the caller can be told: in the network thread it would cost the connection.
    """
    _check_topic(topic)
    if response_topic is not None:
        _check_topic(response_topic)
    if correlation is not None and len(correlation) > _MOST_BYTES:
        raise TopicError(f"correlation data of {len(correlation):_} bytes; MQTT has room for {_MOST_BYTES:_}")
    properties = publish_properties(
        remaining_s=expiry_s,
        response_topic=response_topic,
        correlation=correlation,
        number=PLACEHOLDER if qos else None,
        traceparent=traceparent,
    )
    size = publish_size(topic, nbytes_of(payload), qos, properties)
    if size > _MOST_PACKET_BYTES:
        raise PayloadTooLarge(topic=topic, size=size, limit=_MOST_PACKET_BYTES)
    deadline = None if expiry_s is None else time.monotonic() + expiry_s
    return Outgoing(topic, payload, qos, retain, size, deadline, response_topic, correlation, traceparent)
