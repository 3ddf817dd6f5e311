"""What a hostile client sends to a broker's other clients costs them nothing: no connection, no id, no memory."""

from __future__ import annotations

import pytest

from broker.errors import TopicError
from broker.session import Address, Channel, Will
from broker.topics import COMMAND, FRAME, STATE, Namespace
from tests.integration.conftest import OpenSession, Received, Signal

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
