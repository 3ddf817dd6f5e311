"""A node's counters and timings, and the flat JSON object that it reports every second."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque

import numpy as np
import psutil

SAMPLES = 4096


class Meter:
    """Counts events and keeps the newest samples of each duration; any thread may write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._samples: dict[str, deque[float]] = {}
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

    def value(self, name: str) -> int:
        """A counter's present value."""
        return self._counts[name]

    def report(self) -> dict[str, float]:
        """Counters, the p50 and p95 of each duration since the last report, and what the process takes."""
        with self._lock:
            counts, samples = dict(self._counts), self._samples
            self._samples = {}
        report: dict[str, float] = {"ts": time.time(), **dict(sorted(counts.items()))}
        for name, values in sorted(samples.items()):
            median, high = np.percentile(np.array(values), [50, 95])
            report[f"{name}_p50"], report[f"{name}_p95"] = round(float(median), 6), round(float(high), 6)
        report["resident_bytes"] = self._process.memory_info().rss
        report["processor_share"] = round(self._process.cpu_percent() / 100, 3)
        report["threads"] = self._process.num_threads()
        return report
