"""What a node takes to send a frame's tensors on, or to receive them, beside what the link takes. Pure.

The device knows what passed between one node's computing and the next one's, and back again. Less what the bytes take
at the links' rates, that is what the two nodes at the ends took, each about as much for sending as for receiving. Each
such way is an equation in two unknowns; the unknowns follow by Cimmino's method (1938), a step for each report. Three
nodes in a circle are determined; what two nodes share is halved until one of them is seen with another. Clocks that
differ make one way look longer and another shorter, which cancels out in the sum for a frame.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from nodes.machine.corrections import PROBE_TURN
from pipeline.plan import NodeId

REPORTS, LEAST_REPORTS = 5, 3
"""Whose median counts."""
GAIN = 0.5
"""The part of what a way is short of that one report adds to its ends."""
FADING = 0.998
"""What each report of a node without frames leaves: half is gone after 350, so that it is tried again some day."""
STEP, LEAST_STEP_S = 0.2, 1e-3
"""A value is taken up when it differs by that share, and by that much."""


@dataclass(slots=True)
class _End:
    """Seconds at one end; `used` follows `smoothed` in steps."""

    smoothed: float = 0.0
    used: float = 0.0
    probe_s: float | None = None

    def add(self, seconds: float) -> None:
        self.smoothed = max(0.0, self.smoothed + seconds)
        self._follow()

    def scale(self, factor: float) -> None:
        self.smoothed *= factor
        self._follow()

    def _follow(self) -> None:
        if abs(self.smoothed - self.used) > max(STEP * self.used, LEAST_STEP_S):
            self.used = round(self.smoothed, 6)


@dataclass(slots=True)
class Ends:
    """By node, in seconds for sending or receiving once."""

    _seen: dict[tuple[NodeId, NodeId], deque[float]] = field(default_factory=dict)
    _known: dict[NodeId, _End] = field(default_factory=dict)

    def learn(self, beside_s: Mapping[tuple[NodeId, NodeId], float]) -> None:
        """What ways from node to node took more than their bytes; below 0 where the clocks of two nodes differ."""
        added: dict[NodeId, float] = {}
        for way, seconds in beside_s.items():
            seen = self._seen.setdefault(way, deque(maxlen=REPORTS))
            seen.append(seconds)
            if len(seen) >= LEAST_REPORTS:
                missing_s = statistics.median(seen) - sum(self._smoothed(node) for node in way)
                for node in way:
                    added[node] = added.get(node, 0.0) + GAIN * missing_s / len(way)
        for node, seconds in added.items():
            end = self._known.setdefault(node, _End())
            end.probe_s = None
            end.add(seconds)

    def rest(self, node: NodeId, probe_s: float | None = None) -> None:
        """The node reported, maybe what a probe of its processor took, and has no part in any frame's way."""
        self._seen = {way: seen for way, seen in self._seen.items() if node not in way}
        end = self._known.get(node)
        if end is None:
            return
        end.scale(FADING)
        if probe_s is not None:
            changed = probe_s / (end.probe_s or probe_s)
            if end.probe_s is None or not 1 / PROBE_TURN < changed < PROBE_TURN:
                end.probe_s = probe_s
                end.scale(changed)

    def of(self, node: NodeId) -> float:
        """What to charge; a node that was never seen takes the least of what the others do."""
        known = self._known.get(node)
        return known.used if known else min((end.used for end in self._known.values()), default=0.0)

    def _smoothed(self, node: NodeId) -> float:
        known = self._known.get(node)
        return known.smoothed if known else 0.0
