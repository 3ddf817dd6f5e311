"""Constant overheads: seconds per frame besides those of blocks and bytes, by node or another key. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from nodes.planner.costs.corrections import turned

K = TypeVar("K", bound=Hashable)

FADING = 0.998
"""The share that each report of a node without frames leaves: half is gone after 350, so that it is tried again some
day.
"""
STEP, LEAST_STEP_S = 0.2, 1e-3
"""A value is taken up when it differs by that share, and by that much."""


def has_left(used: float, smoothed: float) -> bool:
    """True when `smoothed` is far enough from the value in use to replace it."""
    return abs(smoothed - used) > max(STEP * used, LEAST_STEP_S)


@dataclass(slots=True)
class _Constant:
    """`used` follows `smoothed` in steps."""

    smoothed: float = 0.0
    used: float = 0.0
    probe_s: float | None = None

    def follow(self) -> None:
        if has_left(self.used, self.smoothed):
            self.used = round(self.smoothed, 6)


@dataclass(slots=True)
class Constants(Generic[K]):
    """Whoever learns them says what is to be added; a node at rest follows its processor and is slowly forgotten."""

    _known: dict[K, _Constant] = field(default_factory=dict)
    _least: float | None = None

    def add(self, key: K, seconds: float) -> None:
        """Add `seconds`, which may be negative; the sum is at least 0."""
        known = self._known.setdefault(key, _Constant())
        known.probe_s = None
        known.smoothed = max(0.0, known.smoothed + seconds)
        self._follow(known)

    def rest(self, key: K, probe_s: float | None = None) -> None:
        """The node reported, maybe what a probe of its processor took, and nothing is learned of it at present."""
        known = self._known.get(key)
        if known is None:
            return
        known.smoothed *= FADING
        if probe_s is not None and (changed := turned(probe_s, known.probe_s)) is not None:
            known.probe_s = probe_s
            known.smoothed *= changed
        self._follow(known)

    def _follow(self, known: _Constant) -> None:
        before = known.used
        known.follow()
        if known.used != before or not before:
            self._least = None

    def smoothed(self, key: K) -> float:
        """Seconds learned so far; 0 without any."""
        known = self._known.get(key)
        return known.smoothed if known else 0.0

    def seconds_of(self, key: K, most_shared_s: float = math.inf) -> float:
        """Seconds to charge; for an unknown key the least of the others', at most `most_shared_s`."""
        known = self._known.get(key)
        if known is not None:
            return known.used
        return min(most_shared_s, self.least)

    @property
    def least(self) -> float:
        """The least that any node is charged; 0 before anything was learned."""
        if self._least is None:
            self._least = min((known.used for known in self._known.values()), default=0.0)
        return self._least
