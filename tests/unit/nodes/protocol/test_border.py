"""What is wrong is refused with its topic, its field and the limit, is counted, and is said once a minute."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from typing import Any

import pytest

from broker import topics
from broker.messages import Channel, Message
from broker.topics import Namespace, Topic
from nodes.protocol import request_ids
from nodes.protocol.border import Border
from nodes.protocol.messages import Applied, LifeState, LinkReport, NodeState, Report, StreamApplied, to_bytes
from nodes.protocol.packages import Holdings
from nodes.protocol.reports import PROBE, WORK_WATTS, segment_metric
from pipeline.plan import NodeId, StreamId
from pipeline.protocol_version import PROTOCOL_VERSION

NAMES = Namespace("lab")
EDGE, CAM = NodeId("edge-1"), StreamId("cam")
STATE = NodeState(EDGE, "edge", LifeState.READY, "s")


def message(kind: Topic, payload: Any, *, response: str | None = None, correlation: bytes | None = None) -> Message:
    fields: dict[str, str] = {"node": EDGE, "stream": CAM, "model": "net", "digest": "c0ffee", "verb": "drain"}
    topic = NAMES.topic(kind, **{name: fields[name] for name in kind.fields})
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Message(topic, data, False, Channel.CONTROL, response, correlation, lambda: None)


def test_a_good_message_comes_through() -> None:
    border = Border(NAMES)
    assert border.read(message(topics.STATE, to_bytes(STATE))) == STATE
    assert border.total == 0


def test_a_payload_that_names_another_node_than_its_topic_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    border = Border(NAMES)
    for said in (NodeState(NodeId("cloud-1"), "cloud", LifeState.LOST, "s"), Applied(NodeId("cloud-1"), "s")):
        kind = topics.STATE if isinstance(said, NodeState) else topics.APPLIED
        assert border.read(message(kind, to_bytes(said))) is None
    assert border.total == 2
    (record,) = caplog.records
    assert "trisect/v1/lab/node/edge-1/state: refused: node: 'edge-1' as in its topic" in record.getMessage()


@pytest.mark.parametrize(
    ("kind", "payload", "said"),
    [
        (
            topics.STATE,
            {"protocol": PROTOCOL_VERSION, "node": "x/y z", "tier": "edge", "state": "ready"},
            "node: .*match",
        ),
        (topics.APPLIED, to_bytes(Applied(EDGE, "s", {CAM: StreamApplied(10**4_000)})), "streams.cam.seen: .*than or"),
        (topics.LINK, to_bytes(LinkReport(EDGE, "s", float("inf"), 1.0, 1.0)), "up_bytes_per_s: .*finite"),
        (
            topics.PLAN,
            {"version": PROTOCOL_VERSION, "stream": "cam", "epoch": 1, "model": "x" * 9_000_000},
            "model: .*match",
        ),
        (topics.MODEL, {"version": 2, "name": "n", "digest": "c0ffee", "tensors": [{"shape": [10**400]}]}, "tensors"),
        (
            topics.HOLDINGS,
            to_bytes(Holdings(EDGE, {"a" * 32: ((0, 9), (3, 12))})),
            "do not overlap .* 3 to 12 behind 9",
        ),
        (topics.PROFILE, {"version": 1, "model": "net", "seconds": [1e308]}, "not a profile"),
    ],
)
def test_what_is_out_of_range_is_refused_in_few_words(
    caplog: pytest.LogCaptureFixture, kind: Topic, payload: Any, said: str
) -> None:
    border = Border(NAMES)
    assert border.read(message(kind, payload)) is None
    assert border.total == 1
    (record,) = caplog.records
    assert len(record.getMessage()) < 700
    assert re.search(said, record.getMessage())


def test_what_a_node_of_an_earlier_version_publishes_is_refused_with_both_versions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    border = Border(NAMES)
    earlier = json.loads(to_bytes(STATE))
    del earlier["protocol"]
    assert border.read(message(topics.STATE, earlier)) is None
    assert border.read(message(topics.PLAN, {"version": 1, "stream": CAM, "plan_request": None})) is None
    assert border.total == 2
    state, plan = (record.getMessage() for record in caplog.records)
    here = f"this trisect speaks {PROTOCOL_VERSION}; run one version everywhere"
    assert f"a NodeState of protocol version 2 or earlier, {here}" in state
    assert f"plan protocol version 1, this trisect reads {PROTOCOL_VERSION}" in plan


def test_a_senders_faults_are_all_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    border = Border(NAMES)
    with caplog.at_level(logging.WARNING):
        for _ in range(1_000):
            border.read(message(topics.STATE, b"nonsense"))
    assert border.total == 1_000
    assert len(caplog.records) == 1


def test_a_report_with_one_wrong_number_is_good_for_the_rest() -> None:
    border = Border(NAMES)
    report = {
        segment_metric(CAM, 1, "frames"): 10**400,
        segment_metric(CAM, 1, "compute_seconds_p50"): 0.1,
        segment_metric(CAM, 2, "frames"): 5,
        segment_metric(CAM, 2, "compute_seconds_p50"): 0.1,
    }
    read = border.read(message(topics.TELEMETRY, report))
    assert isinstance(read, Report)
    assert [segment.epoch for segment in read.segments] == [2]
    assert border.total == 1


@pytest.mark.parametrize("absurd", [1e300, 10**400, -1.0, True, "fast", None, [1.0]])
@pytest.mark.parametrize("key", ["link.up_bytes_per_s", "link.round_trip_s", PROBE, WORK_WATTS])
def test_an_absurd_number_is_refused_counted_and_changes_nothing(key: str, absurd: object) -> None:
    border = Border(NAMES)
    read = border.read(message(topics.TELEMETRY, {key: absurd}))
    assert isinstance(read, Report)
    assert replace(read, wrong="") == Report()
    assert border.total == (0 if absurd is None and key.startswith("link.") else 1)


def test_an_answer_goes_below_reply_only_and_the_rest_of_the_message_counts() -> None:
    border = Border(NAMES)
    reply = NAMES.topic(topics.REPLY, client="cli-1")
    assert border.reply_to(message(topics.FRAME, b"", response=reply, correlation=b"7")) == (reply, b"7")
    assert border.reply_to(message(topics.FRAME, b"")) == (None, None)
    for wrong in ("a/#", NAMES.topic(topics.COMMAND, node="planner", verb="place"), "trisect/v1/lab/reply/+"):
        assert border.reply_to(message(topics.FRAME, b"", response=wrong))[0] is None
    assert border.total == 3
    assert border.reply_to(message(topics.FRAME, b"", response=reply, correlation=bytes(60_000))) == (None, None)


@pytest.mark.parametrize("kind", [topics.COMMAND, topics.PING, topics.TAKEN], ids=lambda kind: kind.template)
def test_a_request_says_the_way_back_in_its_payload_where_a_bridge_takes_properties_off(kind: Topic) -> None:
    border = Border(NAMES)
    reply = NAMES.topic(topics.REPLY, client="cli-1")
    payload = b'{"reply_to": "%s", "request_id": "7"}' % reply.encode()
    assert border.reply_to(message(kind, payload)) == (reply, b"7")
    assert border.reply_to(message(topics.RESULT, payload)) == (None, None)


def test_a_request_that_is_heard_again_is_refused_and_one_without_an_id_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_ids, "MOST_IDS", 2)
    border = Border(Namespace("lab"))
    topic = Namespace("lab").topic(topics.COMMAND, node="planner", verb="place")

    def asked(**payload: Any) -> Message:
        return Message(topic, to_bytes(payload), False, Channel.CONTROL, None, None, lambda: None)

    here = {"reply_to": "trisect/v1/lab/reply/me"}
    assert not border.is_repeated(asked(**here, request_id="1"))
    assert border.is_repeated(asked(**here, request_id="1", stream="other"))
    assert border.total == 1
    assert not any(border.is_repeated(asked(**here)) for _ in range(2))
    assert not border.is_repeated(asked(**here, request_id="2"))
    assert not border.is_repeated(asked(**here, request_id="3"))
    assert not border.is_repeated(asked(**here, request_id="1")), "the oldest is forgotten: memory is bounded"
