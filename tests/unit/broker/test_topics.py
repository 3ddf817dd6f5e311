"""Names of topics: what is built can be taken apart, and what does not fit is refused with a reason."""

from __future__ import annotations

import pytest

from broker.errors import TopicError
from broker.routes import matches
from broker.topics import ALL, FRAME, NODE_RESULT, OUT, PLAN, PREVIEW, STATE, TELEMETRY, Namespace, Topic, valid_id

SAMPLE = {
    "node": "edge-1",
    "client": "cli-7",
    "worker": "edge-2",
    "stream": "door_cam.2",
    "model": "resnet50",
    "digest": "9f3a",
    "verb": "drain",
    "epoch": "12",
    "tensor": "3",
    "index": "0",
}


def sample(kind: Topic) -> dict[str, str | int]:
    return {field: SAMPLE[field] for field in kind.fields}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.template)
def test_a_topic_that_is_built_can_be_parsed(kind: Topic) -> None:
    names = Namespace("demo")
    assert names.parse(names.topic(kind, **sample(kind))) == (kind, sample(kind))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.template)
def test_a_filter_with_fields_left_out_matches_the_topic(kind: Topic) -> None:
    names = Namespace("demo")
    assert matches(names.filter(kind), names.topic(kind, **sample(kind)))
    assert names.filter(kind, **sample(kind)) == names.topic(kind, **sample(kind))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.template)
def test_no_topic_is_taken_for_another_kind(kind: Topic) -> None:
    names = Namespace("demo")
    topic = names.topic(kind, **sample(kind))
    assert [other for other in ALL if matches(names.filter(other), topic)] == [kind]


def test_a_node_writes_below_its_own_name_only() -> None:
    for kind in ALL:
        is_own = bool({"own", "holder"} & {*kind.writers})
        assert is_own == kind.template.startswith("node/{node}/")


def test_only_telemetry_and_previews_may_be_lost() -> None:
    assert [kind for kind in ALL if kind.qos == 0] == [TELEMETRY, PREVIEW]


def test_a_name_is_built_below_the_pipeline() -> None:
    names = Namespace("demo")
    assert names.topic(PLAN, stream="cam") == "trisect/v1/demo/plan/cam"
    assert names.topic(OUT, node="d", stream="cam", epoch=3, tensor=0) == "trisect/v1/demo/node/d/out/cam/3/0"
    assert names.filter(NODE_RESULT, stream="cam") == "trisect/v1/demo/node/+/result/cam"


@pytest.mark.parametrize("node", ["", "Edge", "a/b", "+", "#", "a b", "a.b", "é"])
def test_an_id_that_does_not_fit_is_refused_with_its_name_value_and_what_is_allowed(node: str) -> None:
    with pytest.raises(TopicError, match=r"node .* allowed: 1 to 128 of a-z, 0-9 and -") as caught:
        Namespace("demo").topic(STATE, node=node)
    assert repr(node) in str(caught.value)


@pytest.mark.parametrize("epoch", ["x", "-1", -1, "", True])
def test_an_epoch_is_a_whole_number(epoch: str | int) -> None:
    with pytest.raises(TopicError, match=r"epoch .* whole number"):
        Namespace("demo").topic(OUT, node="d", stream="s", epoch=epoch, tensor=0)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(TopicError, match="needs stream"):
        Namespace("demo").topic(FRAME)


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(TopicError, match="no field nod"):
        Namespace("demo").filter(STATE, nod="a")


def test_a_pipeline_needs_an_id() -> None:
    with pytest.raises(TopicError, match="pipeline 'A B'"):
        Namespace("A B")


@pytest.mark.parametrize(
    "topic",
    ["", "trisect/v1/other/plan/cam", "trisect/v1/demo/plan", "trisect/v1/demo/plan/a/b", "trisect/v1/demo/plan/A"],
)
def test_a_foreign_topic_is_not_parsed(topic: str) -> None:
    assert Namespace("demo").parse(topic) is None


def test_valid_ids() -> None:
    assert valid_id("edge-1")
    assert not any(map(valid_id, ["", "Edge", "a_b", "a/b", "a\n"]))


@pytest.mark.parametrize(
    ("filter_", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("#", "$SYS/x", False),
        ("+/b", "a/b", True),
        ("a/+/c", "a//c", True),
    ],
)
def test_filters_match_as_mqtt_says(filter_: str, topic: str, expected: bool) -> None:
    assert matches(filter_, topic) is expected
