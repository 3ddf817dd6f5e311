"""The codec against the bytes of a real mosquitto, which come in pieces as small as they can be."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from broker.mqtt.client import MqttClient
from broker.mqtt.packets import Connack, Connect, Disconnect, Packet, Pingresp, Puback, Publish, Suback
from broker.mqtt.properties import Kind, Property
from broker.server import Server, ServerSettings
from tests.integration.conftest import PATIENCE_S
from tests.mqtt_bytes import Placer, whole

pytestmark = pytest.mark.integration

P = Property


class Wire:
    """A socket to the broker and a codec; at most `piece` bytes are taken at once."""

    def __init__(self, port: int, hello: Connect, piece: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.client = MqttClient(hello, Placer(), now=0.0)
        self._piece = piece
        self._packets: list[Packet] = []

    def flush(self) -> None:
        while self.client.outgoing:
            self.client.sent(self._sock.sendmsg(self.client.outgoing.next()), 0.0)

    def next(self) -> Packet:
        packet = self.next_or_end()
        assert packet is not None, "the broker closed the connection"
        return packet

    def next_or_end(self) -> Packet | None:
        self.flush()
        while not self._packets:
            nbytes = self._sock.recv_into(self.client.buffer()[: self._piece])
            if not nbytes:
                return None
            self._packets += self.client.received(nbytes, 0.0)
        return self._packets.pop(0)

    def is_closed(self) -> bool:
        return self._sock.recv(1) == b""

    def close(self) -> None:
        self._sock.close()


@pytest.fixture(params=[1, 100, 1 << 20])
def open_wire(request: pytest.FixtureRequest) -> Iterator[Callable[..., Wire]]:
    wires: list[Wire] = []

    def make(server: Server, **options: object) -> Wire:
        options = {"client_id": "c", "clean_start": True, "keepalive_s": 60, **options}
        wires.append(Wire(server.port, Connect(**options), request.param))  # type: ignore[arg-type]
        return wires[-1]

    yield make
    for wire in wires:
        wire.close()


def test_a_whole_conversation(module_server: Server, open_wire: Callable[..., Wire]) -> None:
    wire = open_wire(module_server)
    answer = wire.next()
    assert isinstance(answer, Connack)
    assert (answer.session_present, answer.code) == (False, 0)
    assert answer.properties[P.MAXIMUM_PACKET_SIZE] == 16 * 1024 * 1024
    assert answer.properties[P.RECEIVE_MAXIMUM] == 64

    number = wire.client.subscribe("a/+", qos=1, identifier=300)
    assert wire.next() == Suback(Kind.SUBACK, number, (1,))
    asked = {
        P.MESSAGE_EXPIRY: 60,
        P.RESPONSE_TOPIC: "reply",
        P.CORRELATION_DATA: b"\0\1",
        P.USER_PROPERTY: [("ä", "b"), ("ä", "c")],
    }
    for nbytes in (0, 1, 127, 20_000, 70_000):
        payload = bytes(range(256)) * (nbytes // 256) + bytes(nbytes % 256)
        number = wire.client.publish("a/ä", [payload[:9], payload[9:]], qos=1, retain=False, properties=asked)
        came = [wire.next(), wire.next()]
        message = next(packet for packet in came if isinstance(packet, Publish))
        acknowledged = next(packet for packet in came if isinstance(packet, Puback))
        assert (acknowledged.packet_id, acknowledged.code) == (number, 0)
        assert whole(message.payload, message.placed) == payload
        assert (message.topic, message.qos, message.retain, message.duplicate) == ("a/ä", 1, False, False)
        assert {**message.properties, P.SUBSCRIPTION_IDENTIFIER: [300]} == message.properties
        assert {each: message.properties[each] for each in asked} == asked
        wire.client.acknowledge(message.packet_id)

    wire.client.publish("a/b", [b"unasked"], qos=0, retain=False, properties={})
    simple = wire.next()
    assert isinstance(simple, Publish)
    assert (simple.qos, simple.packet_id, simple.payload) == (0, 0, b"unasked")

    number = wire.client.unsubscribe(["a/+", "never"])
    assert wire.next() == Suback(Kind.UNSUBACK, number, (0, 0x11))
    number = wire.client.publish("a/b", [b""], qos=1, retain=False, properties={})
    assert wire.next() == Puback(number, 0x10)  # no matching subscribers
    wire.client.tick(60.0)
    assert wire.next() == Pingresp()
    wire.client.disconnect(Disconnect(properties={P.SESSION_EXPIRY: 0}))
    wire.flush()
    assert wire.is_closed()


def test_a_session_is_resumed_and_what_was_not_acknowledged_comes_again(
    module_server: Server, open_wire: Callable[..., Wire]
) -> None:
    lasting = {"client_id": "lasting", "properties": {P.SESSION_EXPIRY: 60, P.RECEIVE_MAXIMUM: 5}}
    first = open_wire(module_server, **lasting)
    assert isinstance(first.next(), Connack)
    first.client.subscribe("again", qos=1, identifier=1)
    assert isinstance(first.next(), Suback)
    first.client.publish("again", [b"x"], qos=1, retain=False, properties={})
    message = next(packet for packet in (first.next(), first.next()) if isinstance(packet, Publish))
    first.close()
    again = open_wire(module_server, **lasting, clean_start=False)
    answer = again.next()
    assert isinstance(answer, Connack)
    assert (answer.session_present, answer.code) == (True, 0)
    repeated = again.next()
    assert isinstance(repeated, Publish)
    assert (repeated.packet_id, repeated.duplicate, repeated.payload) == (message.packet_id, True, b"x")
    again.client.acknowledge(repeated.packet_id)
    again.client.disconnect(Disconnect(properties={P.SESSION_EXPIRY: 0}))
    again.flush()


def test_a_refusal_is_read(open_wire: Callable[..., Wire], tmp_path_factory: pytest.TempPathFactory) -> None:
    users = tmp_path_factory.mktemp("broker") / "users"
    users.write_text("")
    with Server(ServerSettings(password_file=users)) as server:
        wire = open_wire(server, username="me", password="wrong")
        answer = wire.next()
        assert isinstance(answer, Connack)
        assert answer.code in (0x86, 0x87)
        assert wire.is_closed()
        wire.close()


def test_a_taken_over_client_is_told_or_cut(module_server: Server, open_wire: Callable[..., Wire]) -> None:
    first, second = open_wire(module_server, client_id="twin"), open_wire(module_server, client_id="twin")
    assert isinstance(first.next(), Connack)
    assert isinstance(second.next(), Connack)
    # mosquitto 2.0 only closes the socket
    if (packet := first.next_or_end()) is not None:
        assert packet == Disconnect(0x8E)
