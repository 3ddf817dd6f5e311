"""What an exporter knows of nodes and streams: the newest of each, bounded; any thread may write or read."""

from __future__ import annotations

import math
import re
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from nodes.instruments.families import BUCKETS, NODE_NUMBERS, PERCENTILES, STAGES, STREAM_NUMBERS, Number
from nodes.protocol.messages import LifeState, NodeInfo, NodeState
from nodes.protocol.reports import LEGS, leg_seconds, stream_metric
from pipeline.plan import Plan, StreamId
from pipeline.ranges import MOST_NODES, MOST_STREAMS

V = TypeVar("V")

MOST_NUMBER: Final = 1e18
_STREAM_KEY: Final = re.compile(r"stream\.([a-z0-9-]{1,128})\.")
_LEG_KEY: Final = re.compile(rf"leg\.([a-z0-9-]{{1,128}})\.([0-9]{{1,12}})\.({'|'.join(map(leg_seconds, LEGS))})")


@dataclass(slots=True)
class Histogram:
    """Counts of seconds by upper bound, the last without one; their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    sum_seconds: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum_seconds += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Upper bounds and how many are at most that, as exporters want them."""
        found, total = [], 0
        for bound, count in zip((*BUCKETS, math.inf), self.counts, strict=True):
            total += count
            found.append(("+Inf" if math.isinf(bound) else str(bound), float(total)))
        return found


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node's newest telemetry, taken apart: its numbers, by stream those of the stream, stages and legs.

    `at` is when it came, in seconds of a clock that only advances.
    """

    at: float
    numbers: Mapping[Number, float]
    streams: Mapping[StreamId, Mapping[Number, float]]
    stages: Mapping[tuple[StreamId, str, str], float]
    legs: Mapping[tuple[StreamId, str], float]


class Measured:
    """Nodes, streams and plans as instruments show them. What exceeds the limits is ignored and counted.

    `now` gives seconds of a clock that only advances.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.lock = threading.Lock()
        self.now = now
        self.infos: dict[str, NodeInfo] = {}
        self.states: dict[str, LifeState] = {}
        self.tiers: dict[str, str] = {}
        self.reports: dict[str, NodeReport] = {}
        self.frames: dict[str, Histogram] = {}
        self.plans: dict[str, Plan] = {}
        self.ignored_total = 0

    def learn_state(self, state: NodeState) -> None:
        """A node has said its state."""
        self.set_state(state.node, state.tier, state.state)

    def set_state(self, node: str, tier: str, state: LifeState) -> None:
        """A node is in a state."""
        with self.lock:
            if self._admitted(self.states, node, MOST_NODES):
                self.states[node], self.tiers[node] = state, tier

    def learn_info(self, info: NodeInfo) -> None:
        """A node has said what it is."""
        with self.lock:
            if self._admitted(self.infos, info.node, MOST_NODES):
                self.infos[info.node] = info

    def learn_plan(self, plan: Plan) -> None:
        """A plan was published."""
        with self.lock:
            if self._admitted(self.plans, plan.stream, MOST_STREAMS):
                self.plans[plan.stream] = plan

    def learn_frame(self, stream: str, seconds: float) -> None:
        """A frame was answered without an error."""
        with self.lock:
            if math.isfinite(seconds) and self._admitted(self.frames, stream, MOST_STREAMS):
                self.frames.setdefault(stream, Histogram()).observe(seconds)

    def learn_report(self, node: str, report: Mapping[str, Any]) -> None:
        """A node has reported."""
        with self.lock:
            if self._admitted(self.reports, node, MOST_NODES):
                self.reports[node] = _taken_apart(report, self.now())

    def forget_node(self, node: str) -> None:
        """A node's retained messages were taken back: it is gone for good."""
        with self.lock:
            for table in (self.infos, self.states, self.tiers, self.reports):
                table.pop(node, None)

    def forget_plan(self, stream: str) -> None:
        """A stream has no plan any more."""
        with self.lock:
            self.plans.pop(stream, None)

    def _admitted(self, table: Mapping[str, V], name: str, most: int) -> bool:
        if name in table or len(table) < most:
            return True
        self.ignored_total += 1
        return False


def _taken_apart(report: Mapping[str, Any], at: float) -> NodeReport:
    """Only numbers that are in the tables, of at most MOST_STREAMS streams."""
    found = {StreamId(match[1]) for key in report if (match := _STREAM_KEY.match(key))}
    streams = sorted(found)[:MOST_STREAMS]
    stages = {
        (stream, stage, percentile): value
        for stream in streams
        for stage in STAGES
        for suffix, percentile in PERCENTILES.items()
        if (value := _number(report, stream_metric(stream, f"{stage}_seconds_{suffix}"))) is not None
    }
    return NodeReport(
        at=at,
        numbers=_numbers(NODE_NUMBERS, report, ""),
        streams={stream: _numbers(STREAM_NUMBERS, report, stream_metric(stream, "")) for stream in streams},
        stages=stages,
        legs=_legs(report, found.intersection(streams)),
    )


def _legs(report: Mapping[str, Any], streams: Set[StreamId]) -> dict[tuple[StreamId, str], float]:
    """Seconds by stream and leg, under the newest epoch that is reported."""
    newest: dict[tuple[StreamId, str], tuple[int, float]] = {}
    for key in report:
        if (match := _LEG_KEY.fullmatch(key)) is None or match[1] not in streams:
            continue
        value, where = _number(report, key), (StreamId(match[1]), match[3].removesuffix("_seconds_p50"))
        if value is not None:
            newest[where] = max(newest.get(where, (0, 0.0)), (int(match[2]), value))
    return {where: value for where, (_, value) in newest.items()}


def _numbers(known: tuple[Number, ...], report: Mapping[str, Any], prefix: str) -> dict[Number, float]:
    found = {number: _number(report, prefix + number.key) for number in known}
    return {number: value for number, value in found.items() if value is not None}


def _number(report: Mapping[str, Any], key: str) -> float | None:
    value = report.get(key)
    # json reads NaN and whole numbers of any size; bool is an int to Python
    is_usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST_NUMBER
    return float(value) if is_usable and value is not None else None
