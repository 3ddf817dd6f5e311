"""Sizes and properties of MQTT 5 packets. The only place that touches paho's untyped Properties."""

from __future__ import annotations

import math
import time
from typing import Final

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker.errors import TopicError
from broker.numbering import PLACEHOLDER, PROPERTY
from broker.outbox import Outgoing

__all__ = ["Properties", "expiry_s", "outgoing", "pack", "publish_properties", "publish_size"]

# MQTT's Variable Byte Integer: values below these take 1, 2 and 3 bytes; the rest 4
_VARINT_BOUNDS: Final = (128, 16_384, 2_097_152)


_MOST_BYTES: Final = 65_535
"""Of a topic and of correlation data: their length has two bytes."""


def _check_topic(topic: str) -> None:
    try:
        nbytes = len(topic.encode())
    except UnicodeEncodeError:
        nbytes = 0
    if not 0 < nbytes <= _MOST_BYTES or any(character in topic for character in "+#\0"):
        raise TopicError(f"{topic[:80]!r} is no topic to publish on: 1 to {_MOST_BYTES:_} bytes without +, # and NUL")


def pack(packet_type: int, **values: object) -> Properties:
    """Properties of a packet; None values are left out."""
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]  # paho does not annotate its properties
    for name, value in values.items():
        if value is not None:
            setattr(properties, name, value)
    return properties


def expiry_s(remaining_s: float) -> int:
    """MQTT counts whole seconds, and 0 would mean "at once"."""
    return max(1, math.ceil(remaining_s))


def publish_properties(
    *,
    remaining_s: float | None,
    response_topic: str | None,
    correlation: bytes | None,
    number: str | None = None,
) -> Properties | None:
    """Properties of a PUBLISH, or None when it has none. `number` is as `broker.numbering` has it."""
    if remaining_s is None and response_topic is None and correlation is None and number is None:
        return None
    return pack(
        PacketTypes.PUBLISH,
        MessageExpiryInterval=None if remaining_s is None else expiry_s(remaining_s),
        ResponseTopic=response_topic,
        CorrelationData=correlation,
        UserProperty=None if number is None else (PROPERTY, number),
    )


def publish_size(topic: str, nbytes: int, qos: int, properties: Properties | None) -> int:
    """Bytes of a whole PUBLISH packet, which is what Maximum Packet Size speaks of."""
    packed = 1 if properties is None else len(properties.pack())  # type: ignore[no-untyped-call]  # see pack()
    remaining = 2 + len(topic.encode()) + (2 if qos else 0) + packed + nbytes
    return 1 + _varint_length(remaining) + remaining


def _varint_length(value: int) -> int:
    return 1 + sum(value >= bound for bound in _VARINT_BOUNDS)


def outgoing(
    topic: str,
    payload: bytes,
    *,
    qos: int = 1,
    retain: bool = False,
    expiry_s: float | None = None,
    response_topic: str | None = None,
    correlation: bytes | None = None,
) -> Outgoing:
    """A message for an outbox, with the size of its packet. Raises TopicError for what cannot be published.

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
    )
    size = publish_size(topic, len(payload), qos, properties)
    deadline = None if expiry_s is None else time.monotonic() + expiry_s
    return Outgoing(topic, payload, qos, retain, size, deadline, response_topic, correlation)
