"""A node's counters and timings, and the flat JSON object that it reports every second."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping

import numpy as np
import psutil

from nodes.protocol.reports import (
    ALONE_SECONDS,
    DEVIATION,
    FRAMES,
    LEAST_FRAMES,
    PROBE,
    RATIO,
    RATIO_DEVIATION,
    SECONDS,
    TILE_SECONDS,
    leg_deviation,
    leg_metric,
    leg_seconds,
    ratio_metric,
    segment_metric,
    stream_metric,
    tells,
    tile_metric,
)
from nodes.tier.machine.actions import NoteTile
from pipeline.plan import NodeId, StreamId

SAMPLES = 4096
RATIOS = 64
"""Newest frames over which a ratio's mean runs."""
PROBES = 3
LET_GO_REMEMBERED = 64
LEAST_INTERVAL_S = 1e-3
NORMAL_MAD = 1.4826
"""A normal distribution's standard deviation, in median absolute deviations."""
_TileKey = tuple[StreamId, int, int, NodeId]


class Meter:
    """Counts events and keeps the newest samples of each duration; any thread may write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._samples: dict[str, deque[float]] = {}
        self._segments: dict[tuple[StreamId, int], deque[float]] = {}
        self._tiles: dict[_TileKey, deque[NoteTile]] = {}
        self._legs: dict[tuple[StreamId, int], dict[str, deque[float]]] = {}
        self._ratios: dict[tuple[StreamId, int, str], deque[float]] = {}
        self._told_ratios: set[tuple[StreamId, int, str]] = set()
        self._epochs: dict[StreamId, int] = {}
        self._let_go: deque[tuple[StreamId, int]] = deque(maxlen=LET_GO_REMEMBERED)
        self._probes: deque[float] = deque(maxlen=PROBES)
        self._is_probed = False
        self._process = psutil.Process()
        self._processor_s, self._reported_at = time.process_time(), time.monotonic()

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter; names end in `_total`."""
        with self._lock:
            self._counts[name] += amount

    def count_of(self, stream: StreamId, name: str, amount: int = 1) -> None:
        """Add to a counter of one stream: `stream.<stream>.<name>`."""
        self.count(stream_metric(stream, name), amount)

    def sample(self, name: str, seconds: float, stream: StreamId) -> None:
        """Keep one duration, for the node and for the stream; names end in `_seconds`."""
        with self._lock:
            for known in (name, stream_metric(stream, name)):
                self._samples.setdefault(known, deque(maxlen=SAMPLES)).append(seconds)

    def segment(self, stream: StreamId, epoch: int, seconds: float) -> None:
        """Keep what one frame took to compute in a plan's segment."""
        with self._lock:
            if (stream, epoch) not in self._let_go:
                self._segments.setdefault((stream, epoch), deque(maxlen=SAMPLES)).append(seconds)
            self._epochs[stream] = epoch
            self._probes.clear()

    def tile(self, note: NoteTile) -> None:
        """Keep what a tile took on its way there and back, waiting there, and computing."""
        key = StreamId(note.key.stream), note.key.epoch, note.key.tile, note.worker
        with self._lock:
            if key[:2] not in self._let_go:
                self._tiles.setdefault(key, deque(maxlen=SAMPLES)).append(note)

    def leg(self, stream: StreamId, epoch: int, seconds: Mapping[str, float]) -> None:
        """Keep a frame's seconds between its nodes, leg by leg; nothing for one that has not left this node."""
        with self._lock:
            is_kept = seconds and (stream, epoch) not in self._let_go
            legs = self._legs.setdefault((stream, epoch), {}) if is_kept else {}
            for name, took_s in seconds.items():
                legs.setdefault(name, deque(maxlen=SAMPLES)).append(took_s)

    def ratio(self, stream: StreamId, tensor: int, codec: str, ratio: float) -> None:
        """Keep how many times smaller a codec made a tensor of one frame."""
        key = stream, tensor, codec
        with self._lock:
            self._ratios.setdefault(key, deque(maxlen=RATIOS)).append(1 / ratio)
            self._told_ratios.discard(key)

    def processor(self, seconds: float) -> None:
        """Keep what a probe of the idle processor took."""
        with self._lock:
            self._probes.append(seconds)
            self._is_probed = True

    def expect_segment(self, stream: StreamId, epoch: int) -> None:
        """The epoch is prepared, perhaps after it was let go."""
        with self._lock:
            if (stream, epoch) in self._let_go:
                self._let_go.remove((stream, epoch))

    def forget_segment(self, stream: StreamId, epoch: int) -> None:
        """The epoch was let go; what its last frames took is not kept, since nobody would take it away again."""
        with self._lock:
            self._let_go.append((stream, epoch))
            self._segments.pop((stream, epoch), None)
            self._legs.pop((stream, epoch), None)
            self._tiles = {key: values for key, values in self._tiles.items() if key[:2] != (stream, epoch)}

    def value(self, name: str) -> int:
        """A counter's present value."""
        return self._counts[name]

    def report(self) -> dict[str, float]:
        """Counters, the p50 and p95 of each duration since the last report, and what the process takes.

        Counters and durations stand for the node and once more for each stream, beside the `epoch` that it computed
        last: `stream.<stream>.…`. Of each segment, once enough frames for it are computed,
        `segment.<stream>.<epoch>.frames`, the p50 of their `segment.<stream>.<epoch>.compute_seconds` and its
        `…_deviation`; of each tile, once one of its worker's has come back often enough,
        `tile.<stream>.<epoch>.<tile>.<worker>.frames` and the p50 of its `transfer_seconds`, `queue_seconds` and
        `compute_seconds`, and of frames whose tiles were out by themselves `alone_transfer_seconds`. Of frames that had
        the way between their nodes to themselves, `leg.<stream>.<epoch>.frames`, and by way, as `device_edge` or
        `return`, and as `frame` from entry to answer, the p50 of its `leg.<stream>.<epoch>.<leg>_seconds` and its
        `…_deviation`. Of each codec tried on a tensor since the last report,
        `tensor.<stream>.<tensor>.<codec>.frames`, and over the newest frames `.ratio` (bytes before by bytes after) and
        `.ratio_deviation`. `processor_share` is in cores: 1.0 is one core
        kept busy since the last report. `resident_bytes` is the process's memory.
        """
        with self._lock:
            counts, samples = dict(self._counts), self._samples
            epochs = {stream_metric(stream, "epoch"): epoch for stream, epoch in self._epochs.items()}
            segments = {key: values for key, values in self._segments.items() if tells(len(values), sum(values))}
            often = {key for key, notes in self._tiles.items() if tells(len(notes), _computed_seconds(notes))}
            telling = set(map(_of_worker, often))
            tiles = {key: notes for key, notes in self._tiles.items() if _of_worker(key) in telling}
            legs = {key: parts for key, parts in self._legs.items() if _frames_of(parts) >= LEAST_FRAMES}
            self._legs = {key: parts for key, parts in self._legs.items() if key not in legs}
            probes, self._is_probed = list(self._probes) if self._is_probed else [], False
            ratios = {key: list(values) for key, values in self._ratios.items() if key not in self._told_ratios}
            self._told_ratios |= ratios.keys()
            self._samples = {}
            self._segments = {key: values for key, values in self._segments.items() if key not in segments}
            self._tiles = {key: notes for key, notes in self._tiles.items() if key not in tiles}
        report: dict[str, float] = {"ts": time.time(), **dict(sorted(counts.items())), **epochs}
        for name, values in sorted(samples.items()):
            median, high = np.percentile(np.array(values), [50, 95])
            report[f"{name}_p50"], report[f"{name}_p95"] = round(float(median), 6), round(float(high), 6)
        for (stream, epoch), values in sorted(segments.items()):
            report[segment_metric(stream, epoch, FRAMES)] = len(values)
            report[segment_metric(stream, epoch, SECONDS)] = round(float(np.median(np.array(values))), 6)
            report[segment_metric(stream, epoch, DEVIATION)] = round(_deviation(values), 6)
        for (stream, epoch), by_leg in sorted(legs.items()):
            report[leg_metric(stream, epoch, FRAMES)] = _frames_of(by_leg)
            for name, values in by_leg.items():
                report[leg_metric(stream, epoch, leg_seconds(name))] = round(float(np.median(np.array(values))), 6)
                report[leg_metric(stream, epoch, leg_deviation(name))] = round(_deviation(values), 6)
        for tile_key, notes in sorted(tiles.items()):
            report[tile_metric(*tile_key, FRAMES)] = len(notes)
            parts = [(note.transfer_seconds, note.queue_seconds, note.compute_seconds) for note in notes]
            for part, median in zip(TILE_SECONDS, np.median(np.array(parts), axis=0), strict=True):
                report[tile_metric(*tile_key, part)] = round(float(median), 6)
            if alone := [note.transfer_seconds for note in notes if note.was_alone]:
                report[tile_metric(*tile_key, ALONE_SECONDS)] = round(float(np.median(np.array(alone))), 6)
        for ratio_key, parts_left in sorted(ratios.items()):
            left = np.array(parts_left)
            report[ratio_metric(*ratio_key, FRAMES)] = len(left)
            report[ratio_metric(*ratio_key, RATIO)] = round(1 / float(left.mean()), 4)
            report[ratio_metric(*ratio_key, RATIO_DEVIATION)] = round(float((1 / left).std()), 4)
        if len(probes) == PROBES:
            report[PROBE] = round(float(np.median(np.array(probes))), 6)
        report["resident_bytes"] = self._process.memory_info().rss
        report["processor_share"] = self._processor_share()
        report["threads"] = self._process.num_threads()
        return report

    def _processor_share(self) -> float:
        # psutil's is counted in ticks of 10 ms, too coarse for reports ten times a second
        processor_s, now = time.process_time(), time.monotonic()
        share = (processor_s - self._processor_s) / max(now - self._reported_at, LEAST_INTERVAL_S)
        self._processor_s, self._reported_at = processor_s, now
        return round(share, 3)


def _frames_of(by_leg: Mapping[str, deque[float]]) -> int:
    """Number of frames that were measured on every leg."""
    return min(map(len, by_leg.values()), default=0)


def _deviation(values: Iterable[float]) -> float:
    """Standard deviation by the median absolute one, which single outliers do not move; 0 of a single value."""
    found = np.array(list(values))
    return float(NORMAL_MAD * np.median(np.abs(found - np.median(found))))


def _computed_seconds(notes: Iterable[NoteTile]) -> float:
    return sum(note.compute_seconds for note in notes)


def _of_worker(key: _TileKey) -> tuple[StreamId, int, NodeId]:
    """Tiles that are reported together, since they are judged together."""
    stream, epoch, _, worker = key
    return stream, epoch, worker
