"""Failure detector: suspects living nodes that hang or are cut off, before the broker notices.

Nodes report in regular intervals. Nobody is silent while the listener itself is cut off, nor right after: nodes that
were cut off as well may need as long as their longest back-off to be back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pipeline.plan import NodeId

BACK_OFF_S = 6.0


@dataclass(slots=True)
class FailureDetector:
    """`patience_s` without a word is too long. Times are of one clock that only advances, in seconds."""

    patience_s: float
    listening_since: float
    _heard: dict[NodeId, float] = field(default_factory=dict)

    def heard(self, node: NodeId, now: float) -> None:
        """The node said something itself, and just now."""
        self._heard[node] = now

    def forget(self, node: NodeId) -> None:
        """The node is gone for good."""
        self._heard.pop(node, None)

    def cut_off(self) -> None:
        """Nothing can be heard."""
        self.listening_since = math.inf

    def listening(self, now: float) -> None:
        """Something can be heard again."""
        self.listening_since = now

    def suspects(self, node: NodeId, now: float) -> bool:
        """True when the node, if it is alive, has been silent for longer than `patience_s`."""
        heard = self._heard.get(node, -math.inf)
        return now - (heard if heard >= self.listening_since else self.listening_since + BACK_OFF_S) > self.patience_s
