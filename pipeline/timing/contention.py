"""Seconds that this process's threads were ready to run while others had the cores.

A node measures itself while its neighbours start on the same machine: the seconds they take are not the model's. Those
that a CPU quota takes are, since the model will run under the same quota.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.timing.cpu_quota import throttled_seconds

_NS_PER_S = 1e9
_THROTTLED = 0.05
"""The share of runs that a quota may take before it counts."""

Waits = dict[str, tuple[int, int]]
Seconds = npt.NDArray[np.float64]


def uncontended_seconds(run: Callable[[], object]) -> float:
    """Wall-clock seconds of `run`, less those that its busiest thread waited for a core, but for a quota's.

    Source of the waits: Linux's per-thread `schedstat` (nanoseconds on a core, nanoseconds in the run queue). Where
    there is none, the wall-clock seconds alone.
    """
    before, throttled = _waits(), throttled_seconds()
    began = time.perf_counter()
    run()
    elapsed = time.perf_counter() - began
    waited = max(0.0, _waited_seconds(before, _waits()) - (throttled_seconds() - throttled))
    return max(elapsed - waited, elapsed / 10)


def typical_of(measure: Callable[[], Seconds]) -> tuple[Seconds, Seconds]:
    """Call `measure` for seconds, float64 `[run, block]`; returns `typical_seconds` of each block, and the runs."""
    throttled_s = throttled_seconds()
    runs = measure()
    return typical_seconds(runs, throttled_seconds() - throttled_s), runs


def typical_seconds(runs: Seconds, throttled_s: float) -> Seconds:
    """Seconds of each block from `runs`, float64 `[run, block]`: the median, which outliers do not move.

    The mean, if a CPU quota stopped the runs for `throttled_s` in all: it stops the process every few milliseconds,
    long blocks in each run and short ones in hardly any, so that medians make these look free. In the mean the stops
    are spread over all blocks by their length.
    """
    is_throttled = throttled_s > _THROTTLED * float(runs.sum())
    return runs.mean(axis=0) if is_throttled else np.median(runs, axis=0)


def _waited_seconds(before: Waits, after: Waits) -> float:
    spent = [
        (on_core - before.get(thread, (0, 0))[0], queued - before.get(thread, (0, 0))[1])
        for thread, (on_core, queued) in after.items()
    ]
    return max(spent, default=(0, 0))[1] / _NS_PER_S


def _waits() -> Waits:
    found = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        try:
            on_core, queued, _ = path.read_text().split()
        except (OSError, ValueError):  # the thread ended meanwhile
            continue
        found[path.parent.name] = (int(on_core), int(queued))
    return found
