"""Rates and round trips of each node's link to the broker: measured at its start, then by its telemetry. Pure.

A running node's numbers are medians of what crossed (`broker.throughput`). They are taken up when two reports in a row
agree that a value lies elsewhere, so that one bad moment changes no plan. Where values go to and fro, as
on a node whose processor is short, more and more have to agree, unless they are far beyond all that was usual.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from nodes.protocol.messages import LinkMeasured, LinkReport
from nodes.protocol.reports import FAST_BYTES_PER_S
from pipeline.plan import NodeId

CLOSE = 0.05
"""Values that differ by a smaller share are equal here."""
LEAST_AGREEING, MOST_AGREEING = 2, 16
RESTLESS_REPORTS = 30
"""A value that turns back within this many reports needs twice as many to agree the next time."""
TURN = 1.5
"""The factor beyond all values of so many reports that makes a value another one, however restless they were."""
RATES = ("up_bytes_per_s", "down_bytes_per_s")
ROUND_TRIP = "round_trip_s"


@dataclass(slots=True)
class _Value:
    """`seen` are the newest reports while all of them are above, or all below, the value in use; `usual` are those
    among which a value is nothing unheard of.
    """

    seen: list[float] = field(default_factory=list)
    usual: deque[float] = field(default_factory=lambda: deque(maxlen=RESTLESS_REPORTS))
    needed: int = LEAST_AGREEING
    rose: bool | None = None
    reports: int = 0

    def agrees(self, value: float) -> None:
        """A report with nothing new."""
        self.reports += 1
        self.usual.append(value)
        self.seen.clear()

    def differs(self, value: float, used: float) -> float | None:
        """A report with another value; returns what to use from now on, once enough of them agree."""
        self.reports += 1
        is_above = value > used
        if self.seen and (self.seen[-1] > used) is not is_above:
            self.seen.clear()
        self.seen.append(value)
        is_beyond = bool(self.usual) and not min(self.usual) / TURN < value < TURN * max(self.usual)
        if not is_beyond:
            self.usual.append(value)
        if len(self.seen) < (LEAST_AGREEING if is_beyond else self.needed):
            return None
        newer = statistics.median(self.seen[len(self.seen) // 2 :])
        turned_back = self.rose is not None and self.rose is not is_above and self.reports <= RESTLESS_REPORTS
        self.needed = min(2 * self.needed, MOST_AGREEING) if turned_back else max(self.needed // 2, LEAST_AGREEING)
        if is_beyond:
            self.usual.extend(self.seen)
        self.seen, self.rose, self.reports = [], is_above, 0
        return newer


@dataclass(slots=True)
class Links:
    """`known` is by node."""

    known: dict[NodeId, LinkReport] = field(default_factory=dict)
    _first: dict[NodeId, LinkReport] = field(default_factory=dict)
    _values: dict[tuple[NodeId, str], _Value] = field(default_factory=dict)

    def learn_report(self, report: LinkReport) -> None:
        """Take a node's first measurement; the same one again, as at each connect, changes nothing."""
        if self._first.get(report.node) != report:
            self._first[report.node] = self.known[report.node] = report

    def learn_measured(self, node: NodeId, measured: LinkMeasured) -> None:
        """Take a running node's values, if it has measured its link before."""
        link = self.known.get(node)
        if link is not None and link.makes_sense:
            changes: dict[str, Any] = dict(self._changes(link, measured))
            self.known[node] = replace(link, **changes)

    def _changes(self, link: LinkReport, measured: LinkMeasured) -> Iterator[tuple[str, float]]:
        for name in (*RATES, ROUND_TRIP):
            value, used = getattr(measured, name), getattr(link, name)
            known = self._values.setdefault((link.node, name), _Value())
            is_fast = name in RATES and value is not None and min(value, used) >= FAST_BYTES_PER_S
            if value is None:
                known.seen.clear()
            elif is_fast or abs(value - used) <= CLOSE * used:
                known.agrees(value)
            elif (taken_up := known.differs(value, used)) is not None:
                yield name, taken_up
