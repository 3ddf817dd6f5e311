"""MQTT 5's properties (section 2.2.2 of the standard): which there are, of what type, and in which packets."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final, TypeAlias

from broker.errors import ProtocolViolation
from broker.mqtt.fields import PROTOCOL_ERROR, Cursor, binary, malformed, text, varint


class Kind(IntEnum):
    """A packet's type, the upper half of its first byte."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


class Property(IntEnum):
    """A property's identifier."""

    PAYLOAD_FORMAT = 0x01
    MESSAGE_EXPIRY = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_IDENTIFIER = 0x0B
    SESSION_EXPIRY = 0x11
    ASSIGNED_CLIENT_IDENTIFIER = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM_INFORMATION = 0x17
    REQUEST_RESPONSE_INFORMATION = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARD_SUBSCRIPTION_AVAILABLE = 0x28
    SUBSCRIPTION_IDENTIFIER_AVAILABLE = 0x29
    SHARED_SUBSCRIPTION_AVAILABLE = 0x2A


Properties: TypeAlias = Mapping[Property, Any]
"""Values are int, str or bytes; a list of ints for identifiers of a PUBLISH, of pairs of str for user properties."""

_BYTE, _TWO, _FOUR, _VARINT, _BINARY, _TEXT, _PAIR = range(7)
_INTEGER_BYTES: Final = {_BYTE: 1, _TWO: 2, _FOUR: 4}
_P, _K = Property, Kind
_ALL: Final = frozenset(Kind)
_ACKS: Final = frozenset({_K.PUBACK, _K.SUBACK, _K.UNSUBACK, _K.CONNACK, _K.DISCONNECT})

_RULES: Final[dict[int, tuple[int, frozenset[Kind]]]] = {
    _P.PAYLOAD_FORMAT: (_BYTE, frozenset({_K.PUBLISH})),
    _P.MESSAGE_EXPIRY: (_FOUR, frozenset({_K.PUBLISH})),
    _P.CONTENT_TYPE: (_TEXT, frozenset({_K.PUBLISH})),
    _P.RESPONSE_TOPIC: (_TEXT, frozenset({_K.PUBLISH})),
    _P.CORRELATION_DATA: (_BINARY, frozenset({_K.PUBLISH})),
    _P.SUBSCRIPTION_IDENTIFIER: (_VARINT, frozenset({_K.PUBLISH, _K.SUBSCRIBE})),
    _P.SESSION_EXPIRY: (_FOUR, frozenset({_K.CONNECT, _K.CONNACK, _K.DISCONNECT})),
    _P.ASSIGNED_CLIENT_IDENTIFIER: (_TEXT, frozenset({_K.CONNACK})),
    _P.SERVER_KEEP_ALIVE: (_TWO, frozenset({_K.CONNACK})),
    _P.AUTHENTICATION_METHOD: (_TEXT, frozenset({_K.CONNECT, _K.CONNACK})),
    _P.AUTHENTICATION_DATA: (_BINARY, frozenset({_K.CONNECT, _K.CONNACK})),
    _P.REQUEST_PROBLEM_INFORMATION: (_BYTE, frozenset({_K.CONNECT})),
    _P.REQUEST_RESPONSE_INFORMATION: (_BYTE, frozenset({_K.CONNECT})),
    _P.RESPONSE_INFORMATION: (_TEXT, frozenset({_K.CONNACK})),
    _P.SERVER_REFERENCE: (_TEXT, frozenset({_K.CONNACK, _K.DISCONNECT})),
    _P.REASON_STRING: (_TEXT, _ACKS),
    _P.RECEIVE_MAXIMUM: (_TWO, frozenset({_K.CONNECT, _K.CONNACK})),
    _P.TOPIC_ALIAS_MAXIMUM: (_TWO, frozenset({_K.CONNECT, _K.CONNACK})),
    _P.TOPIC_ALIAS: (_TWO, frozenset({_K.PUBLISH})),
    _P.MAXIMUM_QOS: (_BYTE, frozenset({_K.CONNACK})),
    _P.RETAIN_AVAILABLE: (_BYTE, frozenset({_K.CONNACK})),
    _P.USER_PROPERTY: (_PAIR, _ALL),
    _P.MAXIMUM_PACKET_SIZE: (_FOUR, frozenset({_K.CONNECT, _K.CONNACK})),
    _P.WILDCARD_SUBSCRIPTION_AVAILABLE: (_BYTE, frozenset({_K.CONNACK})),
    _P.SUBSCRIPTION_IDENTIFIER_AVAILABLE: (_BYTE, frozenset({_K.CONNACK})),
    _P.SHARED_SUBSCRIPTION_AVAILABLE: (_BYTE, frozenset({_K.CONNACK})),
}
_NOT_ZERO: Final = frozenset({_P.SUBSCRIPTION_IDENTIFIER, _P.RECEIVE_MAXIMUM, _P.TOPIC_ALIAS, _P.MAXIMUM_PACKET_SIZE})


def pack(properties: Properties) -> bytes:
    """The properties with their length, in the order of the mapping; None values are left out.

    Raises ValueError or OverflowError for what has no room in its field.
    """
    if not properties:
        return b"\0"
    body = b"".join(_packed(each, value) for each, value in properties.items() if value is not None)
    return varint(len(body)) + body


def _packed(each: Property, value: Any) -> bytes:
    kind, mark = _RULES[each][0], bytes([each])
    if kind in _INTEGER_BYTES:
        return mark + int(value).to_bytes(_INTEGER_BYTES[kind], "big")
    if kind == _TEXT:
        return mark + text(value)
    if kind == _BINARY:
        return mark + binary(value)
    if kind == _PAIR:
        return b"".join(mark + text(key) + text(word) for key, word in value)
    numbers = value if isinstance(value, list) else [value]
    return b"".join(mark + varint(number) for number in numbers)


def unpack(cursor: Cursor, packet: Kind) -> dict[Property, Any]:
    """Read a packet's properties. Raises ProtocolViolation for one that must not be there, or not twice."""
    inner = cursor.sub(cursor.varint())
    found: dict[Property, Any] = {}
    while not inner.is_at_end:
        number = inner.varint()
        kind, packets = _RULES.get(number, (_BYTE, frozenset[Kind]()))
        if packet not in packets:
            raise malformed(f"property 0x{number:02X} in {packet.name}")
        each, value = Property(number), _value(inner, kind)
        if each in _NOT_ZERO and value == 0:
            raise ProtocolViolation(f"{each.name} of 0 in {packet.name}", code=PROTOCOL_ERROR)
        if kind == _PAIR or (each is _P.SUBSCRIPTION_IDENTIFIER and packet is _K.PUBLISH):
            found.setdefault(each, []).append(value)
        elif each in found:
            raise ProtocolViolation(f"{each.name} twice in {packet.name}", code=PROTOCOL_ERROR)
        else:
            found[each] = value
    return found


def _value(cursor: Cursor, kind: int) -> Any:
    if kind in _INTEGER_BYTES:
        return cursor.integer(_INTEGER_BYTES[kind])
    if kind == _VARINT:
        return cursor.varint()
    if kind == _BINARY:
        return cursor.binary()
    if kind == _TEXT:
        return cursor.text()
    return cursor.text(), cursor.text()
