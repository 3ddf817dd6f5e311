"""The packets of a bulk connection as values, and the bytes of those that a client sends, or the end of a direct way.

Of MQTT 5 left out, because a bulk connection has no use for it: QoS 2, wills, AUTH, and topic aliases (a topic has some
60 bytes, nothing next to a tensor; CONNECT allows the broker none).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from broker.mqtt.fields import MOST_VARINT, binary, text, two_bytes, varint
from broker.mqtt.properties import Kind, Properties, Property, pack

VERSION: Final = 5
_EMPTY: Final[Mapping[Property, Any]] = {}

Buffer: TypeAlias = bytes | bytearray | memoryview
PINGREQ: Final = bytes([Kind.PINGREQ << 4, 0])
PINGRESP: Final = bytes([Kind.PINGRESP << 4, 0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """The first packet of a client; `keepalive_s` 0 turns keep-alive off."""

    client_id: str
    clean_start: bool
    keepalive_s: int
    username: str | None = None
    password: str | None = None
    properties: Properties = field(default_factory=dict)

    def encode(self) -> bytes:
        """The packet's bytes."""
        has_name, has_password = self.username is not None, self.password is not None
        flags = has_name << 7 | has_password << 6 | self.clean_start << 1
        body = b"".join(
            (
                text("MQTT"),
                bytes([VERSION, flags]),
                two_bytes(self.keepalive_s),
                pack(self.properties),
                text(self.client_id),
                text(self.username) if self.username is not None else b"",
                binary(self.password.encode()) if self.password is not None else b"",
            )
        )
        return _framed(Kind.CONNECT << 4, body)


@dataclass(frozen=True, slots=True)
class Connack:
    """The broker's answer to CONNECT."""

    session_present: bool
    code: int
    properties: Properties = field(default_factory=dict)

    def encode(self) -> bytes:
        """The packet's bytes."""
        return _framed(Kind.CONNACK << 4, bytes([self.session_present, self.code]) + pack(self.properties))


@dataclass(slots=True, kw_only=True)
class Publish:
    """A message. `packet_id` is 0 with QoS 0. Not frozen, since the reader adds the payload once it is whole.

    Attributes:
        payload: all of it, or its first bytes if the rest was `placed`.
        placed: where the rest of the payload went (`reader.Placement.token`), None if `payload` is whole.
        nbytes: of the whole payload.
    """

    topic: str
    qos: int
    packet_id: int = 0
    retain: bool = False
    duplicate: bool = False
    properties: Properties = field(default_factory=dict)
    payload: bytes = b""
    placed: object = None
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Puback:
    """The acknowledgement of a message with QoS 1."""

    packet_id: int
    code: int = 0
    properties: Properties = field(default_factory=dict)

    def encode(self) -> bytes:
        """The packet's bytes."""
        if not self.code and not self.properties:
            return bytes([Kind.PUBACK << 4, 2]) + two_bytes(self.packet_id)
        return _framed(Kind.PUBACK << 4, two_bytes(self.packet_id) + bytes([self.code]) + pack(self.properties))


@dataclass(frozen=True, slots=True)
class Subscribe:
    """One filter; a packet carries one subscription identifier for all of its filters."""

    packet_id: int
    filter: str
    qos: int
    properties: Properties = field(default_factory=dict)

    def encode(self) -> bytes:
        """The packet's bytes."""
        body = two_bytes(self.packet_id) + pack(self.properties) + text(self.filter) + bytes([self.qos])
        return _framed(Kind.SUBSCRIBE << 4 | 2, body)


@dataclass(frozen=True, slots=True)
class Suback:
    """The answers to a SUBSCRIBE's filters (`kind` SUBACK) or to an UNSUBSCRIBE's (UNSUBACK)."""

    kind: Kind
    packet_id: int
    codes: tuple[int, ...]
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Filters to forget."""

    packet_id: int
    filters: Sequence[str]

    def encode(self) -> bytes:
        """The packet's bytes."""
        body = two_bytes(self.packet_id) + pack(_EMPTY) + b"".join(map(text, self.filters))
        return _framed(Kind.UNSUBSCRIBE << 4 | 2, body)


@dataclass(frozen=True, slots=True)
class Pingreq:
    """A client that has nothing else to say asks whether it is heard."""


@dataclass(frozen=True, slots=True)
class Pingresp:
    """The answer to PINGREQ."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The last packet of either side."""

    code: int = 0
    properties: Properties = field(default_factory=dict)

    def encode(self) -> bytes:
        """The packet's bytes."""
        if not self.properties:
            return _framed(Kind.DISCONNECT << 4, bytes([self.code]) if self.code else b"")
        return _framed(Kind.DISCONNECT << 4, bytes([self.code]) + pack(self.properties))


Packet: TypeAlias = Connect | Connack | Publish | Puback | Suback | Pingreq | Pingresp | Disconnect


def publish_head(
    topic: str, nbytes: int, *, qos: int, packet_id: int, retain: bool = False, properties: Properties = _EMPTY
) -> bytes:
    """A PUBLISH up to its payload, which has `nbytes` and follows as it is.

    Raises ValueError for what has no room in a packet.
    """
    variable = text(topic) + (two_bytes(packet_id) if qos else b"") + pack(properties)
    return bytes([Kind.PUBLISH << 4 | qos << 1 | retain]) + varint(len(variable) + nbytes) + variable


def publish_size(topic: str, nbytes: int, qos: int, properties: Properties) -> int:
    """Bytes of a whole PUBLISH packet, which is what Maximum Packet Size speaks of; also of one too large to be."""
    remaining = 2 + len(topic.encode()) + (2 if qos else 0) + len(pack(properties)) + nbytes
    return 1 + len(varint(min(remaining, MOST_VARINT))) + remaining


def _framed(first: int, body: bytes) -> bytes:
    return bytes([first]) + varint(len(body)) + body
