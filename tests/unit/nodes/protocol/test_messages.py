"""Messages survive JSON; any other bytes are a MessageError that says what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.protocol.messages import (
    Applied,
    LifeState,
    LinkReport,
    MessageError,
    NodeInfo,
    NodeState,
    StreamApplied,
    from_bytes,
    parse_json,
    to_bytes,
)
from pipeline.errors import TrisectError
from pipeline.plan import NodeId, StreamId
from pipeline.protocol_version import PROTOCOL_VERSION
from tests.unit.pipeline.test_graph import values

KINDS: list[type[Any]] = [NodeState, NodeInfo, LinkReport, Applied]

text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
ids = st.from_regex(r"[a-z0-9-]{1,8}", fullmatch=True)
names = st.from_regex(r"[a-z0-9_.-]{1,8}", fullmatch=True)
nodes = ids.map(NodeId)
streams = ids.map(StreamId)
seconds = st.floats(0, 1e6)
rates = st.floats(1e-3, 1e15)
epochs = st.integers(1, 10**12)
counts = st.integers(0, 2**53)
stream_applied = st.builds(
    StreamApplied,
    seen=epochs,
    ready=st.lists(epochs, max_size=3).map(tuple),
    refused=st.dictionaries(epochs, text, max_size=3),
    active=st.none() | epochs,
    holds=st.lists(epochs, max_size=3).map(tuple),
)
messages: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        NodeState,
        node=nodes,
        tier=names,
        state=st.sampled_from(LifeState),
        session=text,
        births=counts,
        host=text,
        pid=counts,
        ts=seconds,
        message=text,
    ),
    st.builds(
        NodeInfo,
        node=nodes,
        tier=names,
        session=text,
        version=text,
        engine=text,
        engine_version=text,
        threads=counts,
        hardware=text,
        models=st.dictionaries(names, names, max_size=3),
        streams=st.dictionaries(streams, names, max_size=3),
        speed=st.none() | st.dictionaries(text, seconds, max_size=3),
    ),
    st.builds(
        LinkReport,
        node=nodes,
        session=text,
        up_bytes_per_s=rates,
        down_bytes_per_s=rates,
        round_trip_s=seconds,
        ts=seconds,
    ),
    st.builds(Applied, node=nodes, session=text, streams=st.dictionaries(streams, stream_applied, max_size=3)),
)


@given(messages)
def test_a_message_comes_back_from_its_bytes(message: Any) -> None:
    assert from_bytes(type(message), to_bytes(message)) == message


def reads_or_refuses(kind: type[Any], payload: bytes) -> None:
    try:
        assert isinstance(from_bytes(kind, payload), kind)
    except MessageError:
        pass


@given(st.sampled_from(KINDS), st.binary(max_size=40))
def test_any_bytes_are_a_message_or_a_message_error(kind: type[Any], payload: bytes) -> None:
    reads_or_refuses(kind, payload)


@given(st.sampled_from(KINDS), values)
def test_any_json_is_a_message_or_a_message_error(kind: type[Any], value: object) -> None:
    reads_or_refuses(kind, json.dumps(value).encode())


@given(messages, st.data())
def test_a_mutated_message_is_a_message_or_a_message_error(message: Any, data: st.DataObject) -> None:
    mutated = json.loads(to_bytes(message))
    mutated[data.draw(st.sampled_from(sorted(mutated)))] = data.draw(values)
    reads_or_refuses(type(message), json.dumps(mutated).encode())


@given(st.binary(max_size=40) | values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_json_object_or_a_message_error(payload: bytes) -> None:
    try:
        assert isinstance(parse_json(payload), dict)
    except MessageError:
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_brackets_without_end_are_a_message_error(kind: type[Any]) -> None:
    for payload in (b"[" * 100_000, b'{"a":' * 100_000, b'{"streams":' + b"[" * 100_000):
        with pytest.raises(MessageError):
            from_bytes(kind, payload)
        with pytest.raises(MessageError):
            parse_json(payload)


def test_a_message_error_names_the_field_and_is_a_trisect_error() -> None:
    with pytest.raises(MessageError, match=r"not a NodeState: state: .*'init'") as caught:
        from_bytes(
            NodeState, b'{"protocol":%d,"node":"a","tier":"edge","state":"asleep","session":"s"}' % PROTOCOL_VERSION
        )
    assert isinstance(caught.value, TrisectError)
    with pytest.raises(MessageError, match=r"not a Applied: streams\.cam\.seen: "):
        from_bytes(
            Applied, b'{"protocol":%d,"node":"a","session":"s","streams":{"cam":{"seen":"many"}}}' % PROTOCOL_VERSION
        )


def test_a_newer_nodes_message_is_read_without_what_is_unknown_here() -> None:
    newer = json.loads(to_bytes(NodeState(NodeId("a"), "edge", LifeState.READY, "s"))) | {"mood": "good"}
    state = from_bytes(NodeState, json.dumps(newer).encode())
    assert (state.node, state.state, state.births) == ("a", LifeState.READY, 0)


def test_a_node_that_does_not_know_its_speed_yet_says_none() -> None:
    info: dict[str, Any] = {
        "node": "a",
        "tier": "edge",
        "session": "s",
        "version": "1",
        "engine": "e",
        "engine_version": "1",
    }
    info |= {"protocol": PROTOCOL_VERSION, "threads": 1, "hardware": "h", "models": {}}
    assert from_bytes(NodeInfo, json.dumps(info).encode()).speed is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("theirs", "named"),
    [
        ({}, "2 or earlier"),
        ({"protocol": PROTOCOL_VERSION + 1}, str(PROTOCOL_VERSION + 1)),
        ({"protocol": "3"}, "'3'"),
        ({"protocol": [9] * 99}, r"\[9, 9"),
    ],
)
def test_a_message_of_another_protocol_version_is_refused_with_both(
    kind: type[Any], theirs: dict[str, Any], named: str
) -> None:
    here = f"this trisect speaks {PROTOCOL_VERSION}; run one version everywhere"
    said = rf"^a {kind.__name__} of protocol version {named}.*, {here}$"
    with pytest.raises(MessageError, match=said) as caught:
        from_bytes(kind, json.dumps(theirs | {"node": "a", "session": "s"}).encode())
    assert len(str(caught.value)) < 150


def test_a_will_reads_as_the_words_on_the_topic() -> None:
    state = NodeState(NodeId("edge-1"), "edge", LifeState.LOST, "ab12")
    assert json.loads(to_bytes(state))["state"] == "lost"


def test_text_that_is_no_unicode_does_not_keep_a_message_from_going_out() -> None:
    state = NodeState(NodeId("edge-1"), "edge", LifeState.STOPPED, "s", message="no file \udcff")
    assert from_bytes(NodeState, to_bytes(state)).message == "no file ?"


def test_a_link_is_described_for_people() -> None:
    report = LinkReport(NodeId("edge-1"), "s", 12.4e6, 93e6, 0.0123)
    assert report.describe() == "12 MB/s to the broker, 93 MB/s from it, 12.30 ms there and back"
