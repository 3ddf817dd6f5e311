"""Seconds per block from TensorFlow's own profiler: all operations of a few runs, in situ, at once.

Knows the profiler's file and the name scope that each block's operations carry; nothing of models.
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.backend import quiet_stderr, tf

SCOPE = "B{:04d}"
"""Name scope of a block. Operations that the optimiser makes keep it somewhere in their name."""

_IN_SCOPE = re.compile(r"(?:^|[/_])B(\d{4,})[/_]")
_PS_PER_S = 1e12


def trace(run: Callable[[], Any], repeats: int, blocks: int) -> npt.NDArray[np.float64]:
    """Run `repeats` times under the profiler: seconds, shape (repeats, blocks).

    An operation that occurs once per run counts for that run; one that occurs more often (in a loop) or not in all runs
    is spread evenly over them. Operations outside any block's scope are the executor's and are left out.
    """
    with tempfile.TemporaryDirectory(prefix="trisect-profile-") as directory:
        options = tf.profiler.experimental.ProfilerOptions(
            host_tracer_level=2, python_tracer_level=0, device_tracer_level=0
        )
        with quiet_stderr():
            tf.profiler.experimental.start(directory, options)
            try:
                for _ in range(repeats):
                    run()
            finally:
                tf.profiler.experimental.stop()
        events = list(_events(Path(directory)))
    return _by_run(events, repeats, blocks)


def _events(directory: Path) -> Iterator[tuple[str, int, int]]:
    """Name, start and duration of each operation, in picoseconds."""
    for path in directory.rglob("*.xplane.pb"):
        for plane in _space_class().FromString(path.read_bytes()).planes:
            names = {key: metadata.name for key, metadata in plane.event_metadata.items()}
            for line in plane.lines:
                start_ps = line.timestamp_ns * 1000
                for event in line.events:
                    yield names[event.metadata_id], start_ps + event.offset_ps, event.duration_ps


def _space_class() -> Any:
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    return xplane_pb2.XSpace


def _by_run(events: list[tuple[str, int, int]], repeats: int, blocks: int) -> npt.NDArray[np.float64]:
    occurrences: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for name, start_ps, duration_ps in events:
        occurrences[name].append((start_ps, duration_ps))
    seconds = np.zeros((repeats, blocks))
    for name, found in occurrences.items():
        scope = _IN_SCOPE.search(name)
        if scope is None or int(scope[1]) >= blocks:
            continue
        durations = np.array([duration for _, duration in sorted(found)]) / _PS_PER_S
        seconds[:, int(scope[1])] += durations if len(durations) == repeats else durations.sum() / repeats
    return seconds
