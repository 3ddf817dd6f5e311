"""A session against a real broker: messages move, and it comes back from whatever happens."""

from __future__ import annotations

import threading

import pytest

from broker.errors import (
    BrokerUnreachable,
    NotConnected,
)
from broker.ports import free_port
from broker.server import Server, ServerSettings
from broker.session import Address, Channel, Message
from tests.integration.conftest import PATIENCE_S, OpenSession, Received, Signal

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

    def on_up() -> None:
        session.keep("state", b"ready")
        answered(session.request("ask", b"ping", reply_topic="reply/1", timeout_s=PATIENCE_S))

    session = open_session(address, "node-1", start=False, on_up=on_up)
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


def test_a_callback_that_the_end_overtakes_is_no_failure(address: Address, open_session: OpenSession) -> None:
    begun, ended = threading.Event(), threading.Event()

    def up() -> None:
        begun.set()
        try:
            while not ended.wait(0.01):
                session.publish("t", b"")  # until it is stopped, and says so
        finally:
            ended.set()

    session = open_session(address, start=False, on_up=up)
    session.start()
    assert begun.wait(PATIENCE_S)
    session.stop()
    assert ended.wait(PATIENCE_S)
    assert session.internal_errors_total == 0
