"""How often people may change a stream's plan: many times in a row, and then one after the other. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

MOST_IN_A_ROW: Final = 30
EVERY_S: Final = 5.0
"""Each change has nodes compile: without a bound, one client that asks all the time keeps them from their frames."""


@dataclass(slots=True)
class Allowance:
    """A token bucket, full at the start; times in seconds of the planner's clock."""

    left: float = MOST_IN_A_ROW
    at: float = -math.inf

    def wait_s(self, now: float) -> float:
        """Seconds until the next change is allowed, 0 when it is now."""
        return max(0.0, (1 - self._left(now)) * EVERY_S)

    def take(self, now: float) -> None:
        """Count a change."""
        self.left, self.at = self._left(now) - 1, now

    def _left(self, now: float) -> float:
        return min(MOST_IN_A_ROW, self.left + (now - self.at) / EVERY_S)
