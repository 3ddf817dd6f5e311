"""The bytes of whole packets, and of a PUBLISH up to its payload, as values. Raises ProtocolViolation for all else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from broker.errors import ProtocolViolation
from broker.mqtt.fields import MALFORMED, MORE, PROTOCOL_ERROR, Cursor, malformed
from broker.mqtt.packets import (
    VERSION,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
)
from broker.mqtt.properties import Kind, Property, unpack

_LONGEST_LENGTH: Final = 4
_TOPIC_ALIAS_INVALID: Final = 0x94
_VERSION_UNSUPPORTED: Final = 0x84
_HAS_NAME, _HAS_PASSWORD, _CLEAN_START = 1 << 7, 1 << 6, 1 << 1
_CONNECT_FLAGS: Final = _HAS_NAME | _HAS_PASSWORD | _CLEAN_START


@dataclass(frozen=True, slots=True)
class Frame:
    """A packet's fixed header: its first byte, and where its body begins and ends in the bytes that were looked at."""

    first: int
    begin: int
    end: int

    @property
    def kind(self) -> Kind:
        """The packet's type, one of those that may come."""
        return Kind(self.first >> 4)


FOR_CLIENTS: Final = frozenset({Kind.CONNACK, Kind.PUBACK, Kind.SUBACK, Kind.UNSUBACK, Kind.PINGRESP, Kind.DISCONNECT})
"""What a client receives, besides PUBLISH."""
FOR_DIRECT_ENDS: Final = frozenset({Kind.CONNECT, Kind.PINGREQ, Kind.DISCONNECT})
"""What the receiving end of a direct way takes, besides PUBLISH: nobody subscribes there."""


def fixed_header(data: memoryview, begin: int, end: int, kinds: frozenset[Kind] = FOR_CLIENTS) -> Frame | None:
    """The fixed header at `begin` of a PUBLISH or one of `kinds`, None while it is not whole."""
    if begin >= end:
        return None
    first = data[begin]
    kind, flags = first >> 4, first & 0x0F
    if kind != Kind.PUBLISH and (kind not in kinds or flags):
        raise malformed(f"first byte 0x{first:02X}, which no packet that may come here has")
    length = 0
    for index in range(_LONGEST_LENGTH):
        at = begin + 1 + index
        if at >= end:
            return None
        length |= (data[at] & 0x7F) << 7 * index
        if data[at] < MORE:
            return Frame(first, at + 1, at + 1 + length)
    raise malformed("a remaining length of more than 4 bytes")


def packet(data: memoryview, frame: Frame) -> Packet:
    """A whole packet other than PUBLISH."""
    cursor = Cursor(data, frame.begin, frame.end)
    found = _READERS[frame.kind](cursor)
    if not cursor.is_at_end:
        raise malformed(f"bytes behind the end of {frame.kind.name}")
    return found


def head_bytes(data: memoryview, frame: Frame, end: int) -> int:
    """Bytes of the PUBLISH's body before its payload, as far as can be told by what has come up to `end`.

    What is returned is the real number once that many have come; before, it is more than have come, and not too many.
    """
    at, with_id = frame.begin, 2 if frame.first & 0b0110 else 0
    if end < at + 2:
        return 2
    at += 2 + int.from_bytes(data[at : at + 2], "big") + with_id
    for index in range(_LONGEST_LENGTH):
        if end <= at + index:
            return at + index + 1 - frame.begin
        if data[at + index] < MORE:
            break
    length = sum((data[at + each] & 0x7F) << 7 * each for each in range(index + 1))
    return at + index + 1 + length - frame.begin


def publish(data: memoryview, frame: Frame, head_end: int) -> Publish:
    """A PUBLISH without its payload, which begins at `head_end`."""
    qos, is_duplicate = frame.first >> 1 & 3, bool(frame.first & 8)
    if qos > 1:
        raise ProtocolViolation(f"a message with QoS {qos}, where 1 at most was asked for", code=MALFORMED)
    if is_duplicate and not qos:
        raise malformed("a duplicate with QoS 0")
    cursor = Cursor(data, frame.begin, head_end)
    topic = cursor.text()
    if not topic or "+" in topic or "#" in topic:
        raise ProtocolViolation(f"a message on the topic {topic[:80]!r}", code=PROTOCOL_ERROR)
    packet_id = _packet_id(cursor) if qos else 0
    properties = unpack(cursor, Kind.PUBLISH)
    if Property.TOPIC_ALIAS in properties:
        raise ProtocolViolation("a topic alias, where none was allowed", code=_TOPIC_ALIAS_INVALID)
    return Publish(
        topic=topic,
        qos=qos,
        packet_id=packet_id,
        retain=bool(frame.first & 1),
        duplicate=is_duplicate,
        properties=properties,
        nbytes=frame.end - head_end,
    )


def _packet_id(cursor: Cursor) -> int:
    packet_id = cursor.integer(2)
    if packet_id == 0:
        raise ProtocolViolation("a packet identifier of 0", code=PROTOCOL_ERROR)
    return packet_id


def _connect(cursor: Cursor) -> Connect:
    protocol, version = cursor.text(), cursor.integer(1)
    if (protocol, version) != ("MQTT", VERSION):
        raise ProtocolViolation(f"{protocol[:20]!r} of version {version}", code=_VERSION_UNSUPPORTED)
    flags, keepalive_s = cursor.integer(1), cursor.integer(2)
    if flags & ~_CONNECT_FLAGS:
        raise malformed(f"CONNECT with the flags 0x{flags:02X}: a will, or bits that mean nothing")
    properties, client_id = unpack(cursor, Kind.CONNECT), cursor.text()
    username = cursor.text() if flags & _HAS_NAME else None
    try:
        password = cursor.binary().decode() if flags & _HAS_PASSWORD else None
    except UnicodeDecodeError:
        raise malformed("a password that is no UTF-8") from None
    return Connect(
        client_id=client_id,
        clean_start=bool(flags & _CLEAN_START),
        keepalive_s=keepalive_s,
        username=username,
        password=password,
        properties=properties,
    )


def _connack(cursor: Cursor) -> Connack:
    flags = cursor.integer(1)
    if flags > 1:
        raise malformed(f"CONNACK with the flags 0x{flags:02X}")
    code = cursor.integer(1)
    if flags and code:
        raise ProtocolViolation("a refusal that has a session", code=PROTOCOL_ERROR)
    # a broker of version 3.1.1 refuses without properties
    return Connack(bool(flags), code, {} if cursor.is_at_end else unpack(cursor, Kind.CONNACK))


def _puback(cursor: Cursor) -> Puback:
    packet_id = _packet_id(cursor)
    code = 0 if cursor.is_at_end else cursor.integer(1)
    return Puback(packet_id, code, {} if cursor.is_at_end else unpack(cursor, Kind.PUBACK))


def _suback(cursor: Cursor) -> Suback:
    packet_id, properties = _packet_id(cursor), unpack(cursor, Kind.SUBACK)
    return Suback(Kind.SUBACK, packet_id, _codes(cursor), properties)


def _unsuback(cursor: Cursor) -> Suback:
    packet_id, properties = _packet_id(cursor), unpack(cursor, Kind.UNSUBACK)
    return Suback(Kind.UNSUBACK, packet_id, _codes(cursor), properties)


def _codes(cursor: Cursor) -> tuple[int, ...]:
    codes = []
    while not cursor.is_at_end:
        codes.append(cursor.integer(1))
    if not codes:
        raise ProtocolViolation("an acknowledgement without a reason code", code=PROTOCOL_ERROR)
    return tuple(codes)


def _disconnect(cursor: Cursor) -> Disconnect:
    code = 0 if cursor.is_at_end else cursor.integer(1)
    return Disconnect(code, {} if cursor.is_at_end else unpack(cursor, Kind.DISCONNECT))


_READERS: Final[dict[Kind, Callable[[Cursor], Packet]]] = {
    Kind.CONNECT: _connect,
    Kind.PINGREQ: lambda cursor: Pingreq(),
    Kind.CONNACK: _connack,
    Kind.PUBACK: _puback,
    Kind.SUBACK: _suback,
    Kind.UNSUBACK: _unsuback,
    Kind.PINGRESP: lambda cursor: Pingresp(),
    Kind.DISCONNECT: _disconnect,
}
