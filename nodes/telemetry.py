"""A node's counters and timings, and the flat JSON object that it reports every second."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, deque
from typing import Any, TypeGuard

import numpy as np
import psutil

from nodes.machine.corrections import LEAST_FRAMES
from nodes.messages import SegmentSeconds, parse_json
from pipeline.plan import StreamId

SAMPLES = 4096
MAX_SECONDS = 1e6
_SEGMENT = "segment.{}.{}."
_SEGMENT_KEY = re.compile(r"segment\.([a-z0-9-]{1,256})\.([0-9]{1,18})\.frames")
_SECONDS = "compute_seconds_p50"


class Meter:
    """Counts events and keeps the newest samples of each duration; any thread may write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._samples: dict[str, deque[float]] = {}
        self._segments: dict[tuple[StreamId, int], deque[float]] = {}
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

    def forget_segment(self, stream: StreamId, epoch: int) -> None:
        """The epoch was let go."""
        with self._lock:
            self._segments.pop((stream, epoch), None)

    def value(self, name: str) -> int:
        """A counter's present value."""
        return self._counts[name]

    def report(self) -> dict[str, float]:
        """Counters, the p50 and p95 of each duration since the last report, and what the process takes.

        Of each segment that has computed enough frames for it, `segment.<stream>.<epoch>.frames` and their
        `segment.<stream>.<epoch>.compute_seconds_p50`.
        """
        with self._lock:
            counts, samples = dict(self._counts), self._samples
            segments = {key: values for key, values in self._segments.items() if len(values) >= LEAST_FRAMES}
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


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and 0 < value < MAX_SECONDS
