"""The names in a node's telemetry, and what the planner takes from one: everything else there is for people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from nodes.protocol.messages import (
    GatherSeconds,
    LegSeconds,
    LinkMeasured,
    MessageError,
    Report,
    SegmentSeconds,
    TensorRatio,
    TileSeconds,
    parse_json,
)
from pipeline import ranges
from pipeline.plan import NodeId, StreamId
from pipeline.ranges import Difference, Positive, Seconds, Watts

T = TypeVar("T")

RATIO, RATIO_DEVIATION = "ratio", "ratio_deviation"
FRAME_WORK = "decode"
"""In a codec's place, of a frame's own bytes: how many times less work than the test picture a frame is to decode."""
FRAMES, SECONDS, DEVIATION = "frames", "compute_seconds_p50", "compute_seconds_deviation"
INPUT_SECONDS = "input_seconds_p50"
PROBE, PROBE_AGREES = "processor.probe_seconds", "processor.probe_agrees"
WORK_WATTS = "power.work_watts"
FRAME_OVERHEAD = "frame_overhead_seconds"
GATHER_SECONDS, GATHER_DEVIATION = "seconds_p50", "seconds_deviation"
TILE_SECONDS = ("transfer_seconds_p50", "queue_seconds_p50", "compute_seconds_p50")
ALONE_SECONDS = "alone_transfer_seconds_p50"
_TILE_PARTS = ("transfer_seconds", "queue_seconds", "compute_seconds")
MOST_NUMBERS = 10_000
WHOLE = "frame"
"""As a leg: from a frame's entry to its answer."""
LEGS = ("device_edge", "device_cloud", "edge_cloud", "return", WHOLE)
LEAST_FRAMES, LEAST_COMPUTED_S = 3, 0.2
"""A median counts after LEAST_FRAMES or, since long ones vary less, LEAST_COMPUTED_S: others wait for more frames."""
FAST_BYTES_PER_S = 5e7
"""Above this rate processors make the difference: handling a message takes as long as its bytes do."""
_LINK_KEYS = {name: f"link.{name}" for name in LinkMeasured.__slots__}
_SEGMENT_KEY = re.compile(r"segment\.([a-z0-9-]{1,128})\.([0-9]{1,12})\.frames")
_FRAME_OVERHEAD_KEY = re.compile(rf"stream\.([a-z0-9-]{{1,128}})\.{FRAME_OVERHEAD}_p50")
_GATHER_KEY = re.compile(r"gather\.([a-z0-9-]{1,128})\.([0-9]{1,12})\.frames")
_LEG_KEY = re.compile(r"leg\.([a-z0-9-]{1,128})\.([0-9]{1,12})\.frames")
_RATIO_KEY = re.compile(r"tensor\.([a-z0-9-]{1,128})\.([0-9]{1,9})\.([a-z0-9-]{1,32})\.frames")
_DIRECT_KEY = re.compile(r"direct\.([a-z0-9-]{1,128})\.stands")
_TILE_KEY = re.compile(r"tile\.([a-z0-9-]{1,128})\.([0-9]{1,12})\.([0-9]{1,9})\.([a-z0-9-]{1,128})\.frames")


def ratio_metric(stream: StreamId, tensor: int, codec: str, name: str) -> str:
    """The key of what a codec makes of a stream's tensor: `frames`, `ratio` or `ratio_deviation`."""
    return f"tensor.{stream}.{tensor}.{codec}.{name}"


def tells(frames: int, seconds: float) -> bool:
    """True when this many frames, or their seconds in all, are enough to judge a node by."""
    return frames >= LEAST_FRAMES or seconds >= LEAST_COMPUTED_S


def direct_metric(node: NodeId) -> str:
    """The key of whether a way to the node stands, over which tensors go directly: 1 or 0."""
    return f"direct.{node}.stands"


def stream_metric(stream: StreamId, name: str) -> str:
    """The key of what is reported for one stream."""
    return f"stream.{stream}.{name}"


def segment_metric(stream: StreamId, epoch: int, name: str) -> str:
    """The key of what is reported for one plan's segment."""
    return f"segment.{stream}.{epoch}.{name}"


def gather_metric(stream: StreamId, epoch: int, name: str) -> str:
    """The key of what a coordinator reports of a plan's frames until their tiles are put together."""
    return f"gather.{stream}.{epoch}.{name}"


def leg_metric(stream: StreamId, epoch: int, name: str) -> str:
    """The key of what the device reports of a plan's frames between its nodes: `frames`, or one of `LEGS`' seconds."""
    return f"leg.{stream}.{epoch}.{name}"


def leg_seconds(leg: str) -> str:
    """The name of a leg's median."""
    return f"{leg}_seconds_p50"


def leg_deviation(leg: str) -> str:
    """The name of a leg's standard deviation."""
    return f"{leg}_seconds_deviation"


def tile_metric(stream: StreamId, epoch: int, tile: int, worker: NodeId, name: str) -> str:
    """The key of what a coordinator reports for one tile of a plan, done by one worker."""
    return f"tile.{stream}.{epoch}.{tile}.{worker}.{name}"


@dataclass(frozen=True, slots=True)
class _Duration:
    """A node's seconds per frame."""

    seconds: Seconds


@dataclass(frozen=True, slots=True)
class _Leg:
    """A frame's seconds between two nodes, by two clocks."""

    seconds: Difference


@dataclass(frozen=True, slots=True)
class _Probe:
    """Seconds of a probe of a processor."""

    seconds: Positive


@dataclass(frozen=True, slots=True)
class _Power:
    """Watts that computing adds."""

    watts: Watts


def read_report(payload: bytes) -> Report:
    """Read a node's report: segments, tiles, gathers, legs, frame overheads, its link and processor.

    A number that none of them can be is left out, with all that it belongs to, and named in `wrong`: the rest is as
    good as ever, and that the node reports says that it lives. Raises MessageError for what is no report.
    """
    report = parse_json(payload)
    if len(report) > MOST_NUMBERS:
        raise MessageError(f"a report of {len(report)} numbers, at most {MOST_NUMBERS}")
    reader = _Reader(report)
    for key in report:
        reader.take(key)
    return reader.report()


class _Reader:
    """Reader of the flat numbers of a report; keeps the first that is wrong."""

    def __init__(self, report: Mapping[str, Any]) -> None:
        self._report = report
        self._segments: list[SegmentSeconds] = []
        self._tiles: list[TileSeconds] = []
        self._gathers: list[GatherSeconds] = []
        self._legs: list[LegSeconds] = []
        self._ratios: list[TensorRatio] = []
        self._frame_overheads: dict[StreamId, float] = {}
        self._direct: list[NodeId] = []
        self._wrong = ""

    def take(self, key: str) -> None:
        """Take what begins with this key; most are for people only."""
        match key.partition(".")[0]:  # each pattern is tried on few of the keys
            case "segment" if named := _SEGMENT_KEY.fullmatch(key):
                self._take_segment(key, StreamId(named[1]), int(named[2]))
            case "stream" if named := _FRAME_OVERHEAD_KEY.fullmatch(key):
                if (took := self._read(_Duration, key, seconds=self._report[key])) is not None:
                    self._frame_overheads[StreamId(named[1])] = took.seconds
            case "leg" if named := _LEG_KEY.fullmatch(key):
                self._take_leg(key, StreamId(named[1]), int(named[2]))
            case "gather" if named := _GATHER_KEY.fullmatch(key):
                self._take_gather(key, StreamId(named[1]), int(named[2]))
            case "tensor" if named := _RATIO_KEY.fullmatch(key):
                self._take_ratio(key, StreamId(named[1]), int(named[2]), named[3])
            case "direct" if (named := _DIRECT_KEY.fullmatch(key)) and self._report[key] == 1:
                self._direct.append(NodeId(named[1]))
            case "tile" if named := _TILE_KEY.fullmatch(key):
                self._take_tile(key, StreamId(named[1]), int(named[2]), int(named[3]), NodeId(named[4]))

    def report(self) -> Report:
        """All of it."""
        probe = self._read(_Probe, PROBE, seconds=self._report[PROBE]) if PROBE in self._report else None
        power = self._read(_Power, WORK_WATTS, watts=self._report[WORK_WATTS]) if WORK_WATTS in self._report else None
        return Report(
            tuple(self._segments),
            tuple(self._tiles),
            tuple(self._legs),
            self._frame_overheads,
            self._link(),
            probe.seconds if probe is not None else None,
            self._wrong,
            tuple(self._ratios),
            tuple(self._direct),
            tuple(self._gathers),
            power.watts if power is not None else None,
            self._report.get(PROBE_AGREES) == 1,
        )

    def _link(self) -> LinkMeasured:
        """What is right of the link: all at once, or one number after the other where one is wrong."""
        values = {name: self._report.get(key) for name, key in _LINK_KEYS.items()}
        try:
            return ranges.read(LinkMeasured, values, error=MessageError, what="link")
        except MessageError:
            link = LinkMeasured()
        for name, key in _LINK_KEYS.items():
            read = self._read(LinkMeasured, key, **{name: values[name]})
            if read is not None:
                link = replace(link, **{name: getattr(read, name)})
        return link

    def _take_segment(self, key: str, stream: StreamId, epoch: int) -> None:
        seconds = self._report.get(segment_metric(stream, epoch, SECONDS))
        deviation = self._report.get(segment_metric(stream, epoch, DEVIATION), 0.0)
        values = {"stream": stream, "epoch": epoch, "frames": self._report[key], "compute_seconds": seconds}
        values["deviation"] = deviation
        values["input_seconds"] = self._report.get(segment_metric(stream, epoch, INPUT_SECONDS), 0.0)
        if (segment := self._read(SegmentSeconds, key, **values)) is not None:
            self._segments.append(segment)

    def _take_gather(self, key: str, stream: StreamId, epoch: int) -> None:
        seconds = self._report.get(gather_metric(stream, epoch, GATHER_SECONDS))
        deviation = self._report.get(gather_metric(stream, epoch, GATHER_DEVIATION), 0.0)
        values = {"stream": stream, "epoch": epoch, "frames": self._report[key], "seconds": seconds}
        if (gather := self._read(GatherSeconds, key, **values, deviation=deviation)) is not None:
            self._gathers.append(gather)

    def _take_ratio(self, key: str, stream: StreamId, tensor: int, codec: str) -> None:
        named = {"stream": stream, "tensor": tensor, "codec": codec, "frames": self._report[key]}
        ratio = self._report.get(ratio_metric(stream, tensor, codec, RATIO))
        deviation = self._report.get(ratio_metric(stream, tensor, codec, RATIO_DEVIATION), 0.0)
        if (read := self._read(TensorRatio, key, **named, ratio=ratio, deviation=deviation)) is not None:
            self._ratios.append(read)

    def _take_leg(self, key: str, stream: StreamId, epoch: int) -> None:
        names = {leg: leg_metric(stream, epoch, leg_seconds(leg)) for leg in LEGS}
        given = {leg: name for leg, name in names.items() if name in self._report}
        read = {leg: self._read(_Leg, name, seconds=self._report[name]) for leg, name in given.items()}
        seconds = {leg: took.seconds for leg, took in read.items() if took is not None}
        spread = {leg: leg_metric(stream, epoch, leg_deviation(leg)) for leg in seconds}
        given = {leg: name for leg, name in spread.items() if name in self._report}
        off = {leg: self._read(_Duration, name, seconds=self._report[name]) for leg, name in given.items()}
        values = {"stream": stream, "epoch": epoch, "frames": self._report[key], "seconds": seconds}
        values["deviations"] = {leg: took.seconds for leg, took in off.items() if took is not None}
        if (between := self._read(LegSeconds, key, **values)) is not None:
            self._legs.append(between)

    def _take_tile(self, key: str, stream: StreamId, epoch: int, tile: int, worker: NodeId) -> None:
        named = {"stream": stream, "epoch": epoch, "tile": tile, "worker": worker}
        took = {
            part: self._report.get(tile_metric(stream, epoch, tile, worker, name))
            for part, name in zip(_TILE_PARTS, TILE_SECONDS, strict=True)
        }
        read = self._read(TileSeconds, key, **named, frames=self._report[key], **took)
        if read is None:
            return
        alone_key = tile_metric(stream, epoch, tile, worker, ALONE_SECONDS)
        if alone_key in self._report:
            alone = self._read(_Duration, alone_key, seconds=self._report[alone_key])
            read = replace(read, alone_seconds=alone.seconds if alone is not None else None)
        self._tiles.append(read)

    def _read(self, kind: type[T], key: str, **values: Any) -> T | None:
        try:
            return ranges.read(kind, values, error=MessageError, what=key)
        except MessageError as error:
            self._wrong = self._wrong or str(error)
            return None
