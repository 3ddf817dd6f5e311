"""Seconds per block from TensorFlow's own profiler: all operations of a few runs, in situ, at once.

Knows the profiler's file and the name scope that each block's operations carry; nothing of models.
"""

from __future__ import annotations

import bisect
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.quiet import quiet_stderr
from pipeline.tensorflow_runtime import tf

SCOPE = "B{:04d}"
"""Name scope of a block. Operations that the optimiser makes keep it somewhere in their name."""

_IN_SCOPE = re.compile(r"(?:^|[/_])B(\d{4,})[/_]")
_RUN = "trisect_run"
_PS_PER_S = 1e12


class Event(NamedTuple):
    """An event of the profiler, in picoseconds."""

    start_ps: int
    duration_ps: int
    name: str


def trace(run: Callable[[], Any], repeats: int, blocks: int) -> npt.NDArray[np.float64]:
    """Run `repeats` times under the profiler: seconds, shape (repeats, blocks); what they add up to is explained there.

    Each instant from a run's first operation to its last belongs to one block: to that whose operation runs, or, in the
    executor's time between two operations, to that whose operation comes next.
    """
    with tempfile.TemporaryDirectory(prefix="trisect-profile-") as directory:
        options = tf.profiler.experimental.ProfilerOptions(
            host_tracer_level=2, python_tracer_level=0, device_tracer_level=0
        )
        with quiet_stderr():
            tf.profiler.experimental.start(directory, options)
            try:
                for _ in range(repeats):
                    with tf.profiler.experimental.Trace(_RUN):
                        run()
            finally:
                tf.profiler.experimental.stop()
        events = sorted(_events(Path(directory)))
    return by_run(events, repeats, blocks)


def _events(directory: Path) -> Iterator[Event]:
    for path in directory.rglob("*.xplane.pb"):
        for plane in _space_class().FromString(path.read_bytes()).planes:
            names = {key: metadata.name for key, metadata in plane.event_metadata.items()}
            wanted = {key for key, name in names.items() if name == _RUN or _IN_SCOPE.search(name)}
            for line in plane.lines:
                start_ps = line.timestamp_ns * 1000
                for event in line.events:
                    if event.metadata_id in wanted:
                        yield Event(start_ps + event.offset_ps, event.duration_ps, names[event.metadata_id])


def _space_class() -> Any:
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    return xplane_pb2.XSpace


def by_run(events: Sequence[Event], repeats: int, blocks: int) -> npt.NDArray[np.float64]:
    """Charge each instant of each run to one block: seconds, shape (repeats, blocks). `events` are in order of time."""
    runs = [event for event in events if event.name == _RUN][:repeats]
    starts = [run.start_ps for run in runs]
    seconds = np.zeros((repeats, blocks))
    charged_until = [0] * repeats
    for event in events:
        scope = _IN_SCOPE.search(event.name)
        which = bisect.bisect_right(starts, event.start_ps) - 1
        if scope is None or int(scope[1]) >= blocks or which < 0:
            continue
        end = event.start_ps + event.duration_ps
        begin = charged_until[which] or event.start_ps
        if end > begin:
            seconds[which, int(scope[1])] += (end - begin) / _PS_PER_S
            charged_until[which] = end
    return seconds
