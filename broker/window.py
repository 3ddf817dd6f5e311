"""How many messages may be on their way at once. Knows no message.

A broker at its memory limit closes the connection of whoever sends, with all that it has not acknowledged yet. Who
comes back with as much as before is thrown out again, and gets nowhere. So after a loss the window begins at one, is
doubled up to half of what was on its way, and grows by one for each whole window from there on, as TCP's does.
"""

from __future__ import annotations

import math


class Window:
    """Called in the connection's thread only."""

    def __init__(self) -> None:
        self._limit = 1
        self._size = math.inf
        self._slow_from = math.inf

    @property
    def size(self) -> int:
        """Messages that may be unacknowledged."""
        return int(min(self._size, self._limit))

    def connected(self, limit: int) -> None:
        """A connection on which the broker takes `limit` at once."""
        self._limit = max(1, limit)

    def lost(self, in_flight: int) -> None:
        """The connection is gone, with so many messages unacknowledged."""
        if in_flight:
            self._slow_from = max(1.0, in_flight / 2)
            self._size = 1.0

    def acked(self) -> None:
        """The broker has another one."""
        self._size += 1.0 if self._size < self._slow_from else 1.0 / self._size
