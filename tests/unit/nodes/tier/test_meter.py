"""Telemetry stays flat, and tells of each segment what the planner can use."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.protocol.messages import LegSeconds, LinkMeasured, MessageError, SegmentSeconds, TileSeconds, to_bytes
from nodes.protocol.reports import FRAME_OVERHEAD, LEAST_COMPUTED_S, LEAST_FRAMES, read_report
from nodes.tier.machine.actions import NoteTile
from nodes.tier.meter import NORMAL_MAD, Meter
from nodes.tier.telemetry import ReportSchedule
from pipeline.plan import NodeId, StreamId
from pipeline.wire import FrameKey
from tests.unit.pipeline.test_graph import values

CAM, PORCH = StreamId("cam"), StreamId("front-porch")


def test_a_segments_frames_and_median_come_back_from_the_report() -> None:
    meter = Meter()
    for number in range(LEAST_FRAMES):
        meter.segment(CAM, 3, 0.01 * (number + 1))
        meter.segment(PORCH, 12, 0.5)
    report = meter.report()
    assert all(isinstance(value, int | float) for value in report.values())
    assert read_report(to_bytes(report)).segments == (
        SegmentSeconds(CAM, 3, LEAST_FRAMES, 0.02, deviation=round(NORMAL_MAD * 0.01, 6)),
        SegmentSeconds(PORCH, 12, LEAST_FRAMES, 0.5),
    )
    assert read_report(to_bytes(meter.report())).segments == ()
    for _ in range(LEAST_FRAMES):
        meter.segment(CAM, 4, 0.03, 0.01)
    assert read_report(to_bytes(meter.report())).segments == (
        SegmentSeconds(CAM, 4, LEAST_FRAMES, 0.03, input_seconds=0.01),
    )


def test_a_slow_streams_segment_is_reported_every_so_many_frames() -> None:
    meter, frames = Meter(), []
    for _ in range(3 * LEAST_FRAMES):
        meter.segment(CAM, 1, 0.01)
        frames += [segment.frames for segment in read_report(to_bytes(meter.report())).segments]
    assert frames == [LEAST_FRAMES] * 3


def test_probes_of_an_idle_processor_are_reported_as_far_as_others_confirm_them_until_frames_tell() -> None:
    meter, reported = Meter(), []
    for seconds in (0.01, 0.05, 0.02, 0.025, None):
        if seconds is not None:
            meter.processor(seconds)
        report = read_report(to_bytes(meter.report()))
        reported.append((report.probe_seconds, report.probe_agrees))
    assert reported == [(None, False), (None, False), (0.02, False), (0.025, True), (None, False)]
    meter.segment(CAM, 1, 0.01)
    meter.processor(0.01)
    assert read_report(to_bytes(meter.report())).probe_seconds is None


def test_what_is_far_from_the_last_reports_is_news_until_two_have_said_it() -> None:
    meter, news = Meter(), []
    for seconds in (0.3, 0.3, 0.9, 0.9, 0.9, 0.3):
        meter.segment(CAM, 1, seconds)
        news.append(meter.has_news)
        meter.report()
        assert not meter.has_news
    assert news == [False, False, True, True, False, True]


def test_a_probe_is_news_once_another_one_confirms_it() -> None:
    meter, news = Meter(), []
    for seconds in (0.02, 0.02, 0.02, 0.08, 0.02, 0.02, 0.08, 0.08):
        meter.processor(seconds)
        news.append((meter.is_probe_in_doubt, meter.has_news))
        meter.report()
    calm, doubt = (False, False), (True, False)
    assert news == [calm, calm, calm, doubt, doubt, calm, doubt, (False, True)]


def test_news_is_reported_ahead_of_time_and_a_steady_flow_of_it_twice_as_often() -> None:
    schedule, sent = ReportSchedule(1.0), []
    for turn in range(200):
        now = 0.05 * turn
        if schedule.is_due(now, has_news=now > 5.2):
            sent.append(round(now, 2))
    assert sent[:7] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.25]
    assert 2 * 5 <= sum(at > 5.0 for at in sent) <= 2 * 5 + 1
    assert {float(second) for second in range(10)} <= set(sent)


def test_long_computations_tell_sooner() -> None:
    meter, frames = Meter(), []
    for _ in range(2):
        meter.segment(CAM, 1, LEAST_COMPUTED_S)
        frames += [segment.frames for segment in read_report(to_bytes(meter.report())).segments]
    assert frames == [1, 1]


def test_a_slow_streams_tiles_are_reported_every_so_many_frames_and_a_workers_together() -> None:
    meter, reported = Meter(), []
    for sequence in range(1, 2 * LEAST_FRAMES + 1):
        for tile in (1, 2) if sequence > 1 else (1,):
            key = FrameKey(CAM, 1, sequence, 1, sequence, tile)
            meter.tile(NoteTile(key, NodeId("worker-1"), 0.01, 0.0, 0.001))
        tiles = read_report(to_bytes(meter.report())).tiles
        reported += [[(tile.tile, tile.frames) for tile in tiles]] if tiles else []
    assert reported == [[(1, LEAST_FRAMES), (2, LEAST_FRAMES - 1)], [(1, LEAST_FRAMES), (2, LEAST_FRAMES)]]


def test_a_streams_counts_and_epoch_stand_beside_the_nodes() -> None:
    meter = Meter()
    meter.count_of(CAM, "results_total", 2)
    meter.segment(PORCH, 12, 0.5)
    report = meter.report()
    assert (report["stream.cam.results_total"], report["stream.front-porch.epoch"]) == (2, 12)


@pytest.mark.parametrize("number", [0, -1.0, float("inf"), float("nan"), 10**400, "1", None, [1]])
def test_a_link_that_cannot_be_is_left_out(number: Any) -> None:
    names = ("up_bytes_per_s", "down_bytes_per_s", "round_trip_s")
    assert read_report(json.dumps({f"link.{name}": number for name in names}).encode()).link == LinkMeasured()
    assert read_report(b'{"link.up_bytes_per_s": 5.0}').link == LinkMeasured(up_bytes_per_s=5.0)


def test_the_processor_share_counts_cores_over_short_intervals_too() -> None:
    meter = Meter()
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    busy = meter.report()["processor_share"]
    time.sleep(0.05)  # the idle time is what is tested
    assert 0 <= meter.report()["processor_share"] < busy


def test_an_epoch_that_was_let_go_is_not_reported() -> None:
    meter = Meter()
    for _ in range(LEAST_FRAMES):
        meter.segment(CAM, 1, 0.01)
    meter.forget_segment(CAM, 1)
    assert read_report(to_bytes(meter.report())).segments == ()


def test_a_gather_comes_back_from_the_report_and_none_of_an_epoch_that_was_let_go() -> None:
    meter = Meter()
    for seconds in (0.02, 0.03, 0.025):
        meter.gather(CAM, 3, seconds)
    (found,) = read_report(to_bytes(meter.report())).gathers
    assert (found.stream, found.epoch, found.frames, found.seconds) == (CAM, 3, 3, 0.025)
    assert 0 < found.deviation < 0.01
    meter.forget_segment(CAM, 3)
    meter.gather(CAM, 3, 1.0)
    assert read_report(to_bytes(meter.report())).gathers == ()


def test_a_tiles_transfer_queue_and_compute_seconds_come_back_from_the_report() -> None:
    meter = Meter()
    for number in range(3):
        note = NoteTile(FrameKey(CAM, 3, number, 1, 0, 2), NodeId("worker-1"), 0.01 * (number + 1), 0.0, 0.5)
        meter.tile(note)
    report = meter.report()
    assert all(isinstance(value, int | float) for value in report.values())
    assert read_report(to_bytes(report)).tiles == (TileSeconds(CAM, 3, 2, NodeId("worker-1"), 3, 0.02, 0.0, 0.5),)
    assert read_report(to_bytes(meter.report())).tiles == ()
    for seconds in (0.05, 0.06):
        meter.tile(replace(note, transfer_seconds=seconds, was_alone=True))
    meter.tile(note)
    assert [tile.alone_seconds for tile in read_report(to_bytes(meter.report())).tiles] == [0.055]
    meter.tile(note)
    meter.forget_segment(CAM, 3)
    assert read_report(to_bytes(meter.report())).tiles == ()


def test_what_frames_took_between_nodes_comes_back_from_the_report_once_there_are_enough() -> None:
    meter = Meter()
    reported: list[LegSeconds] = []
    for number in range(2 * LEAST_FRAMES):
        meter.leg(CAM, 3, {"device_edge": 0.01 * (number % LEAST_FRAMES), "return": -0.001})
        meter.leg(CAM, 4, {})  # everything was done on the device
        reported += read_report(to_bytes(meter.report())).legs
    deviations = {"device_edge": round(NORMAL_MAD * 0.01, 6), "return": 0.0}
    assert reported == 2 * [LegSeconds(CAM, 3, LEAST_FRAMES, {"device_edge": 0.01, "return": -0.001}, deviations)]
    for _ in range(LEAST_FRAMES):
        meter.leg(CAM, 3, {"device_edge": 0.01, "return": 0.01})
    meter.forget_segment(CAM, 3)
    assert read_report(to_bytes(meter.report())).legs == ()


def test_a_streams_frame_overhead_comes_back_from_the_report() -> None:
    meter = Meter()
    for seconds in (0.01, 0.02, 0.03):
        meter.sample(FRAME_OVERHEAD, seconds, CAM)
    assert read_report(to_bytes(meter.report())).frame_overheads == {CAM: 0.02}
    assert read_report(b'{"stream.cam.frame_overhead_seconds_p50": -1.0}').frame_overheads == {}


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 10**400, "1", None, [1]])
def test_a_ways_seconds_that_are_no_number_are_left_out(seconds: Any) -> None:
    said = {"leg.cam.1.frames": 3, "leg.cam.1.return_seconds_p50": 0.1, "leg.cam.1.edge_cloud_seconds_p50": seconds}
    assert read_report(json.dumps(said).encode()).legs == (LegSeconds(CAM, 1, 3, {"return": 0.1}),)


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan"), 10**400, "1", None, [1]])
def test_a_tiles_seconds_that_are_no_duration_are_left_out(seconds: Any) -> None:
    key = "tile.cam.1.4.worker-1."
    said = {f"{key}{name}_seconds_p50": 0.1 for name in ("transfer", "queue", "compute")} | {f"{key}frames": 9}
    assert len(read_report(json.dumps(said).encode()).tiles) == 1
    assert read_report(json.dumps(said | {f"{key}queue_seconds_p50": seconds}).encode()).tiles == ()


@pytest.mark.parametrize("seconds", [0, -1.0, float("inf"), float("nan"), 10**400, "1", None, True, [1]])
def test_a_median_that_is_no_time_is_left_out(seconds: Any) -> None:
    key = "segment.cam.1."
    said = json.dumps({f"{key}frames": 9, f"{key}compute_seconds_p50": seconds}).encode()
    assert all(segment.compute_seconds > 0 for segment in read_report(said).segments)
    assert seconds is True or read_report(said).segments == ()


@given(st.dictionaries(st.sampled_from(["segment.cam.1.frames", "segment.cam.1.compute_seconds_p50", "x"]), values))
def test_any_report_is_read_or_a_message_error(report: dict[str, object]) -> None:
    try:
        read_report(json.dumps(report).encode())
    except MessageError:
        pass


def test_a_report_is_flat_and_durations_start_anew_with_each() -> None:
    meter = Meter()
    meter.count("frames_total", 3)
    for seconds in (0.1, 0.2, 0.3):
        meter.sample("compute_seconds", seconds, StreamId("cam"))
    report = meter.report()
    assert report["frames_total"] == 3
    assert report["compute_seconds_p50"] == pytest.approx(0.2)
    assert report["stream.cam.compute_seconds_p95"] == report["compute_seconds_p95"]
    assert all(isinstance(value, int | float) for value in report.values())
    assert "compute_seconds_p50" not in meter.report()
    assert meter.report()["frames_total"] == 3


def test_frames_of_an_epoch_that_was_let_go_leave_nothing_behind() -> None:
    meter = Meter()
    meter.segment(CAM, 3, 0.01)
    meter.forget_segment(CAM, 3)
    for _ in range(9):
        meter.segment(CAM, 3, 0.01)
        meter.leg(CAM, 3, {"return": 0.1})
    assert not meter._segments
    assert not meter._legs
    meter.expect_segment(CAM, 3)
    for _ in range(9):
        meter.segment(CAM, 3, 0.01)
    assert read_report(to_bytes(meter.report())).segments[0].frames == 9
