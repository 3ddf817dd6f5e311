"""A node's counters and timings, and the flat JSON object that it reports every second."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import psutil

from nodes.protocol.reports import (
    ALONE_SECONDS,
    DEVIATION,
    FRAMES,
    GATHER_DEVIATION,
    GATHER_SECONDS,
    INPUT_SECONDS,
    PROBE,
    PROBE_AGREES,
    RATIO,
    RATIO_DEVIATION,
    SECONDS,
    TILE_SECONDS,
    WHOLE,
    gather_metric,
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
from nodes.tier.power import PowerMeter
from pipeline.plan import NodeId, StreamId

SAMPLES = 4096
RATIOS = 64
"""Newest frames over which a ratio's mean runs."""
PROBES = 3
FAR = 1.5
"""Measurements that differ by that factor do not confirm each other."""
LET_GO_REMEMBERED = 64
LEAST_INTERVAL_S = 1e-3
NORMAL_MAD = 1.4826
"""A normal distribution's standard deviation, in median absolute deviations."""
_EpochKey = tuple[StreamId, int]
_TileKey = tuple[StreamId, int, int, NodeId]
_RatioKey = tuple[StreamId, int, str]


class _Taken(NamedTuple):
    """All that one report is made of."""

    counts: Mapping[str, int]
    epochs: Mapping[StreamId, int]
    samples: Mapping[str, Sequence[float]]
    segments: Mapping[_EpochKey, Sequence[tuple[float, float]]]
    tiles: Mapping[_TileKey, Sequence[NoteTile]]
    gathers: Mapping[_EpochKey, Sequence[float]]
    legs: Mapping[_EpochKey, Mapping[str, deque[float]]]
    ratios: Mapping[_RatioKey, Sequence[float]]
    probes: Sequence[float]


class Meter:
    """Counts events and keeps the newest samples of each duration; any thread may write. `power` measures watts."""

    def __init__(self, power: PowerMeter | None = None) -> None:
        self._power = power
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._samples: dict[str, deque[float]] = {}
        self._segments: dict[_EpochKey, deque[tuple[float, float]]] = {}
        self._tiles: dict[_TileKey, deque[NoteTile]] = {}
        self._gathers: dict[_EpochKey, deque[float]] = {}
        self._legs: dict[_EpochKey, dict[str, deque[float]]] = {}
        self._ratios: dict[_RatioKey, deque[float]] = {}
        self._told_ratios: set[_RatioKey] = set()
        self._epochs: dict[StreamId, int] = {}
        self._let_go: deque[_EpochKey] = deque(maxlen=LET_GO_REMEMBERED)
        self._probes: deque[float] = deque(maxlen=PROBES)
        self._is_probed = False
        self._told: dict[_EpochKey, tuple[float, float]] = {}
        """Of each segment the medians that the last two reports had, the newest last."""
        self._told_probe = 0.0
        self.has_news = False
        """True when something was measured since the last report that is far from what that said."""
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

    def segment(self, stream: StreamId, epoch: int, seconds: float, input_s: float = 0.0) -> None:
        """Keep what one frame took to compute in a plan's segment, `input_s` of it for the input's own blocks."""
        with self._lock:
            if (stream, epoch) not in self._let_go:
                values = self._segments.setdefault((stream, epoch), deque(maxlen=SAMPLES))
                values.append((seconds, input_s))
                told = self._told.get((stream, epoch), ())
                self.has_news |= tells(len(values), _sum(values)) and any(_are_far(seconds, each) for each in told)
            self._epochs[stream] = epoch
            self._probes.clear()

    def tile(self, note: NoteTile) -> None:
        """Keep what a tile took on its way there and back, waiting there, and computing."""
        key = StreamId(note.key.stream), note.key.epoch, note.key.tile, note.worker
        with self._lock:
            if key[:2] not in self._let_go:
                self._tiles.setdefault(key, deque(maxlen=SAMPLES)).append(note)

    def gather(self, stream: StreamId, epoch: int, seconds: float) -> None:
        """Keep what a frame's tiles took until they were put together, of one that had the workers to itself."""
        with self._lock:
            if (stream, epoch) not in self._let_go:
                self._gathers.setdefault((stream, epoch), deque(maxlen=SAMPLES)).append(seconds)

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
            self.has_news |= _agree(self._probes) and bool(self._told_probe) and _are_far(seconds, self._told_probe)

    @property
    def is_probe_in_doubt(self) -> bool:
        """True when the newest probe is far from the one before, so that another one has to confirm either."""
        with self._lock:
            return len(self._probes) > 1 and not _agree(self._probes)

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
            self._told.pop((stream, epoch), None)
            self._gathers.pop((stream, epoch), None)
            self._legs.pop((stream, epoch), None)
            self._tiles = {key: values for key, values in self._tiles.items() if key[:2] != (stream, epoch)}

    def value(self, name: str) -> int:
        """A counter's present value."""
        return self._counts[name]

    def report(self) -> dict[str, float]:
        """Counters, the p50 and p95 of each duration since the last report, and what the process takes.

        Counters and durations stand for the node and once more for each stream, with the `epoch` that it computed
        last: `stream.<stream>.…`. Of each segment, once enough frames for it are computed,
        `segment.<stream>.<epoch>.frames`, the p50 of their `segment.<stream>.<epoch>.compute_seconds` and its
        `…_deviation`, and of the input's own blocks, if it has them, `….input_seconds`;
        of each tile, once one of its worker's has come back often enough,
        `tile.<stream>.<epoch>.<tile>.<worker>.frames` and the p50 of its `transfer_seconds`, `queue_seconds` and
        `compute_seconds`, and of frames whose tiles were out by themselves `alone_transfer_seconds`; of these,
        `gather.<stream>.<epoch>.frames`, the p50 of the `…seconds` until all tiles were put together, and its
        `…_deviation`. Of frames that had
        the way between their nodes to themselves, `leg.<stream>.<epoch>.frames`, and by way, as `device_edge` or
        `return`, and as `frame` from entry to answer, the p50 of its `leg.<stream>.<epoch>.<leg>_seconds` and its
        `…_deviation`. Of each codec tried on a tensor since the last report,
        `tensor.<stream>.<tensor>.<codec>.frames`, and over the newest frames `.ratio` (bytes before by bytes after) and
        `.ratio_deviation`. `processor_share` is in cores: 1.0 is one core
        kept busy since the last report. `power.watts` is what the machine draws, `power.work_watts` what computing
        adds to that, where it is measured. `resident_bytes` is the process's memory.
        """
        taken = self._take()
        report: dict[str, float] = {"ts": time.time(), **dict(sorted(taken.counts.items()))}
        report |= {stream_metric(stream, "epoch"): epoch for stream, epoch in taken.epochs.items()}
        for name, values in sorted(taken.samples.items()):
            median, high = np.percentile(np.array(values), [50, 95])
            report[f"{name}_p50"], report[f"{name}_p95"] = round(float(median), 6), round(float(high), 6)
        for (stream, epoch), computed in sorted(taken.segments.items()):
            report[segment_metric(stream, epoch, FRAMES)] = len(computed)
            taken_s, input_s = zip(*computed, strict=True)
            report[segment_metric(stream, epoch, SECONDS)] = _median(taken_s)
            report[segment_metric(stream, epoch, DEVIATION)] = _deviation(taken_s)
            if any(input_s):
                report[segment_metric(stream, epoch, INPUT_SECONDS)] = _median(input_s)
        for (stream, epoch), values in sorted(taken.gathers.items()):
            report[gather_metric(stream, epoch, FRAMES)] = len(values)
            report[gather_metric(stream, epoch, GATHER_SECONDS)] = _median(values)
            report[gather_metric(stream, epoch, GATHER_DEVIATION)] = _deviation(values)
        for (stream, epoch), by_leg in sorted(taken.legs.items()):
            report[leg_metric(stream, epoch, FRAMES)] = _frames_of(by_leg)
            report |= {leg_metric(stream, epoch, leg_seconds(name)): _median(s) for name, s in by_leg.items()}
            report |= {leg_metric(stream, epoch, leg_deviation(name)): _deviation(s) for name, s in by_leg.items()}
        for tile_key, notes in sorted(taken.tiles.items()):
            report |= _tile_numbers(tile_key, notes)
        for ratio_key, left in sorted(taken.ratios.items()):
            report |= _ratio_numbers(ratio_key, left)
        if (probe := _confirmed(taken.probes)) is not None:
            report[PROBE], report[PROBE_AGREES] = round(probe, 6), int(_agree(taken.probes))
        report["resident_bytes"] = self._process.memory_info().rss
        if self._power is not None:
            now = time.monotonic()
            busy_s = sum(taken.samples.get("compute_seconds", ()))
            report |= self._power.report(busy_s, now - self._reported_at, now)
        report["processor_share"] = self._processor_share()
        report["threads"] = self._process.num_threads()
        return report

    def _take(self) -> _Taken:
        """What one report says; what is reported once only is kept no longer."""
        with self._lock:
            often = {key for key, notes in self._tiles.items() if tells(len(notes), _computed_seconds(notes))}
            telling = set(map(_of_worker, often))
            taken = _Taken(
                counts=dict(self._counts),
                epochs=dict(self._epochs),
                samples=self._samples,
                segments={key: values for key, values in self._segments.items() if tells(len(values), _sum(values))},
                tiles={key: notes for key, notes in self._tiles.items() if _of_worker(key) in telling},
                gathers={key: values for key, values in self._gathers.items() if tells(len(values), sum(values))},
                legs={key: parts for key, parts in self._legs.items() if _tell(parts)},
                ratios={key: list(values) for key, values in self._ratios.items() if key not in self._told_ratios},
                probes=list(self._probes) if self._is_probed else [],
            )
            self._is_probed = self.has_news = False
            self._told_probe = _confirmed(taken.probes) or self._told_probe
            for key, values in taken.segments.items():
                median = _median(seconds for seconds, _ in values)
                self._told[key] = (self._told.get(key, (median,))[-1], median)
            self._told_ratios |= taken.ratios.keys()
            self._samples = {}
            self._segments = {key: values for key, values in self._segments.items() if key not in taken.segments}
            self._tiles = {key: notes for key, notes in self._tiles.items() if key not in taken.tiles}
            self._gathers = {key: values for key, values in self._gathers.items() if key not in taken.gathers}
            self._legs = {key: parts for key, parts in self._legs.items() if key not in taken.legs}
        return taken

    def _processor_share(self) -> float:
        # psutil's is counted in ticks of 10 ms, too coarse for reports ten times a second
        processor_s, now = time.process_time(), time.monotonic()
        share = (processor_s - self._processor_s) / max(now - self._reported_at, LEAST_INTERVAL_S)
        self._processor_s, self._reported_at = processor_s, now
        return round(share, 3)


def _are_far(one: float, other: float) -> bool:
    return max(one, other) > FAR * min(one, other)


def _agree(probes: Sequence[float]) -> bool:
    return len(probes) > 1 and not _are_far(probes[-1], probes[-2])


def _confirmed(probes: Sequence[float]) -> float | None:
    """Seconds of the newest probe where the one before agrees, else the median of three; None of too few."""
    if _agree(probes):
        return probes[-1]
    return _median(probes) if len(probes) == PROBES else None


def _median(values: Iterable[float]) -> float:
    return round(float(np.median(np.array(list(values)))), 6)


def _tile_numbers(key: _TileKey, notes: Sequence[NoteTile]) -> dict[str, float]:
    numbers: dict[str, float] = {tile_metric(*key, FRAMES): len(notes)}
    parts = [(note.transfer_seconds, note.queue_seconds, note.compute_seconds) for note in notes]
    for part, median in zip(TILE_SECONDS, np.median(np.array(parts), axis=0), strict=True):
        numbers[tile_metric(*key, part)] = round(float(median), 6)
    if alone := [note.transfer_seconds for note in notes if note.was_alone]:
        numbers[tile_metric(*key, ALONE_SECONDS)] = _median(alone)
    return numbers


def _ratio_numbers(key: _RatioKey, parts_left: Sequence[float]) -> dict[str, float]:
    left = np.array(parts_left)
    return {
        ratio_metric(*key, FRAMES): len(left),
        ratio_metric(*key, RATIO): round(1 / float(left.mean()), 4),
        ratio_metric(*key, RATIO_DEVIATION): round(float((1 / left).std()), 4),
    }


def _tell(by_leg: Mapping[str, deque[float]]) -> bool:
    """True when that many frames, or so long ones, are enough to judge their ways by."""
    return tells(_frames_of(by_leg), sum(by_leg.get(WHOLE, ())))


def _frames_of(by_leg: Mapping[str, deque[float]]) -> int:
    """Number of frames that were measured on every leg."""
    return min(map(len, by_leg.values()), default=0)


def _deviation(values: Iterable[float]) -> float:
    """Standard deviation by the median absolute one, which single outliers do not move; 0 of a single value."""
    found = np.array(list(values))
    return round(float(NORMAL_MAD * np.median(np.abs(found - np.median(found)))), 6)


def _computed_seconds(notes: Iterable[NoteTile]) -> float:
    return sum(note.compute_seconds for note in notes)


def _sum(values: Iterable[tuple[float, float]]) -> float:
    return sum(seconds for seconds, _ in values)


def _of_worker(key: _TileKey) -> tuple[StreamId, int, NodeId]:
    """Tiles that are reported together, since they are judged together."""
    stream, epoch, _, worker = key
    return stream, epoch, worker
