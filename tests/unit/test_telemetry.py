"""Telemetry stays flat, and tells of each segment what the planner can use."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.machine.actions import NoteTile
from nodes.machine.corrections import LEAST_FRAMES
from nodes.messages import MessageError, SegmentSeconds, TileSeconds, to_bytes
from nodes.telemetry import Meter, read_segments, read_tiles
from pipeline.plan import NodeId, StreamId
from pipeline.wire import FrameKey
from tests.unit.test_graph import values

CAM, PORCH = StreamId("cam"), StreamId("front-porch")


def test_a_segments_frames_and_median_come_back_from_the_report() -> None:
    meter = Meter()
    for number in range(LEAST_FRAMES):
        meter.segment(CAM, 3, 0.01 * (number + 1))
        meter.segment(PORCH, 12, 0.5)
    report = meter.report()
    assert all(isinstance(value, int | float) for value in report.values())
    assert read_segments(to_bytes(report)) == (
        SegmentSeconds(CAM, 3, LEAST_FRAMES, 0.03),
        SegmentSeconds(PORCH, 12, LEAST_FRAMES, 0.5),
    )
    assert read_segments(to_bytes(meter.report())) == ()


def test_a_slow_streams_segment_is_reported_every_so_many_frames() -> None:
    meter, frames = Meter(), []
    for _ in range(3 * LEAST_FRAMES):
        meter.segment(CAM, 1, 0.01)
        frames += [segment.frames for segment in read_segments(to_bytes(meter.report()))]
    assert frames == [LEAST_FRAMES] * 3


def test_an_epoch_that_was_let_go_is_not_reported() -> None:
    meter = Meter()
    for _ in range(LEAST_FRAMES):
        meter.segment(CAM, 1, 0.01)
    meter.forget_segment(CAM, 1)
    assert read_segments(to_bytes(meter.report())) == ()


def test_a_tiles_transfer_queue_and_compute_seconds_come_back_from_the_report() -> None:
    meter = Meter()
    for number in range(3):
        note = NoteTile(FrameKey(CAM, 3, number, 1, 0, 2), NodeId("worker-1"), 0.01 * (number + 1), 0.0, 0.5)
        meter.tile(note)
    report = meter.report()
    assert all(isinstance(value, int | float) for value in report.values())
    assert read_tiles(to_bytes(report)) == (TileSeconds(CAM, 3, 2, NodeId("worker-1"), 3, 0.02, 0.0, 0.5),)
    assert read_tiles(to_bytes(meter.report())) == ()
    meter.tile(note)
    meter.forget_segment(CAM, 3)
    assert read_tiles(to_bytes(meter.report())) == ()


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan"), 10**400, "1", None, [1]])
def test_a_tiles_seconds_that_are_no_duration_are_left_out(seconds: Any) -> None:
    key = "tile.cam.1.4.worker-1."
    said = {f"{key}{name}_seconds_p50": 0.1 for name in ("transfer", "queue", "compute")} | {f"{key}frames": 9}
    assert len(read_tiles(json.dumps(said).encode())) == 1
    assert read_tiles(json.dumps(said | {f"{key}queue_seconds_p50": seconds}).encode()) == ()


@pytest.mark.parametrize("seconds", [0, -1.0, float("inf"), float("nan"), 10**400, "1", None, True, [1]])
def test_a_median_that_is_no_time_is_left_out(seconds: Any) -> None:
    key = "segment.cam.1."
    said = json.dumps({f"{key}frames": 9, f"{key}compute_seconds_p50": seconds}).encode()
    assert all(segment.compute_seconds > 0 for segment in read_segments(said))
    assert seconds is True or read_segments(said) == ()


@given(st.dictionaries(st.sampled_from(["segment.cam.1.frames", "segment.cam.1.compute_seconds_p50", "x"]), values))
def test_any_report_is_read_or_a_message_error(report: dict[str, object]) -> None:
    try:
        read_segments(json.dumps(report).encode())
    except MessageError:
        pass
