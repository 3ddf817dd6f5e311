"""Tile overhead: seconds of a tile's transfer besides its bytes', at its worker and at the coordinator. Pure.

Links' rates say what the bytes take. What a coordinator measures between asking for a tile and having it, without
waiting and computing at the worker, is more; on nodes whose processor is short it may be most. The difference is
charged to the worker's next tiles. A worker that was never asked is charged the least of what the others are.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

from nodes.planner.costs.constants import has_left
from pipeline.plan import NodeId

REPORTS, LEAST_REPORTS = 5, 3
"""Whose median counts."""
FADING = 0.99
"""The share that each report of a worker without tiles leaves: half is gone after 69, so that it is tried again some
day.
"""


@dataclass(slots=True)
class TileOverhead:
    """By worker, in seconds a tile."""

    _seen: dict[NodeId, deque[float]] = field(default_factory=dict)
    _smoothed: dict[NodeId, float] = field(default_factory=dict)
    _used: dict[NodeId, float] = field(default_factory=dict)

    def learn(self, worker: NodeId, beside_s: float) -> None:
        """Take a tile's transfer seconds beyond those of its bytes; negative ones count as 0."""
        seen = self._seen.setdefault(worker, deque(maxlen=REPORTS))
        seen.append(max(0.0, beside_s))
        if len(seen) >= LEAST_REPORTS:
            self._smoothed[worker] = statistics.median(seen)
            self._follow(worker)

    def fade(self, worker: NodeId) -> None:
        """Fade the overhead of a worker that reported and has no tiles."""
        self._seen.pop(worker, None)
        if worker in self._smoothed:
            self._smoothed[worker] *= FADING
            self._follow(worker)

    def seconds_of(self, worker: NodeId) -> float:
        """Seconds per tile to charge; for an unknown worker the least of the others'."""
        return self._used.get(worker, self.least)

    @property
    def least(self) -> float:
        """The least that any worker is charged; 0 before anything was learned."""
        return min(self._used.values(), default=0.0)

    def _follow(self, worker: NodeId) -> None:
        now, used = self._smoothed[worker], self._used.get(worker)
        if used is None or has_left(used, now):
            self._used[worker] = round(now, 6)
