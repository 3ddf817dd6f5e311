"""Which piece to publish next of those that others ask for, so that nodes that want the same share one sending of it.

Pure: no socket, no clock. Whatever is published reaches all that have subscribed, so a piece should leave when all who
want it listen, and once. Nodes that prepare the same plan begin within tenths of a second of each other: the first
piece of a package waits that long for the others, and so does a piece that somebody has come too late for. A request
that crosses with the piece itself is left out: it says for how long the asker has been listening. It was made after
the broker had confirmed that, so a piece that the broker has not confirmed by then reaches the asker, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

GATHER_S: Final = 0.5
"""Seconds for which a package's first piece, and one that is sent again, wait for others who want it."""
HEARD_S: Final = 2.0
"""Seconds after the broker had a piece, when one that has not come to a listener is lost rather than on its way."""
REMEMBERED_S: Final = 30.0
"""Seconds for which a piece is known to have been sent, so that another sending of it waits."""

Item: TypeAlias = tuple[str, int]
"""A package's digest and a piece of it."""


@dataclass(slots=True)
class Queue:
    """Pieces that others have asked for, each once however many did; at most `limit` wait.

    `now` is seconds of any clock that only advances.
    """

    limit: int = 4_096
    dropped_total: int = 0
    _waiting: dict[Item, float] = field(default_factory=dict)
    """With the time from which each may leave."""
    _leaving: dict[Item, float] = field(default_factory=dict)
    """With the time at which each was given to the broker, which has not confirmed it."""
    _gone: dict[Item, tuple[float, float]] = field(default_factory=dict)
    """With the times at which each was last given to the broker and confirmed, the oldest first."""
    _opens: dict[str, float] = field(default_factory=dict)
    """By package, the time from which its pieces leave without waiting for others."""
    _left: dict[str, float] = field(default_factory=dict)
    """By package, the time at which the broker had the last one."""

    def ask(self, package: str, pieces: Iterable[int], now: float, listening_s: float = 0.0) -> None:
        """Queue those that do not wait already, and that the asker, who listens for so long already, does not hear."""
        opens = self._opening(package, now)
        for piece in pieces:
            item = package, piece
            if item in self._waiting or item in self._leaving or self._was_heard(item, now, listening_s):
                continue
            if len(self._waiting) >= self.limit:
                self.dropped_total += 1
                continue
            self._waiting[item] = now + GATHER_S if item in self._gone else opens

    def take(self, now: float) -> Item | None:
        """The next one, which is on its way until it `left`; None when nothing may leave yet."""
        item = next((item for item, opens in self._waiting.items() if opens <= now), None)
        if item is not None:
            del self._waiting[item]
            self._leaving[item] = now
        return item

    def left(self, package: str, piece: int, now: float, *, delivered: bool = True) -> None:
        """The broker has it, or it is given up."""
        item = package, piece
        sent = self._leaving.pop(item)
        self._gone.pop(item, None)
        if delivered:
            self._gone[item] = sent, now
        self._left[package] = now
        while self._gone and now - next(iter(self._gone.values()))[1] >= REMEMBERED_S:
            del self._gone[next(iter(self._gone))]

    def ready_in_s(self, now: float) -> float | None:
        """Seconds until one may leave, 0 when one may; None when nothing waits."""
        return max(0.0, min(self._waiting.values()) - now) if self._waiting else None

    def __len__(self) -> int:
        return len(self._waiting)

    def _opening(self, package: str, now: float) -> float:
        """When what is asked for now may leave: at once while the package flows, else when others have joined."""
        flows = now - self._left.get(package, -math.inf) < GATHER_S or any(
            package == busy for busy, _ in (*self._waiting, *self._leaving)
        )
        if not flows:
            self._opens[package] = now + GATHER_S
        return max(now, self._opens[package])

    def _was_heard(self, item: Item, now: float, listening_s: float) -> bool:
        """True for what has left since the asker listens, and so lately that it may be on its way."""
        sent, confirmed = self._gone.get(item, (-math.inf, -math.inf))
        return sent > now - listening_s and now - confirmed < HEARD_S
