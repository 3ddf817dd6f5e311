"""Messages that are wrong or foreign: counted and shown, they change nothing and end nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker import topics
from broker.topics import Topic
from nodes.protocol.messages import Applied, LifeState, LinkReport, NodeInfo, NodeState, StreamApplied, to_bytes
from pipeline.cost import Costs, predict
from pipeline.placement import Tier
from tests.graphs import chain
from tests.unit.nodes.watch.feed import (
    CAMERA,
    CLOUD,
    EDGE,
    GRAPH,
    LINK,
    MODEL,
    SPLIT,
    TELEMETRY,
    C,
    Feed,
    plan_of,
    result_of,
)
from tests.unit.pipeline.test_graph import values


def test_a_bad_message_is_counted_shown_and_changes_nothing(running: Feed) -> None:
    before = running.snapshot()
    running.send(topics.PLAN, b"{nonsense", stream=CAMERA)
    running.send(topics.STATE, NodeState(EDGE, "edge", LifeState.LOST, "s1"), node=CLOUD)
    after = running.snapshot()
    assert (after["bad_messages_total"], after["last_bad_message"]["topic"]) == (2, "node/cloud-1/state")
    assert (after["nodes"], after["streams"]) == (before["nodes"], before["streams"])
    assert "2 unreadable" in running.text(80)


def test_text_from_the_network_is_no_markup_and_no_control_sequence(running: Feed) -> None:
    plan = plan_of(3, reason="[red]\x1b[2Jgone[/nothing] 🐈").to_json(GRAPH)
    running.send(topics.PLAN, json.dumps(plan).encode(), stream=CAMERA)
    assert running.stream()["active"]["reason"].startswith("[red]\x1b")
    text = running.text()
    assert "[red]" in text
    assert "\x1b" not in text


def test_a_plan_that_does_not_fit_the_manifest_is_said(running: Feed) -> None:
    longer = replace(chain(1, 1, 1, 1, 1), name=MODEL)
    costs = Costs({tier: [0.0] * len(longer) for tier in Tier}, LINK, LINK)
    plan = replace(plan_of(3), placement=(*SPLIT, C), predicted=predict(longer, (*SPLIT, C), costs))
    running.send(topics.PLAN, plan.to_json(longer), stream=CAMERA)
    assert "placement of 5 blocks for a model of 4" in running.stream()["active"]["problem"]


def test_a_retained_message_that_is_taken_back_is_forgotten(running: Feed) -> None:
    running.send(topics.PLAN, b"", stream=CAMERA)
    running.send(topics.STATE, b"", node=EDGE)
    assert running.stream()["newest_epoch"] is None
    assert running.snapshot()["nodes"][EDGE]["state"] == "absent"


FIELDS = {"node": "edge-1", "stream": "camera", "digest": GRAPH.digest}
GOOD: dict[Topic, Any] = {
    topics.STATE: to_bytes(NodeState(EDGE, "edge", LifeState.READY, "s1")),
    topics.INFO: to_bytes(NodeInfo(EDGE, "edge", "s1", "0", "e", "0", 1, "x86", {MODEL: "a"}, {CAMERA: MODEL})),
    topics.LINK: to_bytes(LinkReport(EDGE, "s1", 1.0, 1.0, 1.0)),
    topics.APPLIED: to_bytes(Applied(EDGE, "s1", {CAMERA: StreamApplied(3, (3,), {2: "no"}, 3, (3,))})),
    topics.TELEMETRY: to_bytes(TELEMETRY),
    topics.PLAN: to_bytes(plan_of(3).to_json(GRAPH)),
    topics.MODEL: to_bytes(GRAPH.to_json()),
    topics.RESULT: to_bytes(result_of(1, 3)),
}
WEIRD = st.one_of(
    values, st.sampled_from([float("nan"), float("inf"), -1, 0, 1e308, 10**30, 10**4000, "", "\ud800", "[/x]", [], {}])
)


@given(kind=st.sampled_from(list(GOOD)), payload=st.binary(max_size=60))
def test_no_bytes_end_the_view(kind: Topic, payload: bytes) -> None:
    feed = Feed()
    feed.send(kind, payload, **FIELDS)
    feed.text(80)


def mutated(value: Any, data: st.DataObject) -> Any:
    """The value with one part of it, at any depth, replaced by something else."""
    if isinstance(value, dict | list) and value and data.draw(st.booleans()):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = data.draw(st.sampled_from(keys))
        copy = value.copy()
        copy[key] = mutated(value[key], data)
        return copy
    return data.draw(WEIRD)


@given(data=st.data())
def test_no_almost_right_message_ends_the_view(data: st.DataObject) -> None:
    feed = Feed()
    for kind, payload in GOOD.items():
        feed.send(kind, payload, **FIELDS)
    for kind in data.draw(st.lists(st.sampled_from(list(GOOD)), min_size=1, max_size=4)):
        payload = json.dumps(mutated(json.loads(GOOD[kind]), data)).encode()
        feed.send(kind, payload, **FIELDS)
    feed.now += 1.0
    feed.text(80)
