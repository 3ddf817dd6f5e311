"""The planner's inbox: what has come and is not learned yet."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from enum import Enum, auto

from nodes.planner.machine import events as pe
from nodes.planner.machine.admission import sender_of
from nodes.protocol.joined_reports import joined
from pipeline.plan import NodeId


class _Stop(Enum):
    """The end of a planner's events."""

    STOP = auto()


STOP = _Stop.STOP


@dataclass(slots=True)
class _Waiting:
    """An event, and the moment at which it came."""

    event: pe.PlannerEvent
    came: float


class Inbox:
    """Events with the times at which they came, in seconds of a clock that only advances; from any thread.

    A node's report joins one of it that waits still, unless something else of the node has come in between: however
    far behind the planner is, no more than one report of each node waits, and no frame goes uncounted.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Waiting | _Stop] = queue.SimpleQueue()
        self._reports: dict[NodeId, _Waiting] = {}
        self._lock = threading.Lock()

    def put(self, event: pe.PlannerEvent) -> None:
        """Add an event that has come just now."""
        now = time.monotonic()
        node = sender_of(event)
        with self._lock:
            waiting = self._reports.pop(node, None) if node is not None else None
            if isinstance(event, pe.TelemetryArrived):
                if waiting is not None and isinstance(waiting.event, pe.TelemetryArrived):
                    both = joined(waiting.event.report, event.report)
                    waiting.event = pe.TelemetryArrived(event.node, both, heard_at=now)
                    self._reports[event.node] = waiting
                    return
                added = self._reports[event.node] = _Waiting(event, now)
            else:
                added = _Waiting(event, now)
            self._queue.put(added)

    def stop(self) -> None:
        """Add the end."""
        self._queue.put(STOP)

    def take(self, timeout_s: float) -> tuple[pe.PlannerEvent, float] | _Stop | None:
        """The next event, None when none comes in time."""
        try:
            taken = self._queue.get(timeout=timeout_s) if timeout_s else self._queue.get_nowait()
        except queue.Empty:
            return None
        if isinstance(taken, _Stop):
            return taken
        with self._lock:
            if isinstance(taken.event, pe.TelemetryArrived) and self._reports.get(taken.event.node) is taken:
                del self._reports[taken.event.node]
            return taken.event, taken.came

    @property
    def is_empty(self) -> bool:
        """True when nothing waits."""
        return self._queue.empty()
