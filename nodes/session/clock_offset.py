"""Clock offset: seconds by which a reference's clock is ahead of this node's, from echoes, with an error bound. Pure.

Source: the exchange of NTP (RFC 5905). The reference read its clock somewhere between sending and receiving; taken for
the middle, the reading is wrong by half the round trip at most, however unlike the two ways are. So the echo with the
least bound counts, and the bound of each grows with its age, by as much as two crystals may drift apart.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

DRIFT = 1e-4
"""Seconds a second: twice the 50 ppm that an uncorrected crystal may be off."""
ECHOES = 64


@dataclass(frozen=True, slots=True)
class _Echo:
    offset_s: float
    error_s: float
    at: float

    def bound_s(self, now: float) -> float:
        return self.error_s + DRIFT * (now - self.at)


@dataclass(slots=True)
class ClockOffset:
    """All times are seconds of this node's steady clock, but for the reference's own reading."""

    _reference: str = ""
    _echoes: deque[_Echo] = field(default_factory=lambda: deque(maxlen=ECHOES))

    def learn(self, sent: float, received: float, read: float, reference: str) -> None:
        """An echo came back. Another `reference` (a session token) has another clock, and what was known is void."""
        if reference != self._reference:
            self._reference = reference
            self._echoes.clear()
        half_s = (received - sent) / 2
        self._echoes.append(_Echo(read - sent - half_s, half_s, received))

    def forget(self) -> None:
        """This node's clock is not what it was."""
        self._echoes.clear()

    def best(self, now: float) -> tuple[float, float] | None:
        """The offset to add to this node's clock, and by how much it may be wrong; None before the first echo."""
        echoes = tuple(self._echoes)
        if not echoes:
            return None
        best = min(echoes, key=lambda echo: echo.bound_s(now))
        return best.offset_s, best.bound_s(now)
