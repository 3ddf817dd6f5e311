"""What a hostile client sends to a broker's other clients costs them nothing: no connection, no id, no memory."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace

import pytest

from broker.errors import BrokerUnreachable, TopicError, TopicOverfull
from broker.session import Address, Channel, Session, Will
from broker.topics import COMMAND, FRAME, STATE, Namespace
from tests.integration.conftest import PATIENCE_S, QUICK, OpenSession, Received, Signal

LIMIT = 100


@pytest.mark.parametrize("topic", ["a/#", "+", "", "a\0b", "x" * 70_000])
def test_what_is_no_topic_is_refused_to_the_caller_and_the_line_stands(
    address: Address, open_session: OpenSession, topic: str
) -> None:
    received = Received()
    session = open_session(address, "device")
    session.subscribe(["result/cam"], received)
    connects = session.connects_total(Channel.CONTROL)
    for wrong in ({"topic": topic}, {"topic": "frame/cam", "response_topic": topic}):
        with pytest.raises(TopicError, match="no topic to publish on"):
            session.publish(payload=b"", **wrong)  # type: ignore[arg-type]  # both are topics
    session.publish("result/cam", b"R")
    assert received.next().payload == b"R"
    assert session.connects_total(Channel.CONTROL) == connects


def test_a_message_above_its_topics_limit_goes_no_further(address: Address, open_session: OpenSession) -> None:
    received = Received()
    session = open_session(address, "device", max_bytes=lambda topic: LIMIT)
    session.subscribe(["small/#"], received)
    other = open_session(address, "camera")
    other.publish("small/1", bytes(LIMIT + 1))
    other.publish("small/2", bytes(LIMIT))
    assert received.next().topic == "small/2"
    assert session.refused_total == 1


def test_an_ownership_token_that_a_stranger_writes_ends_nobody(address: Address, open_session: OpenSession) -> None:
    taken, received = Signal(), Received()
    will = Will(topic="node/cloud-1/state", payload=b"lost")
    session = open_session(address, "cloud-1", will=will, on_taken=taken)
    stranger = open_session(address, "evil")
    stranger.subscribe(["node/cloud-1/owner"], received)
    assert received.next().payload == session.token.encode()
    stranger.publish("node/cloud-1/owner", b"mine", retain=True)
    assert received.payloads(2) == [b"mine", session.token.encode()], "it is put right again"
    assert session.is_up
    assert session.refused_total == 1
    assert not taken.called()


def test_two_pipelines_whose_names_run_together_have_ids_of_their_own(
    address: Address, open_session: OpenSession
) -> None:
    one = open_session(address, "2-edge", scope="lab")
    other = open_session(address, "edge", scope="lab-2")
    for session in (one, other):
        echo = Received()
        session.subscribe([f"echo/{session.name}"], echo)
        session.publish(f"echo/{session.name}", b"here")
        assert echo.next().payload == b"here"
    assert one.is_up
    assert other.is_up
    assert one.reconnects_total == other.reconnects_total == 0


def test_an_answer_goes_below_reply_of_its_pipeline_only() -> None:
    names = Namespace("lab")
    assert names.is_reply("trisect/v1/lab/reply/publish-9f")
    for topic in (
        names.topic(COMMAND, node="planner", verb="place"),
        names.topic(FRAME, stream="cam"),
        names.topic(STATE, node="edge-1"),
        "trisect/v1/lab-2/reply/x",
        "trisect/v1/lab/reply/+",
        "trisect/v1/lab/reply/#",
        "trisect/v1/lab/reply/a/b",
        "a/#",
        "",
    ):
        assert not names.is_reply(topic)


def test_a_packet_that_nobody_reads_stays_at_the_broker(address: Address, open_session: OpenSession) -> None:
    """It would be whole in memory before it could be refused."""
    received, limits = Received(), replace(QUICK, max_packet_bytes=100_000)
    device = open_session(address, "device", limits=limits, takes_frames=True)
    for channel in (Channel.CONTROL, Channel.BULK):
        device.subscribe([f"big/{channel.value}"], received, channel=channel)
    other = open_session(address, "camera")
    for channel in (Channel.CONTROL, Channel.BULK):
        for nbytes in (300_000, 10):
            other.publish(f"big/{channel.value}", bytes(nbytes), channel=Channel.BULK)
    assert [len(payload) for payload in received.payloads(2)] == [10, 10]
    assert device.received_bytes_total == 20
    assert device.reconnects_total == 0


def test_what_nobody_takes_is_refused_to_the_sender(address: Address, open_session: OpenSession) -> None:
    session = open_session(address, "camera", max_bytes=lambda topic: LIMIT)
    with pytest.raises(TopicOverfull, match="101 bytes for small/1, on which nobody takes more than 100"):
        session.publish("small/1", bytes(LIMIT + 1))


def test_a_session_whose_brokers_name_resolves_slowly_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving, done = threading.Event(), threading.Event()

    def slowly(*arguments: object, **more: object) -> list[object]:
        resolving.set()
        done.wait(PATIENCE_S)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    session = Session(Address("nowhere.example"), name="guest", token="t", limits=QUICK)
    with pytest.raises(BrokerUnreachable):
        session.start(0.1)
    assert resolving.is_set()
    stopped = threading.Thread(target=session.stop)
    stopped.start()
    stopped.join(PATIENCE_S / 3)
    assert not stopped.is_alive(), "it waits for the name"
    done.set()
