"""Each node's way to the broker as plans go by it: measured at its start, then as its telemetry sees it. Pure.

A running node's numbers are medians of what crossed (`broker.throughput`). They are taken up when two reports in a row
agree that a value lies elsewhere, so that one bad moment is none of the plan's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from nodes.messages import LinkMeasured, LinkReport
from pipeline.plan import NodeId

FAST_BYTES_PER_S = 5e7
"""Between rates above it processors make the difference: to handle a message takes as long as its bytes do."""
CLOSE = 0.05
"""Values that differ by a smaller share are not worth a word, let alone a plan."""
RATES = ("up_bytes_per_s", "down_bytes_per_s")
ROUND_TRIP = "round_trip_s"


@dataclass(slots=True)
class Links:
    """`known` is by node."""

    known: dict[NodeId, LinkReport] = field(default_factory=dict)
    _first: dict[NodeId, LinkReport] = field(default_factory=dict)
    _was_above: dict[tuple[NodeId, str], bool] = field(default_factory=dict)

    def learn_report(self, report: LinkReport) -> None:
        """What a node measured when it started holds at first; said again, at each connect, it is no news."""
        if self._first.get(report.node) != report:
            self._first[report.node] = self.known[report.node] = report

    def learn_measured(self, node: NodeId, measured: LinkMeasured) -> None:
        """What a running node sees; of a node that has not measured its link by itself nothing is taken."""
        link = self.known.get(node)
        if link is not None and link.makes_sense:
            news: dict[str, Any] = dict(self._news(link, measured))
            self.known[node] = replace(link, **news)

    def _news(self, link: LinkReport, measured: LinkMeasured) -> Iterator[tuple[str, float]]:
        for name in (*RATES, ROUND_TRIP):
            key, value, used = (link.node, name), getattr(measured, name), getattr(link, name)
            is_fast = name in RATES and value is not None and min(value, used) >= FAST_BYTES_PER_S
            if value is None or is_fast or abs(value - used) <= CLOSE * used:
                self._was_above.pop(key, None)
            elif self._was_above.get(key) is (value > used):
                yield name, value
            else:
                self._was_above[key] = value > used
