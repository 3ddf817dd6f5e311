"""Throughput of one direction of a connection while it has bytes to move. Knows no socket and no clock.

A sample is a busy time: from when bytes were due until they had passed. Pauses between messages are in none, so a slow
producer is not mistaken for a slow line. Single samples are off, either way, whenever another process has the core, so
the mean of the middle half of the newest ones counts. When several in a row are far beyond nearly all before them,
however wide these spread, the line itself has changed, and what was is forgotten.
"""

from __future__ import annotations

from collections import deque

LEAST_BYTES = 1 << 16
"""Of less, latency and scheduling are most of the time, or all of it passes in one burst that a line lets through."""
LONGEST_S = 0.5
"""A line that is busy without end is sampled in pieces of that length."""
SAMPLES, LEAST_SAMPLES = 16, 2
TURNS, KNOWN_SAMPLES = ((2, 1.8), (3, 1.5)), 6
"""So many in a row, beyond the others by that factor, are a change, if KNOWN_SAMPLES or more show the others' spread:
the further off, the fewer are enough (as Page's cumulative sum, 1954).
"""
LEAST_S = 1e-6


class Throughput:
    """Written by the connection's thread, read by any. `now` is seconds of a clock that only advances."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, float]] = deque(maxlen=SAMPLES)
        self._since: float | None = None
        self._nbytes = 0
        self._opposed_s, self._opposed_until = 0.0, float("-inf")
        self.sampled_at = float("-inf")
        self.turns = 0
        """How often the line has changed."""

    def began(self, now: float) -> None:
        """Bytes are under way from now on; nothing changes if some were already."""
        if self._since is None:
            self._since, self._nbytes, self._opposed_s = now, 0, 0.0

    def opposed(self, other: Throughput, now: float) -> None:
        """A message has come in the other direction: acknowledgements may have waited behind it until now."""
        if self._since is not None and other._since is not None:
            self._opposed_s += max(0.0, now - max(self._since, other._since, self._opposed_until))
            self._opposed_until = now

    def moved(self, nbytes: int, now: float, *, is_idle: bool) -> None:
        """Count `nbytes` that have passed; `is_idle` if no others are under way. Ignored without a `began` before."""
        if self._since is None:
            return
        self._nbytes += nbytes
        seconds = now - self._since
        if is_idle or seconds >= LONGEST_S:
            if self._nbytes >= LEAST_BYTES:
                self._sample(seconds, now)
            self._since, self._nbytes, self._opposed_s = (None if is_idle else now), 0, 0.0

    def _sample(self, seconds: float, now: float) -> None:
        known = self.bytes_per_s()
        if known is not None or not self._opposed_s:
            self._add(self._nbytes, max(self._unopposed(seconds, known), LEAST_S))
            self.sampled_at = now

    def _unopposed(self, seconds: float, known: float | None) -> float:
        """Seconds of the bytes: those closest to the `known` rate, from all of them to those left without opposed
        traffic.
        """
        return seconds if known is None else min(seconds, max(self._nbytes / known, seconds - self._opposed_s))

    def lost(self) -> None:
        """The connection is gone, and what was under way."""
        self._since = None

    def bytes_per_s(self, without_s: float = 0.0) -> float | None:
        """Rate of the line now, None before there are LEAST_SAMPLES samples.

        `without_s` is the part of each sample's time that is not the bytes' own.
        """
        samples = [(nbytes, max(seconds - without_s, seconds / 4)) for nbytes, seconds in tuple(self._samples)]
        if len(samples) < LEAST_SAMPLES:
            return None
        samples.sort(key=_rate)
        outer = len(samples) // 4
        middle = samples[outer : len(samples) - outer]
        return sum(nbytes for nbytes, _ in middle) / sum(seconds for _, seconds in middle)

    def may_have_turned(self, below: float) -> bool:
        """True when the newest sample is far from the others, so that more samples are wanted.

        Not when neither is `below` that rate; always before there are enough samples.
        """
        *before, newest = [_rate(sample) for sample in tuple(self._samples)] or [0.0]
        if len(before) < LEAST_SAMPLES - 1:
            return True
        return min(newest, *before) < below and _are_beyond([newest], before, min(turn for _, turn in TURNS))

    def _add(self, nbytes: int, seconds: float) -> None:
        self._samples.append((nbytes, seconds))
        rates = [_rate(sample) for sample in self._samples]
        for count, turn in TURNS:
            before, newest = rates[:-count], rates[-count:]
            if len(before) >= KNOWN_SAMPLES and _are_beyond(newest, before, turn):
                self._samples = deque(list(self._samples)[-count:], maxlen=SAMPLES)
                self.turns += 1
                return


def _rate(sample: tuple[int, float]) -> float:
    return sample[0] / sample[1]


def _are_beyond(newest: list[float], before: list[float], turn: float) -> bool:
    """True when all of `newest` are above or below nearly all of `before` by `turn`: one outlier does not count."""
    outliers = 1 if len(before) >= KNOWN_SAMPLES else 0
    inner = sorted(before)[outliers : len(before) - outliers]
    return max(newest) * turn < inner[0] or min(newest) > inner[-1] * turn
