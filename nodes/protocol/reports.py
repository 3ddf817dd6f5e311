"""The names in a node's telemetry, and what the planner takes from one: everything else there is for people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import Field, StringConstraints

from nodes.protocol.messages import LinkMeasured, MessageError, Report, parse_json
from pipeline import ranges
from pipeline.plan import NodeId, StreamId
from pipeline.ranges import Number

FRAMES, SECONDS = "frames", "compute_seconds_p50"
PROBE = "processor.probe_seconds"
INTAKE = "intake_seconds"
TILE_SECONDS = ("transfer_seconds_p50", "queue_seconds_p50", "compute_seconds_p50")
ALONE_SECONDS = "alone_transfer_seconds_p50"
_TILE_PARTS = ("transfer_seconds", "queue_seconds", "compute_seconds")
MOST_NUMBERS = 10_000
_Key: TypeAlias = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9_.-]{1,512}$")]
WAYS = ("device_edge", "device_cloud", "edge_cloud", "return")
LEAST_FRAMES, LEAST_COMPUTED_S = 3, 0.2
"""A median counts of so many frames or, since long ones vary less, after so long: others wait for further frames."""
FAST_BYTES_PER_S = 5e7
"""Between rates above it processors make the difference: to handle a message takes as long as its bytes do."""
_SEGMENT_KEY = re.compile(r"segment\.([a-z0-9-]{1,128})\.([0-9]{1,12})\.frames")
_INTAKE_KEY = re.compile(rf"stream\.([a-z0-9-]{{1,128}})\.{INTAKE}_p50")
_WAY_KEY = re.compile(r"way\.([a-z0-9-]{1,128})\.([0-9]{1,12})\.frames")
_TILE_KEY = re.compile(r"tile\.([a-z0-9-]{1,128})\.([0-9]{1,12})\.([0-9]{1,9})\.([a-z0-9-]{1,128})\.frames")


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


@dataclass(frozen=True, slots=True)
class _Numbers:
    """All that a report holds, whoever reads it."""

    numbers: Annotated[Mapping[_Key, Number | None], Field(max_length=MOST_NUMBERS)]


def read_report(payload: bytes) -> Report:
    """What a node's report says of segments, tiles, ways, intakes, its link and processor.

    One part without the other, such as frames without their seconds, is left out; a number that none of them can be
    is refused with the whole report. Raises MessageError.
    """
    report = parse_json(payload)
    ranges.read(_Numbers, {"numbers": report}, error=MessageError, what="a report")
    segments, tiles, ways, intakes = [], [], [], {}
    for key, value in report.items():
        if named := _SEGMENT_KEY.fullmatch(key):
            stream, epoch = StreamId(named[1]), int(named[2])
            segments.append(_segment(report, stream, epoch, value))
        elif named := _INTAKE_KEY.fullmatch(key):
            intakes[StreamId(named[1])] = value
        elif named := _WAY_KEY.fullmatch(key):
            stream, epoch = StreamId(named[1]), int(named[2])
            found = {way: report.get(of_way(stream, epoch, seconds_of(way))) for way in WAYS}
            took = {way: seconds for way, seconds in found.items() if seconds is not None}
            ways.append({"stream": stream, "epoch": epoch, "frames": value, "seconds": took})
        elif named := _TILE_KEY.fullmatch(key):
            stream, epoch, tile, worker = StreamId(named[1]), int(named[2]), int(named[3]), NodeId(named[4])
            tiles.append(_tile(report, stream, epoch, tile, worker, value))
    parts = {
        "segments": [segment for segment in segments if segment["compute_seconds"] is not None],
        "tiles": [tile for tile in tiles if None not in (tile[part] for part in _TILE_PARTS)],
        "ways": ways,
        "intakes": intakes,
        "link": {name: report.get(f"link.{name}") for name in LinkMeasured.__slots__},
        "probe_seconds": report.get(PROBE),
    }
    return ranges.read(Report, parts, error=MessageError, what="a report")


def _segment(report: Mapping[str, Any], stream: StreamId, epoch: int, frames: Any) -> dict[str, Any]:
    seconds = report.get(of_segment(stream, epoch, SECONDS))
    return {"stream": stream, "epoch": epoch, "frames": frames, "compute_seconds": seconds}


def _tile(
    report: Mapping[str, Any], stream: StreamId, epoch: int, tile: int, worker: NodeId, frames: Any
) -> dict[str, Any]:
    took = {
        part: report.get(of_tile(stream, epoch, tile, worker, name))
        for part, name in zip(_TILE_PARTS, TILE_SECONDS, strict=True)
    }
    alone = report.get(of_tile(stream, epoch, tile, worker, ALONE_SECONDS))
    return (
        {"stream": stream, "epoch": epoch, "tile": tile, "worker": worker, "frames": frames}
        | took
        | {"alone_seconds": alone}
    )
