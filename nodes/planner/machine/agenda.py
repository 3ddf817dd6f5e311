"""Which streams have to be looked at, the most needed first, and when others will have to be. Pure.

An event touches the streams whose plans may change by it; time touches those that wait for something. All others are
left alone, so work goes with what changed and not with how many streams there are. A stream that has been looked at
rests then, for a time in proportion to what that took: whatever news comes, however fast, takes its share of a
processor and no more.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from enum import IntEnum

from pipeline.plan import StreamId


class Need(IntEnum):
    """How soon a stream is looked at, the first value first: it has no plan that runs, something changed, a plan that
    was made in haste is to be proved, or a plan that stays is to be compared with others, in words.
    """

    URGENT = 0
    CHANGED = 1
    UNPROVED = 2
    WORDS = 3


class Agenda:
    """Streams by need, each once, first come first served. `now` only advances."""

    def __init__(self) -> None:
        self._due: dict[Need, dict[StreamId, None]] = {need: {} for need in Need}
        self._timers: list[tuple[float, Need, StreamId]] = []
        self._set: set[tuple[float, Need, StreamId]] = set()
        self._rests: dict[StreamId, float] = {}
        self._words_rest = -math.inf

    def mark(self, names: Iterable[StreamId], need: Need = Need.CHANGED) -> None:
        """Have these streams looked at; one that is due already keeps its place unless it is needed sooner now."""
        for name in names:
            if any(name in self._due[sooner] for sooner in Need if sooner <= need):
                continue
            for later in Need:
                self._due[later].pop(name, None)
            self._due[need][name] = None

    def at(self, when: float, name: StreamId, need: Need = Need.CHANGED) -> None:
        """Have a stream looked at when it is that late."""
        timer = when, need, name
        if timer not in self._set:
            self._set.add(timer)
            heapq.heappush(self._timers, timer)

    def rest(self, name: StreamId, until: float) -> None:
        """Have a stream left alone until then, however much it is needed."""
        self._rests[name] = until

    def rest_words(self, until: float) -> None:
        """Leave words alone until then, of all streams."""
        self._words_rest = until

    def ring(self, now: float) -> None:
        """Mark the streams whose time has come."""
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)
            self._set.discard(timer)
            self.mark([timer[2]], timer[1])

    def next(self, now: float) -> tuple[StreamId, Need] | None:
        """Take the stream that is needed most and does not rest, None when there is nothing to do."""
        for need, streams in self._due.items():
            if need is Need.WORDS and now < self._words_rest:
                continue
            name = next((name for name in streams if self._rests.get(name, now) <= now), None)
            if name is not None:
                del streams[name]
                self._rests.pop(name, None)
                return name, need
        return None

    def waiting(self, need: Need) -> int:
        """How many streams are due that are needed as soon as that."""
        return len(self._due[need])
