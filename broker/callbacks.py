"""A session's callbacks: called one at a time, in order, in a thread of their own, where they may wait."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from broker.complaints import Complaints
from broker.errors import NotConnected

_log = logging.getLogger(__name__)


class Callbacks:
    """`name` is the session's. What a callback raises is logged and counted (`failures`), and the thread goes on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_ending = False
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"{name}.events", daemon=True)
        self.failures = Complaints(_log)

    def start(self) -> None:
        """Begin to call."""
        self._thread.start()

    def post(self, call: Callable[[], None]) -> None:
        """Queue a call; thread safe."""
        self._calls.put(call)

    def expect_end(self) -> None:
        """Take no notice any more of calls that find the session stopped."""
        self._is_ending = True

    def stop(self, wait_s: float) -> None:
        """Call what is queued, then end; waits for it unless this is its own thread."""
        self._calls.put(None)
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(wait_s)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:
                if self._is_ending and isinstance(error, NotConnected):
                    continue  # it was under way when the session was stopped, which is no failure of it
                self.failures.add(type(error).__name__, f"{self._name}: a callback failed", error=error)
