"""The receiving end of a direct way: who is let in, what may come when, and how long it may take."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from broker.errors import ProtocolViolation
from broker.mqtt.client import MqttClient, Silent
from broker.mqtt.fields import MALFORMED, PACKET_TOO_LARGE, PROTOCOL_ERROR
from broker.mqtt.packets import PINGREQ, Connack, Connect, Disconnect, Packet, Puback, Publish
from broker.mqtt.properties import Property
from broker.mqtt.receiver import HELLO_S, MOST_HELLO_BYTES, SLOW_BYTES, SLOW_S, MqttReceiver
from tests.mqtt_bytes import framed, listed, message, string

HELLO = Connect(client_id="edge-1", clean_start=True, keepalive_s=10, username="here", password="there")
MOST_BYTES = 1 << 20


def receiver(*, accepted: bool = False, now: float = 0.0) -> MqttReceiver:
    made = MqttReceiver(lambda head, first: None, now, most_bytes=MOST_BYTES, receive_maximum=4)
    if accepted:
        assert feed(made, HELLO.encode(), now) == [HELLO]
        made.accept()
        taken(made)
    return made


def feed(made: MqttReceiver, data: bytes, now: float = 0.0) -> list[Packet]:
    found: list[Packet] = []
    while data:
        buffer = made.buffer()
        nbytes = min(len(buffer), len(data))
        buffer[:nbytes], data = data[:nbytes], data[nbytes:]
        found += made.received(nbytes, now)
    return found


def taken(made: MqttReceiver | MqttClient) -> bytes:
    """All that it has to send."""
    sent = b"".join(map(bytes, made.outgoing.next()))
    made.outgoing.taken(len(sent))
    return sent


def test_what_our_client_sends_is_understood_and_answered() -> None:
    end = receiver()
    client = MqttClient(HELLO, lambda head, first: None, 0.0)

    def answered() -> list[Packet]:
        data = taken(end)
        client.buffer()[: len(data)] = data
        return client.received(len(data), 0.0)

    assert feed(end, taken(client)) == [HELLO]
    end.accept()
    (connack,) = answered()
    assert isinstance(connack, Connack)
    assert (connack.code, connack.properties[Property.RECEIVE_MAXIMUM]) == (0, 4)
    payload = random.Random(1).randbytes(200_000)
    number = client.publish("a/b", [payload], qos=1, retain=False, properties={Property.USER_PROPERTY: [("n", "1")]})
    (got,) = feed(end, taken(client))
    assert isinstance(got, Publish)
    assert (got.topic, got.payload, got.packet_id) == ("a/b", payload, number)
    end.acknowledge(number, 0x10)
    assert answered() == [Puback(number, 0x10)]
    client.tick(100.0)
    feed(end, taken(client), 100.0)
    assert [type(packet).__name__ for packet in answered()] == ["Pingresp"]
    client.disconnect(Disconnect())
    assert feed(end, taken(client)) == [Disconnect()]


@pytest.mark.parametrize(
    "hello", [HELLO, replace(HELLO, username=None, password=None), replace(HELLO, clean_start=False)]
)
def test_connect_is_read_as_it_was_written(hello: Connect) -> None:
    assert feed(receiver(), hello.encode()) == [hello]


def hello_of(protocol: str = "MQTT", version: int = 5, flags: int = 2, rest: bytes = b"") -> bytes:
    return framed(0x10, string(protocol) + bytes([version, flags]) + b"\0\x0a" + listed(b"") + string("me") + rest)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (hello_of("MQIsdp", 3), 0x84),
        (hello_of(version=4), 0x84),
        (hello_of(flags=0b110), MALFORMED),
        (hello_of(flags=3), MALFORMED),
        (hello_of(flags=0xC2), MALFORMED),
        (hello_of(rest=b"more"), MALFORMED),
        (hello_of(flags=0x42, rest=string(b"\xff\xfe")), MALFORMED),
        (b"\x11" + HELLO.encode()[1:], MALFORMED),
        (b"\x20\x03\0\0\0", MALFORMED),
        (b"\x82\x06\0\1\0\0\1a", MALFORMED),
        (replace(HELLO, keepalive_s=0).encode(), PROTOCOL_ERROR),
        (replace(HELLO, keepalive_s=5000).encode(), PROTOCOL_ERROR),
        (HELLO.encode() * 2, PROTOCOL_ERROR),
        (PINGREQ, PROTOCOL_ERROR),
        (message("t", b"x", packet_id=1), PROTOCOL_ERROR),
        (HELLO.encode() + message("t", b"x", packet_id=1), PROTOCOL_ERROR),
        (message("t", bytes(MOST_HELLO_BYTES), packet_id=1), PACKET_TOO_LARGE),
        (b"\x30\xff\xff\xff\x7f", PACKET_TOO_LARGE),
    ],
)
def test_strangers_may_say_hello_and_nothing_else(data: bytes, code: int) -> None:
    with pytest.raises(ProtocolViolation) as raised:
        feed(receiver(), data)
    assert raised.value.code == code


def test_an_accepted_peer_has_its_bounds_too() -> None:
    for data, code in (
        (HELLO.encode(), PROTOCOL_ERROR),
        (message("t", bytes(MOST_BYTES), packet_id=1), PACKET_TOO_LARGE),
        (b"\x82\x06\0\1\0\0\1a", MALFORMED),
    ):
        with pytest.raises(ProtocolViolation) as raised:
            feed(receiver(accepted=True), data)
        assert raised.value.code == code


def test_strangers_have_little_time() -> None:
    end = receiver()
    feed(end, HELLO.encode()[:5], HELLO_S - 0.1)
    end.tick(HELLO_S - 0.1)
    with pytest.raises(Silent):
        end.tick(HELLO_S)
    feed(end, HELLO.encode()[5:], HELLO_S)
    with pytest.raises(Silent):  # it has said hello, and was not accepted
        end.tick(HELLO_S)


def test_a_silent_peer_is_given_up_after_one_and_a_half_times_its_keep_alive() -> None:
    end = receiver(accepted=True)
    end.tick(14.9)
    feed(end, PINGREQ, 14.9)
    end.tick(29.8)
    with pytest.raises(Silent, match="keep-alive of 10 s"):
        end.tick(30.0)


def test_a_peer_that_trickles_a_packet_is_given_up_and_a_slow_line_is_not() -> None:
    packet = message("t", bytes(MOST_BYTES // 2), packet_id=1)
    trickling, slow = receiver(accepted=True), receiver(accepted=True)
    for second in range(int(SLOW_S)):
        feed(trickling, packet[second : second + 1], second)
        trickling.tick(second)
    with pytest.raises(Silent, match="bytes of a packet"):
        trickling.tick(SLOW_S)
    now, step = 0.0, int(SLOW_BYTES / SLOW_S) + 1
    for at in range(0, len(packet), step):
        feed(slow, packet[at : at + step], now)
        slow.tick(now)
        now += 1


def test_nothing_that_comes_does_more_than_end_the_connection() -> None:
    draw = random.Random(4)
    good = [
        HELLO.encode(),
        PINGREQ,
        message("a/b", bytes(30_000), packet_id=9),
        message("t", b"x"),
        Disconnect().encode(),
    ]
    for _ in range(1_500):
        data = bytearray(b"".join(draw.choices(good, k=draw.randrange(1, 4))))
        for _ in range(draw.randrange(4)):
            data[draw.randrange(min(len(data), 80))] = draw.randrange(256)
        end = receiver(accepted=draw.random() < 0.5)
        try:
            for packet in feed(end, bytes(data)):
                if isinstance(packet, Connect):
                    end.accept()
        except ProtocolViolation:
            pass
