"""What a client sends is byte for byte what paho sends for the same wishes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker.client import pack as paho_properties
from broker.mqtt.fields import MOST_VARINT, varint
from broker.mqtt.packets import (
    PINGREQ,
    Connect,
    Disconnect,
    Puback,
    Subscribe,
    Unsubscribe,
    publish_head,
    publish_size,
)
from broker.mqtt.properties import Property, pack
from tests.mqtt_bytes import CONNACK, framed, length, listed, message

P = Property


class Recorder:
    """Accepts one client and keeps what it sends behind CONNECT."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(30)
        self.port: int = self._listener.getsockname()[1]
        self._sock: socket.socket | None = None

    def accept(self) -> bytes:
        self._sock, _ = self._listener.accept()
        self._sock.settimeout(30)
        hello = self.next()
        self._sock.sendall(framed(CONNACK, b"\0\0" + listed(b"")))
        return hello

    def send(self, data: bytes) -> None:
        assert self._sock is not None
        self._sock.sendall(data)

    def next(self) -> bytes:
        """One packet."""
        assert self._sock is not None
        head = self._exactly(2)
        while head[-1] & 0x80:
            head += self._exactly(1)
        nbytes = sum((byte & 0x7F) << 7 * index for index, byte in enumerate(head[1:]))
        return head + self._exactly(nbytes)

    def _exactly(self, nbytes: int) -> bytes:
        assert self._sock is not None
        data = b""
        while len(data) < nbytes:
            more = self._sock.recv(nbytes - len(data))
            assert more, "the client has gone"
            data += more
        return data

    def close(self) -> None:
        self._listener.close()
        if self._sock is not None:
            self._sock.close()


class Paho:
    """A paho client on a recorder."""

    def __init__(self, recorder: Recorder, **options: object) -> None:
        self.recorder, self.client = (
            recorder,
            Client(CallbackAPIVersion.VERSION2, client_id="trisect.edge-1.bulk", protocol=MQTTProtocolVersion.MQTTv5),
        )
        self._options = options

    def connect(self) -> bytes:
        up = threading.Event()
        self.client.on_connect = lambda *_: up.set()
        self.client.connect_async("127.0.0.1", self.recorder.port, **self._options)  # type: ignore[arg-type]
        self.client.loop_start()
        hello = self.recorder.accept()
        assert up.wait(30)
        return hello


@pytest.fixture
def make_paho() -> Iterator[Callable[..., Paho]]:
    made: list[Paho] = []

    def make(**options: object) -> Paho:
        made.append(Paho(Recorder(), **options))
        return made[-1]

    yield make
    for each in made:
        each.recorder.close()
        each.client.disconnect()
        each.client.loop_stop()


@pytest.fixture
def paho(make_paho: Callable[..., Paho]) -> Paho:
    connected = make_paho(keepalive=60, clean_start=True)
    connected.connect()
    return connected


@pytest.mark.parametrize(("username", "password"), [(None, None), ("me", None), ("me", "secret")])
def test_connect(make_paho: Callable[..., Paho], username: str | None, password: str | None) -> None:
    asked = paho_properties(PacketTypes.CONNECT, SessionExpiryInterval=3600, ReceiveMaximum=32)
    client = make_paho(keepalive=15, clean_start=False, properties=asked)
    if username is not None:
        client.client.username_pw_set(username, password)
    ours = Connect(
        client_id="trisect.edge-1.bulk",
        clean_start=False,
        keepalive_s=15,
        username=username,
        password=password,
        properties={P.SESSION_EXPIRY: 3600, P.RECEIVE_MAXIMUM: 32},
    )
    assert ours.encode() == client.connect()


def test_connect_with_a_clean_start(make_paho: Callable[..., Paho]) -> None:
    ours = Connect(client_id="trisect.edge-1.bulk", clean_start=True, keepalive_s=60)
    assert ours.encode() == make_paho(keepalive=60, clean_start=True).connect()


@pytest.mark.parametrize("nbytes", [0, 1, 100, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
@pytest.mark.parametrize("qos", [0, 1])
def test_publish(paho: Paho, nbytes: int, qos: int) -> None:
    payload = bytes(nbytes)
    mid = paho.client.publish("node/edge-1/out/täg", payload, qos).mid
    head = publish_head("node/edge-1/out/täg", nbytes, qos=qos, packet_id=mid if qos else 0)
    sent = paho.recorder.next()
    assert head + payload == sent
    assert publish_size("node/edge-1/out/täg", nbytes, qos, {}) == len(sent)


def test_publish_with_properties(paho: Paho) -> None:
    asked = paho_properties(
        PacketTypes.PUBLISH,
        MessageExpiryInterval=30,
        ResponseTopic="reply/cli",
        CorrelationData=b"\0\1",
        UserProperty=[("a", "b"), ("a", "c")],
    )
    mid = paho.client.publish("t", b"x", 1, retain=True, properties=asked).mid
    ours = {
        P.MESSAGE_EXPIRY: 30,
        P.RESPONSE_TOPIC: "reply/cli",
        P.CORRELATION_DATA: b"\0\1",
        P.USER_PROPERTY: [("a", "b"), ("a", "c")],
    }
    assert publish_head("t", 1, qos=1, packet_id=mid, retain=True, properties=ours) + b"x" == paho.recorder.next()


def test_subscribe(paho: Paho) -> None:
    asked = paho_properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=300)
    mid = paho.client.subscribe("node/+/out/#", options=SubscribeOptions(qos=1), properties=asked)[1]
    assert mid is not None
    assert Subscribe(mid, "node/+/out/#", 1, {P.SUBSCRIPTION_IDENTIFIER: 300}).encode() == paho.recorder.next()


def test_unsubscribe(paho: Paho) -> None:
    mid = paho.client.unsubscribe(["a/+", "b"])[1]
    assert mid is not None
    assert Unsubscribe(mid, ["a/+", "b"]).encode() == paho.recorder.next()


def test_puback(paho: Paho) -> None:
    paho.recorder.send(message("t", b"x", packet_id=513))
    assert Puback(513).encode() == paho.recorder.next()


def test_pingreq(make_paho: Callable[..., Paho]) -> None:
    client = make_paho(keepalive=1)
    client.connect()
    assert client.recorder.next() == PINGREQ


def test_disconnect(paho: Paho) -> None:
    ends = paho_properties(PacketTypes.DISCONNECT, SessionExpiryInterval=0)
    paho.client.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=0), ends)
    assert Disconnect(properties={P.SESSION_EXPIRY: 0}).encode() == paho.recorder.next()


@pytest.mark.parametrize("value", [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, MOST_VARINT])
def test_variable_byte_integers(value: int) -> None:
    assert varint(value) == length(value)


@pytest.mark.parametrize("value", [-1, MOST_VARINT + 1])
def test_numbers_without_room_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="has room for"):
        varint(value)


def test_fields_without_room_are_refused() -> None:
    with pytest.raises(ValueError, match=r"65_536 bytes; MQTT has room for 65_535"):
        pack({P.CORRELATION_DATA: bytes(65_536)})
    assert publish_size("t", MOST_VARINT, 1, {}) > MOST_VARINT
    with pytest.raises(ValueError, match="has room for"):
        publish_head("t", MOST_VARINT, qos=1, packet_id=1)
