"""Send and receive overhead: a node's seconds to send or receive a frame's tensors, besides the link's. Pure.

The device knows what passed between one node's computing and the next one's, and back again. Less what the bytes take
at the links' rates, that is the overhead of the two nodes of the leg, each about as much for sending as for receiving.
Each such leg is an equation in two unknowns; the unknowns follow by Cimmino's method (1938), a step for each report.
Three nodes in a circle are determined; what two nodes share is halved until one of them is seen with another. Clocks
that differ make one leg look longer and another shorter, which cancels out in the sum for a frame.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from nodes.planner.costs.constants import Constants
from nodes.planner.costs.tile_overhead import LEAST_REPORTS, REPORTS
from pipeline.plan import NodeId

GAIN = 0.5
"""The part of a leg's missing seconds that one report adds to its nodes."""


@dataclass(slots=True)
class SendReceiveOverhead:
    """By node, in seconds for sending or receiving once."""

    _seen: dict[tuple[NodeId, NodeId], deque[float]] = field(default_factory=dict)
    _known: Constants[NodeId] = field(default_factory=Constants)

    def learn(self, beside_s: Mapping[tuple[NodeId, NodeId], float]) -> None:
        """Take seconds of legs beyond those of their bytes; below 0 where the clocks of two nodes differ."""
        added: dict[NodeId, float] = {}
        for leg, seconds in beside_s.items():
            seen = self._seen.setdefault(leg, deque(maxlen=REPORTS))
            seen.append(seconds)
            if len(seen) >= LEAST_REPORTS:
                missing_s = statistics.median(seen) - sum(self._known.smoothed(node) for node in leg)
                for node in leg:
                    added[node] = added.get(node, 0.0) + GAIN * missing_s / len(leg)
        for node, seconds in added.items():
            self._known.add(node, seconds)

    def rest(self, node: NodeId, probe_s: float | None = None) -> None:
        """Fade a node that reported, maybe with a probe's seconds, and is on no frame's path."""
        self._seen = {leg: seen for leg, seen in self._seen.items() if node not in leg}
        self._known.rest(node, probe_s)

    def seconds_of(self, node: NodeId) -> float:
        """Seconds to charge for sending or receiving once; for an unknown node the least of the others'."""
        return self._known.seconds_of(node)

    @property
    def least(self) -> float:
        """What a node that was never seen is charged."""
        return self._known.least
