"""The line that tensors take, where a broker sets limits, breaks off, keeps silent, or is none; and over TLS."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from broker.errors import BrokerRefused, BrokerUnreachable, PayloadTooLarge
from broker.mqtt.reader import Placement
from broker.ports import free_port
from broker.server import find_mosquitto
from broker.session import Address, Channel, Message, Session
from broker.tls import Tls
from broker.topics import LARGEST_PACKET
from tests.integration.conftest import PATIENCE_S, QUICK, OpenSession, Received, Signal
from tests.mqtt_bytes import DISCONNECT, framed, message
from tests.scripted_broker import PINGREQ, PUBLISH, SUBSCRIBE, ScriptedBroker

pytestmark = pytest.mark.integration

MIB = 1 << 20
RECEIVE_MAXIMUM_3 = b"\x21\0\3"


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    scripted = ScriptedBroker()
    yield scripted
    scripted.close()


@pytest.fixture
def start(broker: ScriptedBroker, open_session: OpenSession) -> OpenSession:
    """A session that is not waited for."""

    def make(**options: object) -> Session:
        session = open_session(Address(port=broker.port), start=False, **options)
        return session.start()

    return make


def publish(session: Session, *payloads: bytes, qos: int = 1) -> None:
    for payload in payloads:
        session.publish("t", payload, channel=Channel.BULK, qos=qos)


def numbered(count: int, nbytes: int = 100) -> list[bytes]:
    return [number.to_bytes(4, "big") + bytes(nbytes) for number in range(count)]


def test_no_more_than_the_receive_maximum_is_under_way(broker: ScriptedBroker, start: OpenSession) -> None:
    session, sent = start(), numbered(20)
    publish(session, *sent)
    client = broker.next()
    client.accept(RECEIVE_MAXIMUM_3)
    window = [client.expect(PUBLISH) for _ in range(3)]
    got = [packet.payload for packet in window]
    publish(session, b"now", qos=0)
    while len(got) < 20:
        client.acknowledge(window.pop(0))
        # the answer to each is exactly one more: a fourth would come here, before what is asked for last
        window.append(client.expect(PUBLISH))
        got.append(window[-1].payload)
        assert session._connections[Channel.BULK].outbox.in_flight <= 3
    assert got == sent


def test_what_was_not_acknowledged_is_sent_again_first_and_in_order(broker: ScriptedBroker, start: OpenSession) -> None:
    session, sent = start(), numbered(8)
    publish(session, *sent)
    first = broker.next()
    first.accept(RECEIVE_MAXIMUM_3)
    packets = [first.expect(PUBLISH) for _ in range(3)]
    first.acknowledge(packets[0])
    packets.append(first.expect(PUBLISH))
    first.cut()
    again = broker.next()
    again.accept()
    # fewer at once than before: a broker that has just broken off may be short of memory
    packets = []
    for _ in range(7):
        packets.append(again.expect(PUBLISH))
        assert session.queued_bytes > 0
        again.acknowledge(packets[-1])
    assert [packet.payload for packet in packets] == sent[1:]


def test_messages_are_numbered_and_their_gaps_counted(broker: ScriptedBroker, start: OpenSession) -> None:
    missed, received = Signal(), Received()
    session = start(on_missed=missed)
    session.subscribe(["t"], received, channel=Channel.BULK)
    client = broker.next()
    client.accept()
    client.acknowledge(client.expect(SUBSCRIBE))
    publish(session, *numbered(3))
    packets = [client.expect(PUBLISH) for _ in range(3)]
    for packet in (packets[0], packets[2]):
        client.send(message("t", packet.payload, packet_id=1, properties=packet.properties))
    assert received.payloads(2) == [packets[0].payload, packets[2].payload]
    assert missed.wait() == (Channel.BULK,)
    assert session.missed_total == 1


def test_a_gap_before_a_message_that_is_placed_is_counted(broker: ScriptedBroker, start: OpenSession) -> None:
    session, keeper = start(), Keeper()
    session.subscribe(["t"], keeper, channel=Channel.BULK)
    client = broker.next()
    client.accept()
    client.acknowledge(client.expect(SUBSCRIBE))
    publish(session, b"first", b"dropped", bytes(MIB))
    first, _, last = (client.expect(PUBLISH) for _ in range(3))
    for packet in (first, last):
        client.send(message("t", packet.payload, packet_id=1, properties=packet.properties))
    assert keeper.messages.next().payload == b"first"
    assert isinstance(keeper.messages.next().placed, bytearray)
    assert session.missed_total == 1


def test_a_packet_above_what_was_announced_ends_the_connection(
    broker: ScriptedBroker, start: OpenSession, caplog: pytest.LogCaptureFixture
) -> None:
    session, received = start(limits=replace(QUICK, max_packet_bytes=MIB)), Received()
    session.subscribe(["t"], received, channel=Channel.BULK)
    first = broker.next()
    first.accept()
    first.acknowledge(first.expect(SUBSCRIBE))
    first.send(message("t", bytes(2 * MIB), packet_id=1)[: MIB // 2])
    assert first.expect(DISCONNECT >> 4).body == b"\x95", "packet too large"
    assert "a packet of 2_097_" in caplog.text
    again = broker.next()
    again.accept()
    again.acknowledge(again.expect(SUBSCRIBE))
    again.send(message("t", b"small", packet_id=1))
    assert received.next().payload == b"small"


def test_a_message_that_was_cut_is_sent_again_whole(broker: ScriptedBroker, start: OpenSession) -> None:
    session, payload = start(), os.urandom(3 * MIB)
    publish(session, payload)
    first = broker.next()
    first.accept()
    first.read(MIB)
    first.cut()
    again = broker.next()
    again.accept()
    packet = again.expect(PUBLISH)
    assert (packet.flags, packet.payload) == (0b0010, payload)
    again.acknowledge(packet)
    assert session._connections[Channel.BULK].outbox.wait_empty(PATIENCE_S)


def test_a_smaller_packet_size_after_a_reconnect_holds_from_then_on(broker: ScriptedBroker, start: OpenSession) -> None:
    session = start()
    first = broker.next()
    first.accept(b"\x27\0\0\x40\0")  # 16,384
    publish(session, bytes(10_000))
    first.expect(PUBLISH)
    first.cut()
    again = broker.next()
    again.accept(b"\x27\0\0\x20\0")  # 8,192
    publish(session, bytes(8_000))
    assert len(again.expect(PUBLISH).payload) == 8_000
    assert session.dropped_total == 1
    with pytest.raises(PayloadTooLarge, match=r"8_2\d\d bytes .* limit of 8_192"):
        publish(session, bytes(8_190))
    again.cut()
    larger = broker.next()
    larger.accept()
    larger.acknowledge(larger.expect(PUBLISH))
    publish(session, bytes(10_000))
    assert len(larger.expect(PUBLISH).payload) == 10_000


def test_what_is_asked_for_at_connect(broker: ScriptedBroker, start: OpenSession) -> None:
    session = start()
    session.subscribe(["t"], Received(), channel=Channel.BULK)
    client = broker.next()
    hello = client.accept()
    assert hello[:10] == b"\0\4MQTT\5\2\0\x0f", "clean start, keep-alive 15 s"
    assert hello[10:16] == b"\5\x27" + LARGEST_PACKET.to_bytes(4, "big"), "no larger packets"
    client.acknowledge(client.expect(SUBSCRIBE))
    client.cut()
    again = broker.next()
    assert again.accept()[7] == 0, "no clean start the next time"
    assert again.expect(SUBSCRIBE).body.endswith(b"\0\1t\1")


def test_a_server_without_identifiers_is_sent_none(broker: ScriptedBroker, start: OpenSession) -> None:
    received = Received()
    session = start()
    session.subscribe(["t"], received, channel=Channel.BULK)
    client = broker.next()
    client.accept(b"\x29\0")
    packet = client.expect(SUBSCRIBE)
    assert packet.body[2:] == b"\0\0\1t\1"
    client.acknowledge(packet)
    client.send(message("t", b"x", packet_id=5))
    assert received.next().payload == b"x"
    assert client.expect(4).body == b"\0\5"


@pytest.mark.parametrize(
    "nonsense",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 20, message("t", b"", packet_id=1, first=0x34)],
)
def test_nonsense_ends_the_connection_and_not_the_session(
    broker: ScriptedBroker, start: OpenSession, nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    session = start()
    publish(session, b"kept")
    first = broker.next()
    first.accept()
    first.expect(PUBLISH)
    first.send(nonsense)
    goodbye = first.expect(DISCONNECT >> 4)
    assert goodbye.body[0] in (0x81, 0x82)
    assert first.next() is None
    assert "breaks MQTT 5" in caplog.text
    again = broker.next()
    again.accept()
    assert again.expect(PUBLISH).payload == b"kept"


def test_a_silent_broker_is_given_up(broker: ScriptedBroker, start: OpenSession) -> None:
    down = Signal()
    start(limits=replace(QUICK, keepalive_s=1), on_down=down)
    client = broker.next()
    client.accept()
    client.expect(PINGREQ)
    assert client.next() is None
    broker.next().accept()


def test_a_broker_that_answers_pings_is_kept(broker: ScriptedBroker, start: OpenSession) -> None:
    session = start(limits=replace(QUICK, keepalive_s=1))
    client = broker.next()
    client.accept()
    for _ in range(3):
        client.expect(PINGREQ)
        client.send(b"\xd0\0")
    assert session.connects_total(Channel.BULK) == 1


def test_a_disconnect_of_the_broker_says_why(broker: ScriptedBroker, start: OpenSession) -> None:
    up, down = Signal(), Signal()
    start(on_up=up, on_down=down)
    client = broker.next()
    client.accept()
    up.wait()
    client.send(framed(DISCONNECT, b"\x8b"))
    assert "Server shutting down" in down.wait()[0]


def test_a_refused_message_is_settled_and_told(
    broker: ScriptedBroker, start: OpenSession, caplog: pytest.LogCaptureFixture
) -> None:
    session, settled = start(), Signal()
    session.publish("t", b"x", channel=Channel.BULK, settled=settled)
    client = broker.next()
    client.accept()
    packet = client.expect(PUBLISH)
    client.send(framed(0x40, packet.packet_id + b"\x97"))
    assert settled.wait() == (False,)
    session.publish("t", b"y", channel=Channel.BULK, settled=settled)
    client.acknowledge(client.expect(PUBLISH))
    assert settled.wait() == (True,)
    assert "Quota exceeded" in caplog.text
    assert session.queued_bytes == 0


class Keeper:
    """A handler that wants payloads in memory of its own."""

    def __init__(self) -> None:
        self.memory: list[bytearray] = []
        self.messages = Received()

    def place(self, topic: str, first: memoryview, nbytes: int) -> Placement:
        self.memory.append(bytearray(nbytes - 10))
        return Placement(10, memoryview(self.memory[-1]), self.memory[-1])

    def __call__(self, message: Message) -> None:
        self.messages(message)


def test_a_payload_is_placed_and_one_that_was_cut_is_not_delivered(broker: ScriptedBroker, start: OpenSession) -> None:
    session, keeper, payload = start(), Keeper(), os.urandom(2 * MIB)
    session.subscribe(["t"], keeper, channel=Channel.BULK)
    first = broker.next()
    first.accept()
    first.acknowledge(first.expect(SUBSCRIBE))
    first.send(message("t", payload, packet_id=1)[:MIB])
    first.cut()
    again = broker.next()
    again.accept()
    again.acknowledge(again.expect(SUBSCRIBE))
    again.send(message("t", payload, packet_id=1, first=0x3A))
    found = keeper.messages.next()
    assert isinstance(found.placed, bytearray)
    assert found.payload + found.placed == payload
    assert keeper.messages.empty()
    assert again.expect(4).body == b"\0\1"


def test_a_place_that_fails_costs_nothing_but_a_copy(
    broker: ScriptedBroker, start: OpenSession, caplog: pytest.LogCaptureFixture
) -> None:
    session, keeper = start(), Keeper()
    keeper.place = lambda *_: 1 / 0  # type: ignore[method-assign, assignment]
    session.subscribe(["t"], keeper, channel=Channel.BULK)
    client = broker.next()
    client.accept()
    client.acknowledge(client.expect(SUBSCRIBE))
    client.send(message("t", bytes(MIB), packet_id=1))
    found = keeper.messages.next()
    assert (found.payload, found.placed) == (bytes(MIB), None)
    assert "ZeroDivisionError" in caplog.text


def test_what_is_above_its_topics_limit_is_dropped_as_it_comes(broker: ScriptedBroker, start: OpenSession) -> None:
    session = start(max_bytes=lambda topic: MIB)
    received = Received()
    session.subscribe(["t"], received, channel=Channel.BULK)
    client = broker.next()
    client.accept()
    client.acknowledge(client.expect(SUBSCRIBE))
    client.send(message("t", bytes(MIB + 1), packet_id=1) + message("t", b"small", packet_id=2))
    assert received.next().payload == b"small"
    assert session.refused_total == 1
    assert [client.expect(4).body for _ in range(2)] == [b"\0\1", b"\0\2"]


# Over TLS, with a real mosquitto.


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert, users = folder / "key.pem", folder / "cert.pem", folder / "users"
    asked = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*asked.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(users), "me", "secret"], check=True, capture_output=True)
    port = free_port("127.0.0.1")
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nuser root\ncafile {cert}\ncertfile {cert}\nkeyfile {key}\n"
        f"password_file {users}\nallow_anonymous false\nset_tcp_nodelay true\n"
    )
    process = subprocess.Popen([find_mosquitto(), "-c", str(config)], stderr=subprocess.DEVNULL)
    yield Address("127.0.0.1", port, "me", "secret", tls=Tls(cert.read_text()))
    process.terminate()
    process.wait(PATIENCE_S)


def test_tensors_pass_encrypted(encrypted: Address, open_session: OpenSession) -> None:
    session, keeper = open_session(encrypted), Keeper()
    session.subscribe(["t"], keeper, channel=Channel.BULK)
    sent = [os.urandom(size) for size in (1, 20_000, MIB, 3 * MIB)]
    for payload in sent:
        middle = len(payload) // 2
        session.publish("t", (payload[:middle], memoryview(payload)[middle:]), channel=Channel.BULK)
    for payload in sent:
        found = keeper.messages.next()
        assert found.payload + (bytes(found.placed) if isinstance(found.placed, bytearray) else b"") == payload
    assert session.reconnects_total == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho leaves its socket to Python
def test_an_unknown_authority_is_not_believed(encrypted: Address, open_session: OpenSession) -> None:
    session = open_session(replace(encrypted, tls=Tls()), start=False)
    with pytest.raises(BrokerUnreachable, match="signed by itself"):
        session.start(wait_s=2.0)


def test_a_wrong_password_is_told(encrypted: Address, open_session: OpenSession) -> None:
    session = open_session(replace(encrypted, password="wrong"), start=False)
    with pytest.raises(BrokerRefused, match="user name and password"):
        session.start(PATIENCE_S)
