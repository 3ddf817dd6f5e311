"""A node's counters and timings, and the flat JSON object that it reports every second."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque

import numpy as np
import psutil

from nodes.machine.corrections import LEAST_FRAMES
from nodes.reports import FRAMES, SECONDS, of_segment, of_stream
from pipeline.plan import StreamId

SAMPLES = 4096


class Meter:
    """Counts events and keeps the newest samples of each duration; any thread may write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._samples: dict[str, deque[float]] = {}
        self._segments: dict[tuple[StreamId, int], deque[float]] = {}
        self._epochs: dict[StreamId, int] = {}
        self._process = psutil.Process()
        self._process.cpu_percent()

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter; names end in `_total`."""
        with self._lock:
            self._counts[name] += amount

    def count_of(self, stream: StreamId, name: str, amount: int = 1) -> None:
        """Add to a counter of one stream: `stream.<stream>.<name>`."""
        self.count(of_stream(stream, name), amount)

    def sample(self, name: str, seconds: float, stream: StreamId) -> None:
        """Keep one duration, for the node and for the stream; names end in `_seconds`."""
        with self._lock:
            for known in (name, of_stream(stream, name)):
                self._samples.setdefault(known, deque(maxlen=SAMPLES)).append(seconds)

    def segment(self, stream: StreamId, epoch: int, seconds: float) -> None:
        """Keep what one frame took to compute in a plan's segment."""
        with self._lock:
            self._segments.setdefault((stream, epoch), deque(maxlen=SAMPLES)).append(seconds)
            self._epochs[stream] = epoch

    def forget_segment(self, stream: StreamId, epoch: int) -> None:
        """The epoch was let go."""
        with self._lock:
            self._segments.pop((stream, epoch), None)

    def value(self, name: str) -> int:
        """A counter's present value."""
        return self._counts[name]

    def report(self) -> dict[str, float]:
        """Counters, the p50 and p95 of each duration since the last report, and what the process takes.

        Counters and durations stand for the node and once more for each stream, beside the `epoch` that it computed
        last: `stream.<stream>.…`. Of each segment that has computed enough frames for it,
        `segment.<stream>.<epoch>.frames` and their `segment.<stream>.<epoch>.compute_seconds_p50`.
        """
        with self._lock:
            counts, samples = dict(self._counts), self._samples
            epochs = {of_stream(stream, "epoch"): epoch for stream, epoch in self._epochs.items()}
            segments = {key: values for key, values in self._segments.items() if len(values) >= LEAST_FRAMES}
            self._samples = {}
            self._segments = {key: values for key, values in self._segments.items() if key not in segments}
        report: dict[str, float] = {"ts": time.time(), **dict(sorted(counts.items())), **epochs}
        for name, values in sorted(samples.items()):
            median, high = np.percentile(np.array(values), [50, 95])
            report[f"{name}_p50"], report[f"{name}_p95"] = round(float(median), 6), round(float(high), 6)
        for (stream, epoch), values in sorted(segments.items()):
            report[of_segment(stream, epoch, FRAMES)] = len(values)
            report[of_segment(stream, epoch, SECONDS)] = round(float(np.median(np.array(values))), 6)
        report["resident_bytes"] = self._process.memory_info().rss
        report["processor_share"] = round(self._process.cpu_percent() / 100, 3)
        report["threads"] = self._process.num_threads()
        return report
