"""A session against a real broker: messages move, and it comes back from whatever happens."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from broker.errors import (
    BrokerRefused,
    BrokerUnreachable,
    NotConnected,
    PayloadTooLarge,
    QueueFull,
    RequestTimeout,
    SessionTaken,
)
from broker.ports import free_port
from broker.server import Server, ServerSettings
from broker.session import Address, Channel, Message, Will
from tests.integration.conftest import PATIENCE_S, QUICK, OpenSession, Received, Signal

MIB = 1024 * 1024


@pytest.mark.parametrize("channel", list(Channel))
def test_a_message_arrives_on_each_channel(address: Address, open_session: OpenSession, channel: Channel) -> None:
    session, received = open_session(address, takes_frames=True), Received()
    session.subscribe(["t/+"], received, channel=channel)
    session.publish("t/1", b"hello")
    message = received.next()
    assert (message.topic, message.payload, message.channel, message.retain) == ("t/1", b"hello", channel, False)
    message.ack()


def test_messages_arrive_in_order_and_whole(address: Address, open_session: OpenSession) -> None:
    session, received = open_session(address), Received()
    session.subscribe(["t"], received, channel=Channel.BULK)
    sent = [bytes([number]) * (1 + number * 10_007) for number in range(200)]
    for payload in sent:
        session.publish("t", payload, channel=Channel.BULK)
    assert received.payloads(len(sent)) == sent
    assert session.received_bytes_total == sum(map(len, sent))
    assert session.sent_bytes_total > sum(map(len, sent))


def test_overlapping_filters_give_each_handler_one_copy(address: Address, open_session: OpenSession) -> None:
    session, wide, narrow = open_session(address), Received(), Received()
    session.subscribe(["a/#"], wide)
    session.subscribe(["a/+"], narrow)
    session.publish("a/b", b"1")
    session.publish("a/b", b"2")
    assert wide.payloads(2) == narrow.payloads(2) == [b"1", b"2"]
    assert wide.empty()
    assert narrow.empty()


def test_two_handlers_of_one_filter_both_see_a_message(address: Address, open_session: OpenSession) -> None:
    session, first, second = open_session(address), Received(), Received()
    session.subscribe(["t"], first)
    session.subscribe(["t"], second)
    session.publish("t", b"1")
    assert first.next().payload == second.next().payload == b"1"


def test_nothing_arrives_after_unsubscribe(address: Address, open_session: OpenSession) -> None:
    session, gone, marker = open_session(address), Received(), Received()
    session.subscribe(["t"], gone)
    session.subscribe(["end"], marker)
    session.unsubscribe(["t"])
    session.publish("t", b"1")
    session.publish("end", b"")
    marker.next()
    assert gone.empty()


def test_a_handler_that_raises_does_not_cost_the_connection(
    address: Address, open_session: OpenSession, caplog: pytest.LogCaptureFixture
) -> None:
    session, received = open_session(address), Received()

    def broken(message: Message) -> None:
        raise RuntimeError("bad frame")

    session.subscribe(["t"], broken)
    session.subscribe(["+"], received)
    session.publish("t", b"1")
    session.publish("t", b"2")
    assert received.payloads(2) == [b"1", b"2"]
    assert session.reconnects_total == 0
    assert "bad frame" in caplog.text


def test_a_handler_may_publish_and_subscribe(address: Address, open_session: OpenSession) -> None:
    session, received = open_session(address), Received()

    def answer(message: Message) -> None:
        session.subscribe(["second"], received)
        session.publish("second", message.payload)

    session.subscribe(["first"], answer)
    session.publish("first", b"1")
    assert received.next().payload == b"1"


def test_a_session_started_before_its_broker_comes_up_with_it(open_session: OpenSession) -> None:
    up, received = Signal(), Received()
    port = free_port("127.0.0.1")
    session = open_session(Address(port=port), start=False, on_up=up)
    session.subscribe(["t"], received)
    session.keep("kept", b"1")
    with pytest.raises(BrokerUnreachable, match=rf"127.0.0.1:{port}.*refused"):
        session.start(wait_s=0.05)
    session.publish("t", b"queued")
    with Server(ServerSettings(port=port)):
        up.wait()
        assert session.is_up
        assert received.next().payload == b"queued"
        session.stop()


def test_an_absent_broker_is_reported_once_not_at_every_attempt(
    open_session: OpenSession, caplog: pytest.LogCaptureFixture
) -> None:
    session = open_session(Address(port=free_port("127.0.0.1")), start=False)
    with pytest.raises(BrokerUnreachable):
        session.start(wait_s=0.5)
    assert len([record for record in caplog.records if "keeps trying" in record.message]) == 1


def test_kept_messages_and_subscriptions_survive_a_broker_that_forgets(
    server: Server, address: Address, open_session: OpenSession
) -> None:
    up, down, received = Signal(), Signal(), Received()
    node = open_session(address, "node-1", on_up=up, on_down=down)
    up.wait()
    node.subscribe(["cmd"], received)
    node.keep("state", b"ready")
    server.restart()
    (reason,) = down.wait()
    assert str(address) in reason
    up.wait()
    assert node.reconnects_total >= 2
    late, seen = open_session(address, "late"), Received()
    late.subscribe(["state"], seen)
    message = seen.next()
    assert (message.payload, message.retain) == (b"ready", True)
    late.publish("cmd", b"go")
    assert received.next().payload == b"go"


def test_a_forgotten_message_is_gone_from_the_broker(address: Address, open_session: OpenSession) -> None:
    node, seen, marker = open_session(address, "node-1"), Received(), Received()
    node.keep("state", b"ready")
    node.forget("state")
    late = open_session(address, "late")
    late.subscribe(["state"], seen)
    late.subscribe(["end"], marker)
    node.publish("end", b"")
    marker.next()
    assert seen.empty()


def test_on_up_may_publish_subscribe_and_request_waiting(address: Address, open_session: OpenSession) -> None:
    answered = Signal()
    helper = open_session(address, "helper")

    def reply(message: Message) -> None:
        assert message.response_topic is not None
        helper.publish(message.response_topic, b"pong", correlation=message.correlation)

    helper.subscribe(["ask"], reply)
    session = open_session(address, "node-1", start=False)

    def on_up() -> None:
        session.keep("state", b"ready")
        answered(session.request("ask", b"ping", reply_topic="reply/1", timeout_s=PATIENCE_S))

    session._on_up = on_up
    session.start(PATIENCE_S)
    assert answered.wait() == (b"pong",)


def test_what_is_unsubscribed_while_the_line_is_down_stays_unsubscribed(
    server: Server, address: Address, open_session: OpenSession
) -> None:
    up, down = Signal(), Signal()
    gone, marker = Received(), Received()
    session = open_session(address, on_up=up, on_down=down)
    up.wait()
    session.subscribe(["t"], gone)
    session.subscribe(["end"], marker)
    server.stop()
    down.wait()
    session.unsubscribe(["t"])
    server.start()
    up.wait()
    session.publish("t", b"1")
    session.publish("end", b"")
    marker.next()
    assert gone.empty()


def test_a_session_that_was_never_started_can_be_stopped(open_session: OpenSession) -> None:
    session = open_session(Address(), start=False)
    session.stop()
    with pytest.raises(NotConnected):
        session.publish("t", b"1")


def test_publishes_made_while_the_broker_is_away_arrive_in_order(
    server: Server, address: Address, open_session: OpenSession
) -> None:
    down, received = Signal(), Received()
    session = open_session(address, on_down=down)
    session.subscribe(["t"], received, channel=Channel.BULK)
    server.stop()
    down.wait()
    for number in range(100):
        session.publish("t", bytes([number]), channel=Channel.BULK)
    server.start()
    assert received.payloads(100) == [bytes([number]) for number in range(100)]
    session._connections[Channel.BULK].outbox.wait_empty(PATIENCE_S)
    assert session.queued_bytes == 0


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
            PayloadTooLarge, match=r"2_097_1\d\d bytes .* limit of 2_097_152 .* max_packet_size"
        ) as caught:
            session.publish("t", bytes(2 * MIB - 2))
        # the whole packet counts: 1 type + 4 length + 2+1 topic + 2 id + 1 properties
        assert caught.value.size == 2 * MIB - 2 + 11
        session.publish("t", bytes(2 * MIB - 11))
        assert len(received.next().payload) == 2 * MIB - 11
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
    will, taken, up = Will(topic="node/n/state", payload=b"lost"), Signal(), Signal()
    open_session(address, "other").publish("node/n/owner", b"token of the dead one", retain=True)
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
