"""Bytes in, packets out: what comes whole, in pieces, or is no MQTT 5 at all; and what is too much."""

from __future__ import annotations

import tracemalloc

import pytest

from broker.errors import ProtocolViolation
from broker.mqtt.packets import Connack, Disconnect, Packet, Pingresp, Puback, Publish, Suback
from broker.mqtt.properties import Kind, Property
from broker.mqtt.reader import FIRST_BYTES, MOST_HEAD_BYTES, SMALL_BYTES, Placement, Reader
from tests.mqtt_bytes import (
    CONNACK,
    DISCONNECT,
    PINGRESP,
    PUBACK,
    SUBACK,
    UNSUBACK,
    feed,
    framed,
    length,
    listed,
    message,
    string,
)

P = Property
MIB = 1 << 20


def read(stream: bytes, *, piece: int = 1 << 16) -> list[Packet]:
    return list(feed(Reader(), [stream[at : at + piece] for at in range(0, len(stream), piece)]))


KNOWN: list[tuple[bytes, Packet]] = [
    (framed(CONNACK, b"\1\0" + listed(b"")), Connack(True, 0)),
    (
        framed(CONNACK, b"\0\0" + listed(b"\x21\0\x14\x27\0\0\x10\0\x29\0")),
        Connack(False, 0, {P.RECEIVE_MAXIMUM: 20, P.MAXIMUM_PACKET_SIZE: 4096, P.SUBSCRIPTION_IDENTIFIER_AVAILABLE: 0}),
    ),
    (framed(CONNACK, b"\0\x86"), Connack(False, 0x86)),
    (framed(PUBACK, b"\2\1"), Puback(513)),
    (framed(PUBACK, b"\2\1\x10"), Puback(513, 0x10)),
    (framed(PUBACK, b"\2\1\x97" + listed(b"\x1f" + string("full"))), Puback(513, 0x97, {P.REASON_STRING: "full"})),
    (framed(SUBACK, b"\0\1" + listed(b"") + b"\1"), Suback(Kind.SUBACK, 1, (1,))),
    (framed(UNSUBACK, b"\0\2" + listed(b"") + b"\0\x11"), Suback(Kind.UNSUBACK, 2, (0, 0x11))),
    (PINGRESP, Pingresp()),
    (framed(DISCONNECT, b""), Disconnect()),
    (framed(DISCONNECT, b"\x8e"), Disconnect(0x8E)),
    (message("t", b"hello"), Publish(topic="t", qos=0, payload=b"hello", nbytes=5)),
    (
        message("a/ä", b"", packet_id=7, first=0x3B, properties=b"\x0b\1\x0b\xac\2\x08" + string("r")),
        Publish(
            topic="a/ä",
            qos=1,
            packet_id=7,
            retain=True,
            duplicate=True,
            properties={P.SUBSCRIPTION_IDENTIFIER: [1, 300], P.RESPONSE_TOPIC: "r"},
        ),
    ),
    (
        message("t", bytes(range(256)) * 400, packet_id=1),
        Publish(topic="t", qos=1, packet_id=1, payload=bytes(range(256)) * 400, nbytes=102_400),
    ),
]


@pytest.mark.parametrize(("stream", "packet"), KNOWN)
@pytest.mark.parametrize("piece", [1, 3, 1 << 16])
def test_packets(stream: bytes, packet: Packet, piece: int) -> None:
    assert read(stream, piece=piece) == [packet]


def test_a_stream_of_all_of_them_at_once() -> None:
    assert read(b"".join(stream for stream, _ in KNOWN)) == [packet for _, packet in KNOWN]


BROKEN = {
    "a packet for a broker": framed(0x10, b""),
    "a packet that is none": framed(0x00, b""),
    "flags where there are none": framed(0x41, b"\0\1"),
    "a length of five bytes": b"\x30\x80\x80\x80\x80\x01",
    "QoS 2": message("t", b"", packet_id=1, first=0x34),
    "QoS 3": message("t", b"", packet_id=1, first=0x36),
    "a duplicate with QoS 0": message("t", b"", first=0x38),
    "packet id 0": message("t", b"", first=0x32),
    "no topic": message("", b""),
    "a wildcard in a topic": message("a/+", b""),
    "U+0000": message("a\0b", b""),
    "no UTF-8": framed(0x30, b"\0\2\xff\xfe\0"),
    "an overlong head": framed(0x30, b"\0\x05ab"),
    "an empty PUBLISH": framed(0x30, b""),
    "a topic alias": message("t", b"", properties=b"\x23\0\1"),
    "an unknown property": message("t", b"", properties=b"\x7f\0"),
    "a property of another packet": message("t", b"", properties=b"\x21\0\1"),
    "a property twice": message("t", b"", properties=b"\2\0\0\0\1\2\0\0\0\1"),
    "a property cut short": message("t", b"", properties=b"\2\0\0"),
    "a Receive Maximum of 0": framed(CONNACK, b"\0\0" + listed(b"\x21\0\0")),
    "a refusal with a session": framed(CONNACK, b"\1\x86" + listed(b"")),
    "CONNACK flags": framed(CONNACK, b"\2\0" + listed(b"")),
    "CONNACK cut short": framed(CONNACK, b"\0"),
    "PUBACK 0": framed(PUBACK, b"\0\0"),
    "PUBACK with more behind": framed(PUBACK, b"\0\1\0" + listed(b"") + b"x"),
    "SUBACK without a code": framed(SUBACK, b"\0\1" + listed(b"")),
    "PINGRESP with a body": framed(0xD0, b"x"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("piece", [1, 1 << 16])
def test_what_is_no_packet_is_a_violation(name: str, piece: int) -> None:
    with pytest.raises(ProtocolViolation, match="MQTT 5"):
        read(BROKEN[name] + bytes(8), piece=piece)


def test_a_packet_above_the_limit_is_refused_at_its_header() -> None:
    reader = Reader(most_bytes=1000)
    with pytest.raises(ProtocolViolation, match=r"a packet of 1_008 bytes, of which 1_000 have room"):
        list(feed(reader, [message("t", bytes(1001))[:6]]))


@pytest.mark.parametrize("first", [SUBACK, CONNACK, 0xE0])
def test_a_packet_that_claims_much_and_holds_no_payload_is_refused(first: int) -> None:
    with pytest.raises(ProtocolViolation, match="have room"):
        read(framed(first, bytes(MOST_HEAD_BYTES)))


def test_properties_that_claim_much_are_refused_before_they_come() -> None:
    stream = b"\x30\xff\xff\xff\x7f\0\1t\xff\xff\xff\x7f"
    with pytest.raises(ProtocolViolation):
        read(stream + bytes(100))


def test_a_long_head_has_room() -> None:
    topic = "t" * 65_535
    properties = b"\x08" + string("r" * 65_535) + b"\x09" + string(bytes(65_535))
    (packet,) = read(message(topic, b"x" * SMALL_BYTES, packet_id=9, properties=properties), piece=1000)
    assert isinstance(packet, Publish)
    assert (packet.topic, packet.nbytes, packet.payload) == (topic, SMALL_BYTES, b"x" * SMALL_BYTES)


def test_a_large_payload_goes_where_it_is_wanted() -> None:
    memory = bytearray(MIB)
    asked: list[tuple[str, int, bytes]] = []

    def place(head: Publish, first: memoryview) -> Placement:
        assert len(first) >= FIRST_BYTES
        asked.append((head.topic, head.nbytes, bytes(first[:3])))
        return Placement(kept=3, into=memoryview(memory), token=memory)

    reader = Reader(place)
    body = bytes(range(256)) * (MIB // 256)
    stream = message("t", b"abc" + body, packet_id=1) + PINGRESP
    packets = list(feed(reader, [stream]))
    assert asked == [("t", MIB + 3, b"abc")]
    assert memory == body
    assert isinstance(packets[0], Publish)
    assert (packets[0].payload, packets[0].nbytes) == (b"abc", MIB + 3)
    assert packets[0].placed is memory
    assert packets[1:] == [Pingresp()]
    assert reader.is_idle


def test_a_payload_that_nobody_wants_takes_no_memory() -> None:
    reader = Reader(lambda head, first: Placement(kept=0, into=None, token="dropped"))
    nbytes, piece = 200 * MIB, bytes(1 << 15)
    head = b"\x32" + length(2 + 1 + 2 + 1 + nbytes) + string("t") + b"\0\1" + listed(b"")
    tracemalloc.start()
    packets = list(feed(reader, [head]))
    left = nbytes
    while not packets:
        packets += feed(reader, [piece[: min(left, len(piece))]])
        left -= len(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MIB
    assert isinstance(packets[0], Publish)
    assert (packets[0].payload, packets[0].nbytes, packets[0].placed) == (b"", nbytes, "dropped")
    assert reader.is_idle


def test_a_place_of_the_wrong_size_is_a_fault_of_ours() -> None:
    reader = Reader(lambda head, first: Placement(kept=0, into=memoryview(bytearray(5)), token=None))
    with pytest.raises(ValueError, match="0 bytes kept and 5 placed of a payload of 20000"):
        list(feed(reader, [message("t", bytes(20_000))]))
