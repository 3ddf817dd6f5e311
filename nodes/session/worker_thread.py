"""Named threads that each do one kind of work, in order, from a bounded queue."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Worker(Generic[T]):
    """Calls `work(item)` for each item put, in a thread called `name`.

    `put` waits while `limit` items are queued, which is the back-pressure between a node's stages; `offer` does not
    wait and says whether there was room. What `work` raises is logged and given to `on_error`. `is_busy` while an item
    is worked on.
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
        """Finish what is queued, then end."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(wait_s)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            self.is_busy = True
            try:
                self._work(item)
            except Exception as error:
                _log.exception("%s could not do its work", self._thread.name)
                self._on_error(item, error)
            self.is_busy = False
