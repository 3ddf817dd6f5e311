"""Which piece to publish next of those that others ask for, so that nodes that want the same share one sending of it.

Pure: no socket, no clock. Whatever is published reaches all that have subscribed, so a piece should leave when all who
want it listen, and once. Nodes that prepare the same plan begin within tenths of a second of each other: the first
piece of a package waits that long for the others, and so does a piece that somebody has come too late for. A request
that crosses with the piece itself is left out: it says for how long the asker has been listening.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

GATHER_S: Final = 0.5
"""Seconds for which a package's first piece, and one that is sent again, wait for others who want it."""
HEARD_S: Final = 5.0
"""Seconds after which a piece that has not come to a listener is lost, rather than on its way."""

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
    _leaving: set[Item] = field(default_factory=set)
    _sent: dict[Item, float] = field(default_factory=dict)
    """With the time at which each was last given to the broker, the oldest first."""
    _opens: dict[str, float] = field(default_factory=dict)
    """By package, the time from which its pieces leave without waiting for others."""
    _left: dict[str, float] = field(default_factory=dict)
    """By package, the time at which the broker had the last one."""

    def ask(self, package: str, pieces: Iterable[int], now: float, listening_s: float = 0.0) -> None:
        """Queue those that do not wait already, and that the asker, who listens for so long already, does not hear."""
        opens = self._opening(package, now)
        for piece in pieces:
            item = package, piece
            sent = self._sent.get(item)
            if item in self._waiting or (sent is not None and sent > now - listening_s):
                continue
            if len(self._waiting) >= self.limit:
                self.dropped_total += 1
                continue
            self._waiting[item] = opens if sent is None else now + GATHER_S

    def take(self, now: float) -> Item | None:
        """The next one, which is on its way until it `left`; None when nothing may leave yet."""
        self._forget_sent(now)
        item = next((item for item, opens in self._waiting.items() if opens <= now), None)
        if item is not None:
            del self._waiting[item]
            self._sent.pop(item, None)
            self._sent[item] = now
            self._leaving.add(item)
        return item

    def left(self, package: str, piece: int, now: float, *, delivered: bool = True) -> None:
        """The broker has it, or it is given up."""
        self._leaving.discard((package, piece))
        self._left[package] = now
        if not delivered:
            self._sent.pop((package, piece), None)

    def ready_in_s(self, now: float) -> float | None:
        """Seconds until one may leave, 0 when one may; None when nothing waits."""
        return max(0.0, min(self._waiting.values()) - now) if self._waiting else None

    def __len__(self) -> int:
        return len(self._waiting)

    def _opening(self, package: str, now: float) -> float:
        """When what is asked for now may leave: at once while the package flows, else when others have joined."""
        flows = now - self._left.get(package, -GATHER_S) < GATHER_S or any(
            package == busy for busy, _ in (*self._waiting, *self._leaving)
        )
        if not flows or package not in self._opens:
            self._opens[package] = now + GATHER_S
        return max(now, self._opens[package])

    def _forget_sent(self, now: float) -> None:
        while self._sent:
            item, sent = next(iter(self._sent.items()))
            if item in self._leaving or now - sent < HEARD_S:
                return
            del self._sent[item]
