"""Streams in the overview: plans, predicted and measured seconds, frames accounted for, tiles."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker import topics
from nodes.protocol.messages import LifeState, NodeState, StreamApplied
from nodes.protocol.reports import ratio_metric
from nodes.watch.overview.stream import RESULTS_KEPT
from pipeline.plan import StreamId
from pipeline.tiles.tiling import Tiling
from tests.properties.symbolic import symbolic
from tests.unit.nodes.watch.feed import (
    CAMERA,
    CLOUD,
    DEVICE,
    EDGE,
    GRAPH,
    MODEL,
    PLANNER,
    WORKER,
    C,
    D,
    Feed,
    coded_plan,
    plan_of,
    result_of,
)


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


def test_outputs_are_shown_with_what_codecs_save_on_their_way_back(running: Feed) -> None:
    (as_it_is,) = running.stream()["active"]["results"]
    assert (as_it_is["codec"], as_it_is["from"], as_it_is["to"]) == ("none", "cloud", ["device"])
    assert "4.0 kB in the links above" in running.flat()
    running.plan(coded_plan(4))
    running.applied(DEVICE, StreamApplied(4, (4,), active=4))
    metrics = {"frames": 10, "ratio": 2.2, "ratio_deviation": 0.1}
    running.telemetry(CLOUD, **{ratio_metric(CAMERA, 3, "bitmap", name): value for name, value in metrics.items()})
    plan = running.stream()["active"]
    (coded,) = plan["results"]
    assert coded == {**as_it_is, "codec": "bitmap", "ratio": 2.2, "ratio_deviation": 0.1}
    assert [(link["result_nbytes"], link["result_ratio"]) for link in plan["links"]] == [(2_000, 2.0), (2_000, 2.0)]
    assert "2.0 kB (2x fewer, bitmap) in the links above" in running.flat()


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
