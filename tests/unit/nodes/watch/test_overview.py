"""What `trisect watch` knows and shows, from the very messages that nodes publish; no broker."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from broker import topics
from broker.topics import Topic
from nodes.config.sections import Config
from nodes.protocol.messages import Applied, LifeState, LinkReport, NodeInfo, NodeState, StreamApplied, to_bytes
from nodes.watch.overview import Overview, to_json
from nodes.watch.overview.stream import RESULTS_KEPT
from nodes.watch.overview.view import render
from pipeline.cost import Costs, Link, predict
from pipeline.graph import ModelGraph
from pipeline.placement import Placement, Tier
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.tiles.tiling import Tiling
from tests.graphs import chain
from tests.properties.symbolic import symbolic
from tests.unit.pipeline.test_graph import values

D, E, C = Tier
CAMERA = StreamId("camera")
DEVICE, EDGE, CLOUD, PLANNER = map(NodeId, ("device-1", "edge-1", "cloud-1", "planner"))
WORKER = NodeId("worker-1")
TIERS = {DEVICE: "device", EDGE: "edge", CLOUD: "cloud", PLANNER: "planner"}
MODEL = "tiny"
GRAPH = replace(chain(150_528, 802_816, 200_704, 4_000), name=MODEL)
LINK = Link(1e8, 1e-3)
COSTS = Costs({D: [0.0, 0.02, 0.03, 0.04], E: [0.0, 0.01, 0.01, 0.01], C: [0.0, 1e-3, 2e-3, 3e-3]}, LINK, LINK)
SPLIT = (D, D, E, C)
CONFIG = Config.model_validate(
    {
        "pipeline": "demo",
        "models": {MODEL: {"source": "mobilenet_v2", "weights": "seed:0"}},
        "streams": {"camera": {"device": "device-1", "model": MODEL}},
        "nodes": {str(node): {"tier": tier} for node, tier in TIERS.items() if node != PLANNER},
    }
)
TELEMETRY = {
    "ts": 1e9,
    "stream.camera.frames_in_total": 110,
    "stream.camera.results_total": 100,
    "stream.camera.error_results_total": 2,
    "stream.camera.in_flight": 8,
    "stream.camera.resubmitted_total": 3,
    "stream.camera.duplicates_ignored_total": 1,
    "stream.camera.dropped_at_source_total": 5,
    "compute_seconds_p50": 0.0213,
    "resident_bytes": 812_000_000,
    "processor_share": 0.98,
}


def plan_of(epoch: int, placement: Placement = SPLIT, reason: str = "first plan", graph: ModelGraph = GRAPH) -> Plan:
    return Plan(
        stream=CAMERA,
        epoch=epoch,
        model=graph.name,
        digest=graph.digest,
        nodes={tier: (DEVICE, EDGE, CLOUD)[tier] for tier in sorted({D, *placement})},
        placement=placement,
        predicted=predict(graph, placement, COSTS),
        planner="exact",
        reason=reason,
        created_ts=1e9,
    )


def result_of(sequence: int, epoch: int, seconds: float = 0.06, error: str = "") -> dict[str, Any]:
    """As `nodes.tier.result_json.result_json` has it, with what a view does not read left out."""
    if error:
        return {"stream": CAMERA, "sequence": sequence, "ok": False, "epoch": epoch, "seconds": seconds, "error": error}
    return {
        "stream": CAMERA,
        "sequence": sequence,
        "ok": True,
        "source": "mqtt",
        "model": MODEL,
        "epoch": epoch,
        "attempt": 1,
        "seconds": seconds,
        "top": [{"index": 1, "label": "cat", "score": 0.9}],
        "tiers": ["device", "edge", "cloud"],
        "path": [
            {"node": node, "tier": tier, "decode_seconds": 0.001, "queue_seconds": 0.002, "compute_seconds": compute}
            for node, tier, compute in ((DEVICE, "device", 0.021), (EDGE, "edge", 0.011), (CLOUD, "cloud", 0.004))
        ],
        "links": {"device_edge": 0.008, "edge_cloud": 0.003, "return": 0.001},
        "ts": 1e9,
    }


class Feed:
    """An overview, and the ways in which nodes feed it; `now` is set by hand."""

    def __init__(self) -> None:
        self.overview = Overview(CONFIG)
        self.now = 100.0
        self.overview.connection(self.now, up=True)

    def send(self, kind: Topic, message: Any, **fields: str) -> None:
        payload = message if isinstance(message, bytes) else to_bytes(message)
        self.overview.learn(kind, fields, payload, self.now)

    def state(self, node: NodeId, state: LifeState = LifeState.READY, session: str = "s1") -> None:
        self.send(topics.STATE, NodeState(node, TIERS[node], state, session, 1, "pi", 42, 1e9), node=node)

    def info(self, node: NodeId, digest: str = GRAPH.digest, streams: Mapping[StreamId, str] | None = None) -> None:
        streams = streams if streams is not None else {CAMERA: MODEL} if node == DEVICE else {}
        info = NodeInfo(node, TIERS[node], "s1", "0.1.0", "tensorflow", "2.18", 1, "x86", {MODEL: digest}, streams)
        self.send(topics.INFO, info, node=node)

    def applied(self, node: NodeId, held: StreamApplied, session: str = "s1") -> None:
        self.send(topics.APPLIED, Applied(node, session, {CAMERA: held}), node=node)

    def plan(self, plan: Plan) -> None:
        self.send(topics.PLAN, plan.to_json(GRAPH), stream=CAMERA)

    def results(self, count: int, epoch: int, seconds: float = 0.06) -> None:
        for sequence in range(count):
            self.send(topics.RESULT, result_of(sequence, epoch, seconds), stream=CAMERA)

    def telemetry(self, node: NodeId, **numbers: Any) -> None:
        self.send(topics.TELEMETRY, {**TELEMETRY, **numbers}, node=node)

    def snapshot(self) -> dict[str, Any]:
        snapshot = self.overview.snapshot(self.now)
        assert json.loads(to_json(snapshot)) == snapshot
        return snapshot

    def stream(self) -> dict[str, Any]:
        found: dict[str, Any] = self.snapshot()["streams"]["camera"]
        return found

    def text(self, width: int = 100) -> str:
        console = Console(file=io.StringIO(), width=width, height=200)
        console.print(render(self.snapshot()))
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    def flat(self, width: int = 100) -> str:
        """The text without frames, and without regard to where lines break."""
        return " ".join(self.text(width).replace("│", " ").split())


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
def running() -> Feed:
    """Three nodes and a planner; epoch 3 runs."""
    feed = Feed()
    feed.send(topics.MODEL, GRAPH.to_json(), digest=GRAPH.digest)
    for node in (DEVICE, EDGE, CLOUD):
        feed.state(node)
        feed.info(node)
        feed.send(topics.LINK, LinkReport(node, "s1", 12.5e6, 45e6, 1.2e-3), node=node)
        feed.applied(node, StreamApplied(3, (3,), active=3 if node == DEVICE else None))
        feed.telemetry(node)
    feed.state(PLANNER)
    feed.plan(plan_of(3))
    return feed


def test_nodes_are_shown_with_what_they_say_of_themselves(running: Feed) -> None:
    nodes = running.snapshot()["nodes"]
    assert list(nodes) == [DEVICE, EDGE, CLOUD, PLANNER]
    edge = nodes[EDGE]
    assert (edge["state"], edge["tier"], edge["session"], edge["host"]) == ("ready", "edge", "s1", "pi")
    assert (edge["engine"], edge["threads"], edge["models"]) == ("tensorflow", 1, {MODEL: GRAPH.digest})
    assert edge["link"] == {"up_bytes_per_s": 12.5e6, "down_bytes_per_s": 45e6, "round_trip_s": 1.2e-3}
    assert edge["telemetry"]["resident_bytes"] == 812_000_000


def test_a_running_nodes_link_is_shown_as_its_telemetry_sees_it(running: Feed) -> None:
    running.telemetry(EDGE, **{"link.up_bytes_per_s": 2e6, "link.round_trip_s": 0.03})
    seen = running.snapshot()["nodes"][EDGE]["link"]
    assert seen == {"up_bytes_per_s": 2e6, "down_bytes_per_s": 45e6, "round_trip_s": 0.03}
    assert "2/45 MB/s" in running.text()


def test_a_configured_node_that_never_came_is_absent(feed: Feed) -> None:
    assert {node: said["state"] for node, said in feed.snapshot()["nodes"].items()} == dict.fromkeys(TIERS, "absent")
    assert feed.stream()["state"] == "no_plan"
    assert "no plan yet" in feed.text()


def test_telemetry_grows_stale(running: Feed) -> None:
    running.now += 1.5
    assert not running.snapshot()["nodes"][EDGE]["telemetry_stale"]
    running.now += 10.5
    edge = running.snapshot()["nodes"][EDGE]
    assert edge["telemetry_stale"]
    assert edge["telemetry_age_seconds"] == 12.0
    assert "stale, 12 s ago" in running.text(80)


def test_a_lost_node_interrupts_the_streams_that_need_it(running: Feed) -> None:
    running.state(CLOUD, LifeState.LOST)
    assert running.snapshot()["nodes"][CLOUD]["state"] == "lost"
    assert running.stream()["state"] == "interrupted"
    assert "cloud-1 is lost" in running.text(80)


def test_a_stream_stops_with_its_device(running: Feed) -> None:
    running.state(DEVICE, LifeState.STOPPED)
    assert running.stream()["state"] == "stopped"


def test_the_will_of_an_old_session_says_nothing(running: Feed) -> None:
    running.state(CLOUD, LifeState.READY, session="s2")
    running.state(CLOUD, LifeState.LOST, session="s1")
    assert running.snapshot()["nodes"][CLOUD]["state"] == "ready"


def test_a_new_process_does_not_inherit_telemetry(running: Feed) -> None:
    running.state(DEVICE, LifeState.INIT, session="s2")
    assert running.snapshot()["nodes"][DEVICE]["telemetry"] is None
    assert running.stream()["counts"]["lost"] is None
    assert running.stream()["active_epoch"] is None


def test_the_plan_tells_which_blocks_are_where_and_what_crosses(running: Feed) -> None:
    stream = running.stream()
    plan = stream["active"]
    assert (stream["state"], stream["active_epoch"], stream["newest_epoch"], stream["coming"]) == (
        "running",
        3,
        3,
        None,
    )
    assert (plan["epoch"], plan["planner"], plan["reason"]) == (3, "exact", "first plan")
    parts = [(s["tier"], s["node"], s["blocks"], s["first"], s["last"]) for s in plan["stages"]]
    assert parts == [
        ("device", DEVICE, 2, "b0", "b1"),
        ("edge", EDGE, 1, "b2", "b2"),
        ("cloud", CLOUD, 1, "b3", "b3"),
    ]
    as_it_is = {"codec": "none", "ratio": None, "ratio_deviation": None}
    assert plan["tensors"] == [
        {"tensor": 1, "name": "t1", "from": "device", "to": ["edge"], "nbytes": 802_816, **as_it_is},
        {"tensor": 2, "name": "t2", "from": "edge", "to": ["cloud"], "nbytes": 200_704, **as_it_is},
    ]
    assert [(link["from"], link["to"], link["tensors"], link["nbytes"]) for link in plan["links"]] == [
        ("device", "edge", ["t1"], 802_816),
        ("edge", "cloud", ["t2"], 200_704),
    ]


def test_what_is_predicted_stands_beside_what_is_measured(running: Feed) -> None:
    running.results(5, epoch=2, seconds=9.0)
    running.results(RESULTS_KEPT + 6, epoch=3)
    stream = running.stream()
    plan, predicted = stream["active"], plan_of(3).predicted
    stages = {s["tier"]: (s["predicted_seconds"], s["measured_seconds_p50"]) for s in plan["stages"]}
    assert stages == {"device": (0.02, 0.021), "edge": (0.01, 0.011), "cloud": (0.003, 0.004)}
    assert plan["stages"][0]["waited_seconds_p50"] == 0.002
    links = {link["to"]: (link["predicted_seconds"], link["measured_seconds_p50"]) for link in plan["links"]}
    assert links == {
        "edge": (predicted.links["device_edge"].seconds, 0.008),
        "cloud": (predicted.links["edge_cloud"].seconds, 0.003),
    }
    assert plan["return_measured_seconds_p50"] == 0.001
    assert plan["links_measured_seconds_p50"] == 0.012
    # 60 ms less 36 of computing, what waited, and the links
    waited = sum(stage["waited_seconds_p50"] for stage in plan["stages"])
    assert plan["frame_overhead_measured_seconds_p50"] == pytest.approx(0.06 - 0.036 - waited - 0.012)
    assert plan["frame_overhead_predicted_seconds"] == 0.0
    assert (plan["predicted_seconds"], plan["measured_seconds_p50"]) == (predicted.seconds, 0.06)
    assert (stream["measured_results"], stream["seconds_p50"], stream["seconds_p95"]) == (RESULTS_KEPT, 0.06, 0.06)


def test_a_tier_that_is_left_out_is_passed_through(running: Feed) -> None:
    running.plan(plan_of(4, (D, D, C, C)))
    running.applied(DEVICE, StreamApplied(4, (4,), active=4))
    running.send(topics.RESULT, {**result_of(1, 4), "links": {"device_cloud": 0.02, "return": 0.01}}, stream=CAMERA)
    (link,) = running.stream()["active"]["links"]
    both = plan_of(4, (D, D, C, C)).predicted.links
    assert (link["from"], link["to"], link["measured_seconds_p50"]) == ("device", "cloud", 0.02)
    assert link["predicted_seconds"] == both["device_edge"].seconds + both["edge_cloud"].seconds


def test_a_plan_that_is_not_active_yet_is_preparing(running: Feed) -> None:
    running.plan(plan_of(4, (D, D, D, C), "20% less"))
    running.applied(CLOUD, StreamApplied(4, (3, 4)))
    stream = running.stream()
    assert (stream["state"], stream["active_epoch"], stream["newest_epoch"]) == ("running", 3, 4)
    assert (stream["active"]["epoch"], stream["coming"]["epoch"]) == (3, 4)
    assert stream["coming"]["state"] == "preparing"
    assert stream["coming"]["nodes"] == {DEVICE: "preparing", CLOUD: "ready"}
    assert "epoch 4 (exact) preparing: 20% less" in running.text()


def test_a_refused_plan_is_shown_with_the_reason(running: Feed) -> None:
    running.plan(plan_of(4, (D, D, D, C)))
    running.applied(CLOUD, StreamApplied(4, (3,), refused={4: "out of memory"}))
    assert running.stream()["coming"]["state"] == "refused"
    assert "cloud-1 refuses: out of memory" in running.text(80)


def test_the_first_plan_is_shown_while_it_prepares(feed: Feed) -> None:
    feed.state(DEVICE)
    feed.plan(plan_of(1))
    assert feed.stream()["state"] == "preparing"
    assert feed.stream()["active"] is None
    assert feed.stream()["coming"]["nodes"] == {DEVICE: "preparing", EDGE: "absent", CLOUD: "absent"}
    assert "manifest is not on the broker" in feed.text()


def test_a_plan_that_was_replaced_before_we_looked_is_said(running: Feed) -> None:
    running.applied(DEVICE, StreamApplied(3, (2, 3), active=2))
    assert (running.stream()["active"], running.stream()["coming"]["epoch"]) == (None, 3)
    assert "epoch 2 runs; its plan is no longer on the broker" in running.text(80)


def test_every_frame_is_accounted_for(running: Feed) -> None:
    counts = running.stream()["counts"]
    assert counts["lost"] == 0
    assert (counts["resubmitted_total"], counts["duplicates_ignored_total"], counts["dropped_at_source_total"]) == (
        3,
        1,
        5,
    )
    running.telemetry(DEVICE, **{"stream.camera.frames_in_total": 112})
    assert running.stream()["counts"]["lost"] == 2
    assert "lost 2" in running.text(80)


def test_frames_of_the_journal_are_accounted_for_as_well(running: Feed) -> None:
    running.telemetry(DEVICE, **{"stream.camera.frames_in_total": 104, "stream.camera.replayed_total": 6})
    assert running.stream()["counts"]["lost"] == 0


def test_each_stream_of_a_device_has_its_own_counts(running: Feed) -> None:
    door = StreamId("door")
    running.info(DEVICE, streams={CAMERA: MODEL, door: MODEL})
    running.send(topics.PLAN, replace(plan_of(3), stream=door).to_json(GRAPH), stream=door)
    running.telemetry(DEVICE, **{"frames_in_total": 117, "stream.door.frames_in_total": 7, "stream.door.in_flight": 7})
    counts = {name: stream["counts"] for name, stream in running.snapshot()["streams"].items()}
    assert [(c["frames_in_total"], c["in_flight"], c["lost"]) for c in counts.values()] == [(110, 8, 0), (7, 7, 0)]


def test_all_is_well_when_every_node_and_stream_of_the_configuration_is_there(running: Feed) -> None:
    assert running.snapshot()["problems"] == []
    running.state(EDGE, LifeState.DRAINING)
    assert running.snapshot()["problems"] == []


def test_what_is_not_well_is_said_with_the_reason(running: Feed) -> None:
    stopped = NodeState(EDGE, "edge", LifeState.STOPPED, "s1", 1, "pi", 42, 1e9, "SIGTERM came")
    running.send(topics.STATE, stopped, node=EDGE)
    running.state(PLANNER, LifeState.LOST)
    assert running.snapshot()["problems"] == [
        "edge-1 is stopped: SIGTERM came",
        "planner is lost",
        "stream camera: interrupted",
    ]
    assert "edge-1 is stopped: SIGTERM came" in running.flat(80)


def test_a_stream_without_a_plan_and_a_broker_that_is_gone_are_problems(feed: Feed) -> None:
    assert "stream camera: no plan" in feed.snapshot()["problems"]
    assert "device-1 is absent" in feed.snapshot()["problems"]
    feed.overview.connection(feed.now, up=False, why="refused")
    assert feed.snapshot()["problems"] == ["the broker is not there: refused"]


def test_a_node_that_has_gone_is_not_said_to_have_never_reported(feed: Feed) -> None:
    feed.state(DEVICE)
    assert "none yet" in feed.text()
    feed.state(DEVICE, LifeState.STOPPED)
    assert "none yet" not in feed.text()
    assert "never" not in feed.text()


def test_frames_per_second_are_of_the_last_five_seconds(running: Feed) -> None:
    assert running.stream()["frames_per_second"] is None
    for second in range(20):
        running.now = 101.0 + second
        running.results(12, epoch=3)
    assert running.stream()["frames_per_second"] == 12.0
    running.now += 2.5
    assert running.stream()["frames_per_second"] == 7.2
    running.now += 60
    assert running.stream()["frames_per_second"] == 0.0


def test_an_error_result_is_shown_and_measures_nothing(running: Feed) -> None:
    running.send(topics.RESULT, result_of(7, 3, error="not an image"), stream=CAMERA)
    stream = running.stream()
    assert (stream["error_results_watched_total"], stream["measured_results"]) == (1, 0)
    assert stream["last_error"] == {"sequence": 7, "error": "not an image", "age_seconds": 0.0}
    assert "frame 7: not an image" in running.text(80)


def test_nodes_with_another_network_are_flagged_with_both_digests(running: Feed) -> None:
    running.info(EDGE, digest="beef" * 16)
    stream = running.stream()
    assert stream["differing_digests"] == {DEVICE: GRAPH.digest, EDGE: "beef" * 16, CLOUD: GRAPH.digest}
    text = running.flat(80)
    assert "edge-1 has beefbeefbeef" in text
    assert f"device-1 has {GRAPH.digest}" in text
    running.state(EDGE, LifeState.LOST)
    assert running.stream()["differing_digests"] == {}


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_view_fits_the_terminal_and_holds_what_matters(running: Feed, width: int) -> None:
    running.results(70, epoch=3)
    running.plan(plan_of(4, (D, D, D, C)))
    running.now += 0.5
    text = running.text(width)
    assert max(map(len, text.splitlines())) <= width
    for part in (
        *TIERS,
        "ready",
        "98%",
        "12/45 MB/s 1.2 ms",
        "stream camera running",
        "epoch 3 (exact) active",
        "b0 … b1",
        "802.8 kB: t1",
        "20.0 ms",
        "21.0 ms",
        "60.0 ms",
        "median of 64, p95 60.0 ms",
        "4.0 kB in the links above",
        "in 110  results 100",
        "lost 0",
        "epoch 4 (exact) preparing",
    ):
        assert part in text, part


def test_the_broker_is_named_while_it_is_away(feed: Feed) -> None:
    assert "broker 127.0.0.1:1883 connected" in feed.text(80)
    feed.overview.connection(101.0, up=False, why="no MQTT broker answers at 127.0.0.1:1883")
    assert "broker 127.0.0.1:1883 disconnected" in feed.text(80)
    assert "no MQTT broker answers" in feed.text(80)


def test_messages_that_the_broker_dropped_are_shown(feed: Feed) -> None:
    feed.overview.learn_dropped(b"12")
    feed.overview.learn_dropped(b"\xff")
    assert feed.snapshot()["broker"]["dropped_messages_total"] == 12
    assert "dropped 12 messages" in feed.text(80)


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


# Tiles.


def test_tiles_are_shown_with_their_places_workers_and_seconds(running: Feed) -> None:
    graph = replace(symbolic(GRAPH), name=MODEL)
    running.send(topics.MODEL, graph.to_json(), digest=graph.digest)
    tiles = Tiling(2, 2, (1, 2), (2,), (WORKER, EDGE))
    running.plan(replace(plan_of(3), tiles=tiles))
    seconds = {"transfer_seconds_p50": 0.014, "queue_seconds_p50": 0.001, "compute_seconds_p50": 0.2}
    for tile, worker in ((1, WORKER), (9, WORKER), (2, "nobody")):
        key = f"tile.camera.3.{tile}.{worker}."
        running.telemetry(EDGE, **{f"{key}{name}": value for name, value in seconds.items()}, **{f"{key}frames": 9})
    shown = running.stream()["active"]["tiles"]
    assert (shown["first"], shown["rows"], shown["columns"]) == ("b2", 2, 1)
    assert shown["tiles"] == [
        {
            "tile": 1,
            "worker": WORKER,
            "rows": [0, 1],
            "columns": [0, 2],
            "measured": [{"worker": WORKER, "frames": 9, **seconds}],
        },
        {"tile": 2, "worker": EDGE, "rows": [1, 3], "columns": [0, 2], "measured": []},
    ]
    text = running.flat(120)
    assert "tile 1 worker-1 rows 0-1, columns 0-2; there and back 14.0 ms 200.0 ms 1.0 ms" in text
    assert "worker-1 is absent; others compute its tiles" in text
    assert running.stream()["state"] == "running"
