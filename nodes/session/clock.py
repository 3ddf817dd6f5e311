"""The clock that times in a pipeline are told by: steady, and in step with one reference, the planner.

Built on the monotonic clock, so that a wall clock that is set while the process runs (NTP, a person) moves nothing.
"""

from __future__ import annotations

import time

from nodes.session.clock_offset import ClockOffset

STEP_S = 0.5
"""By how much wall and monotonic clock may part before one of them must have been stopped or set."""


class PipelineClock:
    """Seconds since 1970 by the reference's clock, or by this machine's until it is known. Any thread may read it."""

    def __init__(self) -> None:
        self._started_at = time.time() - time.monotonic()
        self._offset = ClockOffset()
        self._ahead_s = 0.0
        self.steps_total = 0

    def steady(self) -> float:
        """This process's own: the wall clock as it was when the process began, never set since."""
        return self._started_at + time.monotonic()

    def now(self) -> float:
        """The pipeline's."""
        steady = self.steady()
        best = self._offset.best(steady)
        return steady + best[0] if best else steady

    def learn(self, sent: float, received: float, read: float, reference: str) -> None:
        """An echo of the reference, by `steady` here and there. A machine that slept meanwhile begins again."""
        ahead_s = time.time() - self.steady()
        if abs(ahead_s - self._ahead_s) > STEP_S:
            self._offset.forget()
            self.steps_total += 1
        self._ahead_s = ahead_s
        self._offset.learn(sent, received, read, reference)

    def report(self) -> dict[str, float]:
        """Telemetry: `clock_offset_seconds` and its bound, once known, and how often a clock was set."""
        best = self._offset.best(self.steady())
        known = {"clock_offset_seconds": round(best[0], 6), "clock_error_seconds": round(best[1], 6)} if best else {}
        return {**known, "clock_steps_total": self.steps_total}
