"""Buffers on their way into a socket, in order, none of them copied."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from broker.mqtt.packets import Buffer

MOST_AT_ONCE: Final = 64
"""Buffers for one call; the kernel takes up to 1024."""


class OutgoingBuffers:
    """What has been queued and not been taken. A mark is reported once everything up to it was taken."""

    def __init__(self) -> None:
        self._buffers: deque[memoryview] = deque()
        self._marks: deque[tuple[int, int]] = deque()
        self._queued_total = self._taken_total = 0

    def __bool__(self) -> bool:
        return bool(self._buffers)

    def put(self, buffers: Sequence[Buffer], *, mark: int | None = None) -> None:
        """Queue buffers, which must not change until they are taken."""
        for buffer in buffers:
            view = memoryview(buffer)
            if view.nbytes:
                self._buffers.append(view.cast("B") if view.format != "B" or view.ndim != 1 else view)
                self._queued_total += view.nbytes
        if mark is not None:
            self._marks.append((self._queued_total, mark))

    def next(self) -> list[memoryview]:
        """The next buffers to send, in order."""
        return [self._buffers[index] for index in range(min(MOST_AT_ONCE, len(self._buffers)))]

    def taken(self, nbytes: int) -> list[int]:
        """Forget the first `nbytes`. Returns the marks that were passed."""
        self._taken_total += nbytes
        while nbytes:
            first = self._buffers[0]
            if nbytes < len(first):
                self._buffers[0] = first[nbytes:]
                break
            nbytes -= len(first)
            self._buffers.popleft()
        passed = []
        while self._marks and self._marks[0][0] <= self._taken_total:
            passed.append(self._marks.popleft()[1])
        return passed
