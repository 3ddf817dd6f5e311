"""Energy: the joules that a frame adds to what nodes draw when idle. Pure.

A node at work draws `busy - idle` watts more than without work, and its radio or cable takes joules for each byte. Idle
power is spent whatever a plan decides, so it is in no price. Source of the linear model: Miettinen and Nurminen,
"Energy efficiency of mobile clients in cloud computing" (HotCloud 2010).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NO_DRAW", "Draw"]


@dataclass(frozen=True, slots=True)
class Draw:
    """What a node's work adds to its idle power: watts while it computes, joules for each byte sent or received."""

    watts: float = 0.0
    joules_per_byte: float = 0.0

    def joules(self, seconds: float, nbytes: float = 0.0) -> float:
        """Joules of so many seconds of work and so many bytes."""
        return self.watts * seconds + self.joules_per_byte * nbytes


NO_DRAW = Draw()
