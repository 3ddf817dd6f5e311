"""The names in a node's telemetry, and what the planner takes from one: everything else there is for people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from nodes.protocol.messages import LinkMeasured, Report, SegmentSeconds, TileSeconds, WaySeconds, parse_json
from pipeline.plan import NodeId, StreamId

FRAMES, SECONDS = "frames", "compute_seconds_p50"
PROBE = "processor.probe_seconds"
INTAKE = "intake_seconds"
TILE_SECONDS = ("transfer_seconds_p50", "queue_seconds_p50", "compute_seconds_p50")
ALONE_SECONDS = "alone_transfer_seconds_p50"
MAX_SECONDS = 1e6
MAX_RATE = 1e15
WAYS = ("device_edge", "device_cloud", "edge_cloud", "return")
LEAST_FRAMES, LEAST_COMPUTED_S = 3, 0.2
"""A median counts of so many frames or, since long ones vary less, after so long: others wait for further frames."""
FAST_BYTES_PER_S = 5e7
"""Between rates above it processors make the difference: to handle a message takes as long as its bytes do."""
_SEGMENT_KEY = re.compile(r"segment\.([a-z0-9-]{1,256})\.([0-9]{1,18})\.frames")
_INTAKE_KEY = re.compile(rf"stream\.([a-z0-9-]{{1,256}})\.{INTAKE}_p50")
_WAY_KEY = re.compile(r"way\.([a-z0-9-]{1,256})\.([0-9]{1,18})\.frames")
_TILE_KEY = re.compile(r"tile\.([a-z0-9-]{1,256})\.([0-9]{1,18})\.([0-9]{1,9})\.([a-z0-9-]{1,256})\.frames")


def tells(frames: int, seconds: float) -> bool:
    """Whether so many frames, which took so long in all, are enough to judge a node by."""
    return frames >= LEAST_FRAMES or seconds >= LEAST_COMPUTED_S


def of_stream(stream: StreamId, name: str) -> str:
    """The key of what is reported for one stream."""
    return f"stream.{stream}.{name}"


def of_segment(stream: StreamId, epoch: int, name: str) -> str:
    """The key of what is reported for one plan's segment."""
    return f"segment.{stream}.{epoch}.{name}"


def of_way(stream: StreamId, epoch: int, name: str) -> str:
    """The key of what the device reports of a plan's frames between its nodes: `frames`, or one of `WAYS`' seconds."""
    return f"way.{stream}.{epoch}.{name}"


def seconds_of(way: str) -> str:
    """What a way's median is called."""
    return f"{way}_seconds_p50"


def of_tile(stream: StreamId, epoch: int, tile: int, worker: NodeId, name: str) -> str:
    """The key of what a head reports for one tile of a plan, done by one worker."""
    return f"tile.{stream}.{epoch}.{tile}.{worker}.{name}"


def read_report(payload: bytes) -> Report:
    """What a node's report says of segments, tiles, frames, its link and processor; what is no such number is left out.

    Raises MessageError.
    """
    report = parse_json(payload)
    segments, tiles, ways, intakes = [], [], [], {}
    for key, value in report.items():
        if named := _SEGMENT_KEY.fullmatch(key):
            stream, epoch = StreamId(named[1]), int(named[2])
            seconds = report.get(of_segment(stream, epoch, SECONDS))
            if isinstance(value, int) and _is_within(seconds, MAX_SECONDS):
                segments.append(SegmentSeconds(stream, epoch, value, seconds))
        elif (named := _INTAKE_KEY.fullmatch(key)) and _is_duration(value):
            intakes[StreamId(named[1])] = value
        elif (named := _WAY_KEY.fullmatch(key)) and isinstance(value, int):
            stream, epoch = StreamId(named[1]), int(named[2])
            found = {way: report.get(of_way(stream, epoch, seconds_of(way))) for way in WAYS}
            took = {way: s for way, s in found.items() if isinstance(s, int | float) and abs(s) < MAX_SECONDS}
            ways.append(WaySeconds(stream, epoch, value, took))
        elif (named := _TILE_KEY.fullmatch(key)) and isinstance(value, int):
            stream, epoch, tile, worker = StreamId(named[1]), int(named[2]), int(named[3]), NodeId(named[4])
            transfer, queue, compute = (report.get(of_tile(stream, epoch, tile, worker, name)) for name in TILE_SECONDS)
            if _is_duration(transfer) and _is_duration(queue) and _is_duration(compute):
                alone = report.get(of_tile(stream, epoch, tile, worker, ALONE_SECONDS))
                alone_s = alone if _is_duration(alone) else None
                tiles.append(TileSeconds(stream, epoch, tile, worker, value, transfer, queue, compute, alone_s))
    probe = report.get(PROBE)
    probe_s = probe if _is_within(probe, MAX_SECONDS) else None
    return Report(tuple(segments), tuple(tiles), tuple(ways), intakes, _link(report), probe_s)


def _link(report: Mapping[str, Any]) -> LinkMeasured:
    up, down, echo = (report.get(f"link.{name}") for name in ("up_bytes_per_s", "down_bytes_per_s", "round_trip_s"))
    return LinkMeasured(
        up if _is_within(up, MAX_RATE) else None,
        down if _is_within(down, MAX_RATE) else None,
        echo if _is_within(echo, MAX_SECONDS) else None,
    )


def _is_duration(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and 0 <= value < MAX_SECONDS


def _is_within(value: Any, most: float) -> TypeGuard[float]:
    return isinstance(value, int | float) and 0 < value < most
