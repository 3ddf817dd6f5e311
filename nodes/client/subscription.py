"""Answers as they come, for a program that reads them one after the other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

from nodes.client.answers import Answer

MOST_WAITING = 256
"""Answers that wait for a reader who is slower than the stream; beyond them the oldest go, counted."""


class Subscription:
    """An iterator over answers, which waits for the next one, and a context that ends it.

    Attributes:
        dropped: answers that were given up since nobody read them in time; the newest stay.
        ended: called once when it is closed.
    """

    def __init__(self) -> None:
        self._answers: deque[Answer] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.dropped = 0
        self.ended: Callable[[], None] = lambda: None

    def offer(self, answer: Answer | None) -> None:
        """Take an answer, or None for the last of all. Never waits."""
        with self._changed:
            if answer is None:
                self._closed = True
            else:
                self._answers.append(answer)
            if len(self._answers) > MOST_WAITING:
                self._answers.popleft()
                self.dropped += 1
            self._changed.notify_all()

    def next(self, timeout_s: float | None = None) -> Answer | None:
        """The next answer; None after `timeout_s` without one, or when the subscription has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._answers or self._closed, timeout_s)
            return self._answers.popleft() if self._answers else None

    def close(self) -> None:
        """End it; what has come can still be read."""
        self.ended()
        self.offer(None)

    def __iter__(self) -> Subscription:
        return self

    def __next__(self) -> Answer:
        answer = self.next()
        if answer is None:
            raise StopIteration
        return answer

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
