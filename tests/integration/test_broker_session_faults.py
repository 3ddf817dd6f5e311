"""Sessions against a real broker, continued."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from broker.errors import (
    BrokerRefused,
    NotConnected,
    PayloadTooLarge,
    QueueFull,
    RequestTimeout,
    SessionTaken,
)
from broker.numbering import PLACEHOLDER
from broker.ports import free_port
from broker.server import Server, ServerSettings
from broker.session import Address, Channel, Message, Will
from tests.integration.conftest import PATIENCE_S, QUICK, OpenSession, Received, Signal
from tests.integration.test_broker_session import MIB


def test_a_session_of_a_new_name_misses_nothing_while_a_broker_with_persistence_restarts(
    open_session: OpenSession, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)  # mosquitto may have an account of its own
    with Server(ServerSettings(persistence_dir=tmp_path)) as server:
        address, received = Address("127.0.0.1", server.port), Received()
        slow = replace(QUICK, reconnect_min_s=0.5, reconnect_max_s=0.5)  # the writer is back first
        reader = open_session(address, "reader", is_new_name=True, limits=slow)
        writer = open_session(address, "writer")
        reader.subscribe(["t"], received)
        sent = [str(number).encode() for number in range(400)]
        for number, payload in enumerate(sent):
            if number == len(sent) // 2:
                server.restart()
            writer.publish("t", payload, wait_s=None)
            threading.Event().wait(0.002)  # so that they are under way all the time, before and after
        assert set(received.payloads(len(sent))) == set(sent)


def test_bytes_in_flight_are_not_leaked_by_a_killed_broker(
    server: Server, address: Address, open_session: OpenSession
) -> None:
    up = Signal()
    session = open_session(address, on_up=up)
    up.wait()
    for number in range(100):
        session.publish("t", bytes(100_000), channel=Channel.BULK, qos=number % 2)
    server.kill()
    session.publish("t", b"qos 0 without a connection", qos=0)
    server.start()
    up.wait()
    assert session._connections[Channel.BULK].outbox.wait_empty(PATIENCE_S)
    assert session._connections[Channel.CONTROL].outbox.wait_empty(PATIENCE_S)
    assert session.queued_bytes == 0


def test_an_expired_message_is_not_sent_after_a_reconnect(
    server: Server, address: Address, open_session: OpenSession
) -> None:
    down, received = Signal(), Received()
    session = open_session(address, on_down=down)
    session.subscribe(["t"], received)
    server.stop()
    down.wait()
    session.publish("t", b"stale", expiry_s=0.0)
    session.publish("t", b"fresh", expiry_s=60.0)
    server.start()
    assert received.next().payload == b"fresh"
    assert session.dropped_total == 1


def test_a_payload_over_the_brokers_limit_is_refused_before_it_leaves(open_session: OpenSession) -> None:
    with Server(ServerSettings(max_packet_bytes=2 * MIB)) as server:
        session, received = open_session(Address(server.host, server.port)), Received()
        session.subscribe(["t"], received)
        assert session.max_packet_bytes == 2 * MIB
        with pytest.raises(
            PayloadTooLarge, match=r"2_097_[12]\d\d bytes .* limit of 2_097_152 .* max_packet_size"
        ) as caught:
            session.publish("t", bytes(2 * MIB - 2))
        # the whole packet counts: 1 type + 4 length + 2+1 topic + 2 id + 1 properties, and the longest number
        most = 2 * MIB - 11 - 6 - len(PLACEHOLDER)
        assert caught.value.size == 4 * MIB - 2 - most
        session.publish("t", bytes(most))
        assert len(received.next().payload) == most
        assert session.reconnects_total == 0
        session.stop()


def test_a_publisher_waits_at_the_bound_and_goes_on_when_bytes_are_acknowledged(
    server: Server, address: Address, open_session: OpenSession
) -> None:
    down, received = Signal(), Received()
    limits = replace(QUICK, bulk_queue_bytes=MIB)
    session = open_session(address, on_down=down, limits=limits)
    session.subscribe(["t"], received, channel=Channel.BULK)
    server.stop()
    down.wait()
    session.publish("t", bytes(MIB // 2), channel=Channel.BULK)
    with pytest.raises(QueueFull, match="of 1_048_576 bytes are unacknowledged") as caught:
        session.publish("t", bytes(MIB // 2 + 1), channel=Channel.BULK, wait_s=0.01)
    assert caught.value.queued <= MIB
    released = threading.Event()

    def publish() -> None:
        session.publish("t", bytes(MIB // 2 + 1), channel=Channel.BULK, wait_s=None)
        released.set()

    waiting = threading.Thread(target=publish)
    waiting.start()
    assert not released.is_set()
    server.start()
    assert released.wait(PATIENCE_S)
    waiting.join(PATIENCE_S)
    assert [len(payload) for payload in received.payloads(2)] == [MIB // 2, MIB // 2 + 1]


def test_a_publisher_that_waits_is_released_by_stop(
    server: Server, address: Address, open_session: OpenSession
) -> None:
    down, refused = Signal(), Signal()
    session = open_session(address, on_down=down, limits=replace(QUICK, bulk_queue_bytes=1000))
    server.stop()
    down.wait()
    session.publish("t", bytes(900), channel=Channel.BULK)

    def publish() -> None:
        with pytest.raises(NotConnected):
            session.publish("t", bytes(900), channel=Channel.BULK, wait_s=None)
        refused()

    waiting = threading.Thread(target=publish)
    waiting.start()
    session.stop()
    refused.wait()
    waiting.join(PATIENCE_S)


def test_a_handler_is_never_made_to_wait(address: Address, open_session: OpenSession) -> None:
    outcome = Signal()
    session = open_session(address, limits=replace(QUICK, bulk_queue_bytes=1000))

    def flood(message: Message) -> None:
        session.publish("t", bytes(900), channel=Channel.BULK)
        with pytest.raises(QueueFull):
            session.publish("t", bytes(900), channel=Channel.BULK, wait_s=None)
        outcome()

    session.subscribe(["go"], flood, channel=Channel.BULK)
    session.publish("go", b"")
    outcome.wait()


def test_a_request_is_answered(address: Address, open_session: OpenSession) -> None:
    client, node = open_session(address, "cli"), open_session(address, "node-1")

    def reply(message: Message) -> None:
        assert message.response_topic is not None
        node.publish(message.response_topic, message.payload.upper(), correlation=message.correlation)

    node.subscribe(["cmd/node-1/+"], reply)
    for text in (b"one", b"two"):
        answer = client.request("cmd/node-1/say", text, reply_topic="reply/cli", timeout_s=PATIENCE_S)
        assert answer == text.upper()


def test_a_request_that_nobody_answers_times_out(address: Address, open_session: OpenSession) -> None:
    with pytest.raises(RequestTimeout, match=r"cmd/gone/stop within 0.1 s: its node is not running"):
        open_session(address).request("cmd/gone/stop", b"", reply_topic="reply/cli", timeout_s=0.1)


def test_a_second_node_with_one_id_takes_over_and_the_first_does_not_fight(
    address: Address, open_session: OpenSession
) -> None:
    taken, received = Signal(), Received()
    will, thrown_out = Will(topic="node/twin/state", payload=b"lost"), Signal()
    first = open_session(address, "twin", will=will, on_taken=taken)
    second = open_session(address, "twin", will=will, on_taken=thrown_out)
    (error,) = taken.wait()
    assert isinstance(error, SessionTaken)
    assert "trisect.twin." in str(error)
    assert not first.is_up
    second.subscribe(["t"], received)
    second.publish("t", b"1")
    assert received.next().payload == b"1"
    assert not thrown_out.called()
    with pytest.raises(NotConnected):
        first.publish("t", b"2")


def test_a_new_process_with_the_id_of_a_dead_one_is_not_turned_away(
    address: Address, open_session: OpenSession
) -> None:
    will, taken, up, there = Will(topic="node/n/state", payload=b"lost"), Signal(), Signal(), Signal()
    open_session(address, "other").publish("node/n/owner", b"token of the dead one", retain=True, settled=there)
    assert there.wait() == (True,)
    session, received = open_session(address, "n", will=will, on_taken=taken, on_up=up), Received()
    up.wait()
    for connection in session._connections.values():
        sock = connection.sock
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_RDWR)
    up.wait()
    session.subscribe(["t"], received)
    session.publish("t", b"1")
    assert received.next().payload == b"1"
    assert not taken.called()


def test_a_wrong_password_is_told_at_once(open_session: OpenSession, tmp_path_factory: pytest.TempPathFactory) -> None:
    users = tmp_path_factory.mktemp("broker") / "users"
    users.write_text("")
    with Server(ServerSettings(password_file=users)) as server:
        session = open_session(Address(server.host, server.port, "me", "wrong"), start=False)
        with pytest.raises(BrokerRefused, match="user name and password"):
            session.start(PATIENCE_S)
        session.stop()


def test_stop_without_a_broker_does_not_hang(open_session: OpenSession) -> None:
    session = open_session(Address(port=free_port("127.0.0.1")), start=False)
    session.start()
    session.stop({"state": b"stopped"})


def test_intake_is_refused_where_there_is_none(address: Address, open_session: OpenSession) -> None:
    with pytest.raises(NotConnected, match="takes_frames=True"):
        open_session(address).subscribe(["frame/+"], Received(), channel=Channel.FRAMES)
