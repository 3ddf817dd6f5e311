"""Frames that wait to be computed, in order, and which of them go together: those for one segment, whatever stream."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from nodes.tier.machine.actions import Run

LEAST_WAIT_S = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class WaitingRun:
    """A run with when it came, on the pipeline's clock and on this process's performance counter."""

    run: Run
    arrived_ts: float
    arrived: float


class WaitingRuns:
    """Runs come from one thread and are taken by another. `wait_s` is how long the first of a batch waits for more."""

    def __init__(self, wait_s: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._wait_s, self._clock = wait_s, clock
        self._runs: deque[WaitingRun] = deque()
        self._came = threading.Condition()

    def put(self, waiting: WaitingRun) -> None:
        """Append one."""
        with self._came:
            self._runs.append(waiting)
            self._came.notify()

    def take(self, kind_of: Callable[[Run], tuple[object, int]]) -> list[WaitingRun]:
        """The oldest, with those behind it of the same kind; empty if none is left.

        `kind_of` gives what a run goes together with, and how many of that do at most. Others keep their order.
        """
        with self._came:
            if not self._runs:
                return []
            taken = [self._runs.popleft()]
            kind, most = kind_of(taken[0].run)
            give_up = self._clock() + self._wait_s
            while True:
                taken += self._of(kind, most - len(taken), kind_of)
                left_s = give_up - self._clock()
                if len(taken) >= most or left_s < LEAST_WAIT_S:
                    return taken
                self._came.wait(left_s)

    def _of(self, kind: object, count: int, kind_of: Callable[[Run], tuple[object, int]]) -> list[WaitingRun]:
        """Take out up to `count` of this kind."""
        found: list[WaitingRun] = []
        if count > 0:
            found = [waiting for waiting in self._runs if kind_of(waiting.run)[0] is kind][:count]
            for waiting in found:
                self._runs.remove(waiting)
        return found
