"""Named threads that each do one kind of work, in order, from a bounded queue."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from broker.complaints import Complaints

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Worker(Generic[T]):
    """Calls `work(item)` for each item put, in a thread called `name`.

    `put` waits while `limit` items are queued, which is the back-pressure between a node's stages; `offer` does not
    wait and says whether there was room. What `work` raises is logged and counted (`failures`), and given to
    `on_error`; the thread goes on. `is_busy` while an item is worked on.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[T], None],
        *,
        limit: int = 1024,
        on_error: Callable[[T, Exception], None] = lambda item, error: None,
    ) -> None:
        self._work = work
        self._on_error = on_error
        self.failures = Complaints(_log)
        self._ending = threading.Event()
        self._queue: queue.Queue[T | None] = queue.Queue(limit)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.is_busy = False

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def put(self, item: T) -> None:
        """Queue an item, waiting for room."""
        self._queue.put(item)

    def offer(self, item: T) -> bool:
        """Queue an item if there is room; for threads that must not wait."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            return False
        return True

    def __len__(self) -> int:
        return self._queue.qsize()

    def stop(self, wait_s: float = 5.0) -> None:
        """Finish what is queued, then end; after `wait_s`, leave the thread to end with what it is at."""
        if not self._thread.is_alive():
            return
        give_up = time.monotonic() + wait_s
        try:
            self._queue.put(None, timeout=wait_s)
        except queue.Full:
            self._ending.set()
            _log.warning("%s: %d pieces of work are left undone", self._thread.name, len(self))
        self._thread.join(max(0.0, give_up - time.monotonic()))

    def _run(self) -> None:
        while not self._ending.is_set() and (item := self._queue.get()) is not None:
            self.is_busy = True
            try:
                self._work(item)
            except Exception as error:
                self._failed(item, error)
            self.is_busy = False

    def _failed(self, item: T, error: Exception) -> None:
        name = self._thread.name
        self.failures.add(type(error).__name__, f"{name} could not do its work", error=error)
        try:
            self._on_error(item, error)
        except Exception as another:
            self.failures.add(f"on_error {type(another).__name__}", f"{name} could not say so", error=another)
