"""A node's counters and timings, and the flat JSON object that it reports every second."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, deque
from typing import Any, TypeGuard

import numpy as np
import psutil

from nodes.machine.actions import NoteTile
from nodes.machine.corrections import LEAST_FRAMES
from nodes.messages import SegmentSeconds, TileSeconds, parse_json
from pipeline.plan import NodeId, StreamId

SAMPLES = 4096
MAX_SECONDS = 1e6
_SEGMENT = "segment.{}.{}."
_SEGMENT_KEY = re.compile(r"segment\.([a-z0-9-]{1,256})\.([0-9]{1,18})\.frames")
_SECONDS = "compute_seconds_p50"
_TILE = "tile.{}.{}.{}.{}."
_TILE_KEY = re.compile(r"tile\.([a-z0-9-]{1,256})\.([0-9]{1,18})\.([0-9]{1,9})\.([a-z0-9-]{1,256})\.frames")
_TILE_SECONDS = ("transfer_seconds_p50", "queue_seconds_p50", "compute_seconds_p50")
_TileKey = tuple[StreamId, int, int, NodeId]


class Meter:
    """Counts events and keeps the newest samples of each duration; any thread may write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._samples: dict[str, deque[float]] = {}
        self._segments: dict[tuple[StreamId, int], deque[float]] = {}
        self._tiles: dict[_TileKey, deque[tuple[float, float, float]]] = {}
        self._process = psutil.Process()
        self._process.cpu_percent()

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter; names end in `_total`."""
        with self._lock:
            self._counts[name] += amount

    def sample(self, name: str, seconds: float) -> None:
        """Keep one duration; names end in `_seconds`."""
        with self._lock:
            self._samples.setdefault(name, deque(maxlen=SAMPLES)).append(seconds)

    def segment(self, stream: StreamId, epoch: int, seconds: float) -> None:
        """Keep what one frame took to compute in a plan's segment."""
        with self._lock:
            self._segments.setdefault((stream, epoch), deque(maxlen=SAMPLES)).append(seconds)

    def tile(self, note: NoteTile) -> None:
        """Keep what a tile took on its way there and back, waiting there, and computing."""
        key = StreamId(note.key.stream), note.key.epoch, note.key.tile, note.worker
        seconds = note.transfer_seconds, note.queue_seconds, note.compute_seconds
        with self._lock:
            self._tiles.setdefault(key, deque(maxlen=SAMPLES)).append(seconds)

    def forget_segment(self, stream: StreamId, epoch: int) -> None:
        """The epoch was let go."""
        with self._lock:
            self._segments.pop((stream, epoch), None)
            self._tiles = {key: values for key, values in self._tiles.items() if key[:2] != (stream, epoch)}

    def value(self, name: str) -> int:
        """A counter's present value."""
        return self._counts[name]

    def report(self) -> dict[str, float]:
        """Counters, the p50 and p95 of each duration since the last report, and what the process takes.

        Of each segment that has computed enough frames for it, `segment.<stream>.<epoch>.frames` and their
        `segment.<stream>.<epoch>.compute_seconds_p50`; of each tile that came back
        `tile.<stream>.<epoch>.<tile>.<worker>.frames` and the p50 of its `transfer_seconds`, `queue_seconds` and
        `compute_seconds`.
        """
        with self._lock:
            counts, samples = dict(self._counts), self._samples
            segments = {key: values for key, values in self._segments.items() if len(values) >= LEAST_FRAMES}
            tiles, self._tiles = self._tiles, {}
            self._samples = {}
            self._segments = {key: values for key, values in self._segments.items() if key not in segments}
        report: dict[str, float] = {"ts": time.time(), **dict(sorted(counts.items()))}
        for name, values in sorted(samples.items()):
            median, high = np.percentile(np.array(values), [50, 95])
            report[f"{name}_p50"], report[f"{name}_p95"] = round(float(median), 6), round(float(high), 6)
        for (stream, epoch), values in sorted(segments.items()):
            name = _SEGMENT.format(stream, epoch)
            report[f"{name}frames"] = len(values)
            report[f"{name}{_SECONDS}"] = round(float(np.median(np.array(values))), 6)
        for tile_key, parts in sorted(tiles.items()):
            name = _TILE.format(*tile_key)
            report[f"{name}frames"] = len(parts)
            for part, median in zip(_TILE_SECONDS, np.median(np.array(parts), axis=0), strict=True):
                report[f"{name}{part}"] = round(float(median), 6)
        report["resident_bytes"] = self._process.memory_info().rss
        report["processor_share"] = round(self._process.cpu_percent() / 100, 3)
        report["threads"] = self._process.num_threads()
        return report


def read_segments(payload: bytes) -> tuple[SegmentSeconds, ...]:
    """What a node's report says of its segments; what is no such number is left out. Raises MessageError."""
    report = parse_json(payload)
    found = []
    for key, frames in report.items():
        named = _SEGMENT_KEY.fullmatch(key)
        seconds = report.get(key.removesuffix("frames") + _SECONDS) if named else None
        if named and isinstance(frames, int) and _is_time(seconds):
            found.append(SegmentSeconds(StreamId(named[1]), int(named[2]), frames, seconds))
    return tuple(found)


def read_tiles(payload: bytes) -> tuple[TileSeconds, ...]:
    """What a head's report says of its tiles; what is no such number is left out. Raises MessageError."""
    report = parse_json(payload)
    found = []
    for key, frames in report.items():
        named = _TILE_KEY.fullmatch(key)
        if named is None or not isinstance(frames, int):
            continue
        seconds = [report.get(key.removesuffix("frames") + part) for part in _TILE_SECONDS]
        transfer, queue, compute = seconds
        if _is_duration(transfer) and _is_duration(queue) and _is_duration(compute):
            tile = StreamId(named[1]), int(named[2]), int(named[3]), NodeId(named[4])
            found.append(TileSeconds(*tile, frames, transfer, queue, compute))
    return tuple(found)


def _is_time(value: Any) -> TypeGuard[float]:
    return _is_duration(value) and value > 0


def _is_duration(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and 0 <= value < MAX_SECONDS
