"""All streams of a pipeline in one line."""

from __future__ import annotations

from broker import topics
from nodes.watch.overview.totals import totals
from pipeline.plan import StreamId
from tests.unit.nodes.watch.feed import DEVICE, MODEL, Feed, result_of


def test_totals_are_sums_over_streams(running: Feed) -> None:
    running.info(DEVICE, streams={StreamId("camera"): MODEL, StreamId("door"): MODEL})
    door = {"stream.door.frames_in_total": 7, "stream.door.results_total": 5, "stream.door.error_results_total": 1}
    running.telemetry(DEVICE, **door, **{"stream.door.in_flight": 1, "stream.door.backlog": 2})
    running.send(topics.RESULT, {**result_of(1, 3), "stream": "door"}, stream="door")
    found = running.snapshot()["totals"]
    assert (found["streams"], found["running"]) == (2, 1)
    assert (found["frames_in_total"], found["results_total"], found["error_results_total"]) == (117, 105, 3)
    assert (found["in_flight"], found["backlog"], found["lost"]) == (9, 2, 0)
    text = running.flat()
    assert "2 streams, 1 running:" in text
    assert "in 117 results 105 errors 3 lost 0 in flight 9 waiting 2" in text


def test_one_stream_needs_no_totals(running: Feed) -> None:
    assert running.snapshot()["totals"]["streams"] == 1
    assert "1 streams" not in running.flat()


def test_nothing_is_known_before_a_device_has_reported(feed: Feed) -> None:
    found = feed.snapshot()["totals"]
    assert found["results_total"] is None
    assert found["running"] == 0
    assert totals({})["frames_per_second"] is None
