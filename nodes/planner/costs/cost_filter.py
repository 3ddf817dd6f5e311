"""One extended Kalman filter for all that makes nodes and links quicker or slower than was foreseen. Pure.

Every measurement is one equation, `seconds = sum of amount * product of parts + noise`: parts are factors, overheads
and seconds per byte, kept as logarithms with their covariance. Each node's parts are a block of their own, those that
nodes share are others; what an equation says is divided among the parts of its blocks by how uncertain they are (Kalman
1960; iterated where it is curved: Bell and Cathey 1993). Covariances between blocks are left out, so that cost and
memory grow with nodes, not with their pairs.

What is not measured drifts back to its prior, as its variance always does (Ornstein and Uhlenbeck 1930). An innovation
beyond `CLIP` deviations counts for no more than that (Huber 1964), and says nothing of a model on all nodes; a second
one of the same sign in a row is a change, as is one that was confirmed where it was measured. Then what can jump has
jumped, by more than all else is uncertain: the measurement is believed, and what cannot jump stays much as it is. So
when it jumps back, little of it is left in other parts.
"""

from __future__ import annotations

import math
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nodes.planner.costs.constants import (
    CLIP,
    DRIFT_S,
    FURTHEST,
    GAIN,
    LEAST_S,
    LEAST_SECONDS,
    LEAST_SHARE,
    MOST_STEP,
    MOST_STEPS,
    QUIET_S,
)

Floats = npt.NDArray[np.float64]

MEAN_DIFFERENCE = math.sqrt(math.pi) / 2
"""Standard deviation of a normal distribution by the mean absolute difference of two from it (von Neumann and others
1941; Rice 1984).
"""
SHARED, STEADY = "*", "**"
"""Begin the names of blocks that are no node's, and of those of them that far-off measurements do not move."""


class Part(NamedTuple):
    """A logarithm that is learned: whose it is (a node's, or what nodes share), and which."""

    block: str
    name: str


class Prior(NamedTuple):
    """A part's logarithm, and its standard deviation, before anything is measured. Of one that does not vary, what was
    learned stays. `jump` is the deviation of one that a change has changed, 0 of one that changes do not touch.
    """

    mean: float = 0.0
    deviation: float = 0.1
    varies: bool = True
    jump: float = 0.0


@dataclass(frozen=True, slots=True)
class Term:
    """`amount` times the product of the parts, in seconds."""

    amount: float
    parts: tuple[Part, ...]


@dataclass(slots=True)
class _Block:
    """Parts by place, with the moment in seconds for which `mean` and `covariance` hold, and when each was measured."""

    at: float
    places: dict[str, int] = field(default_factory=dict)
    mean: Floats = field(default_factory=lambda: np.zeros(0))
    covariance: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    measured_at: Floats = field(default_factory=lambda: np.zeros(0))
    prior_mean: Floats = field(default_factory=lambda: np.zeros(0))
    prior_variance: Floats = field(default_factory=lambda: np.zeros(0))
    varies: Floats = field(default_factory=lambda: np.zeros(0))
    """1 for parts that vary, 0 for constants."""
    jumps: dict[str, float] = field(default_factory=dict)
    """Variances of those that changes touch."""

    def place(self, name: str, prior: Prior) -> int:
        if name not in self.places:
            self.places[name] = len(self.places)
            self.mean, self.prior_mean = np.append(self.mean, prior.mean), np.append(self.prior_mean, prior.mean)
            self.prior_variance = np.append(self.prior_variance, prior.deviation**2)
            self.varies = np.append(self.varies, float(prior.varies))
            if prior.jump:
                self.jumps[name] = prior.jump**2
            self.measured_at = np.append(self.measured_at, self.at)
            grown = np.zeros((len(self.mean), len(self.mean)))
            grown[:-1, :-1], grown[-1, -1] = self.covariance, prior.deviation**2
            self.covariance = grown
        return self.places[name]

    def renew(self, place: int, variance: float) -> None:
        """Make a part as uncertain as that, whatever was learned together with others."""
        self.covariance[place, :] = 0.0
        self.covariance[:, place] = 0.0
        self.covariance[place, place] = variance

    def advance(self, now: float) -> None:
        """Let time pass, in steps of LEAST_S: what nodes share is measured many times a second."""
        if now < self.at + LEAST_S:
            return
        quiet_s = np.maximum(now - np.maximum(self.measured_at + QUIET_S, self.at), 0.0)
        kept = np.exp((self.at - now) / DRIFT_S * self.varies)
        self.at = now
        self.mean = self.prior_mean + np.exp(-quiet_s / DRIFT_S * self.varies) * (self.mean - self.prior_mean)
        self.covariance *= kept[:, None] * kept
        self.covariance.flat[:: len(self.mean) + 1] += (1 - kept * kept) * self.prior_variance


@dataclass(slots=True)
class _Source:
    """Of measurements that follow each other: how much they vary, what the last one was off once it was learned, and
    how far off it had been if that was too far; and that one was as expected, so that what is not has changed since.
    """

    deviation: float = 0.0
    at: float = -math.inf
    left: float = 0.0
    far: float = 0.0
    was_near: bool = False


class CostFilter:
    """`priors` are by a part's name up to a colon. Moments are seconds of one clock that only advances."""

    def __init__(self, priors: Mapping[str, Prior]) -> None:
        self._priors = priors
        self._blocks: dict[str, _Block] = {}
        self._sources: dict[Hashable, _Source] = {}
        self._shared_at = -math.inf
        self._revisions: dict[str, int] = {}

    def revision(self, block: str) -> tuple[int, int]:
        """Equal as long as nothing has changed in the block and in what nodes share."""
        return self._revisions.get(block, 0), self._revisions.get(SHARED, 0)

    def _revise(self, block: str) -> None:
        name = SHARED if block.startswith(SHARED) else block
        self._revisions[name] = self._revisions.get(name, 0) + 1

    def expect(self, part: Part, prior: Prior, now: float) -> None:
        """Begin again with this prior, unless it is the part's already."""
        self._revise(part.block)
        block = self._blocks.setdefault(part.block, _Block(now))
        place = block.place(part.name, prior)
        if (block.prior_mean[place], block.prior_variance[place]) != (prior.mean, prior.deviation**2):
            block.prior_mean[place], block.prior_variance[place] = prior.mean, prior.deviation**2
            block.mean[place] = prior.mean
            block.renew(place, prior.deviation**2)

    def forget(self, part: Part) -> None:
        """Begin again with the part's prior."""
        self._revise(part.block)
        block = self._blocks.get(part.block)
        if block is not None and part.name in block.places:
            place = block.places[part.name]
            block.mean[place] = block.prior_mean[place]
            block.renew(place, block.prior_variance[place])

    def validate(self) -> None:
        """Assert what always holds."""
        for name, block in self._blocks.items():
            assert np.isfinite(block.mean).all(), f"{name}: {block.mean}"
            assert (np.abs(block.mean - block.prior_mean) <= math.log(FURTHEST) + 1e-6).all(), f"{name}: {block.mean}"
            assert (block.covariance.diagonal() >= 0).all(), f"{name}: {block.covariance}"

    def advance(self, block: str, now: float) -> None:
        """Let the time until `now` pass for one block and, in steps of QUIET_S, for what nodes share."""
        if block in self._blocks:
            self._revise(block)
            self._blocks[block].advance(now)
        if now >= self._shared_at + QUIET_S:
            self._shared_at = now
            self._revise(SHARED)
            for name in (name for name in self._blocks if name.startswith(SHARED)):
                self._blocks[name].advance(now)

    def factor(self, *parts: Part) -> float:
        """Product of the parts."""
        total = 0.0
        for part in parts:
            block = self._blocks.get(part.block)
            place = block.places.get(part.name) if block is not None else None
            total += float(block.mean[place]) if block is not None and place is not None else self._prior(part).mean
        return math.exp(total)

    def seconds(self, terms: Iterable[Term]) -> float:
        """Sum of the terms."""
        return sum(term.amount * self.factor(*term.parts) for term in terms)

    def variance(self, terms: Iterable[Term]) -> float:
        """Variance of the sum of the terms, in seconds squared; amounts below 0 make it that of a difference."""
        slopes: dict[Part, float] = {}
        for term in terms:
            seconds = term.amount * self.factor(*term.parts)
            for part in term.parts:
                slopes[part] = slopes.get(part, 0.0) + seconds
        total = 0.0
        for name, own in _by_block(slopes).items():
            block = self._blocks.get(name)
            known = [part for part in own if block is not None and part.name in block.places]
            if block is not None and known:
                places, along = [block.places[part.name] for part in known], np.array([own[part] for part in known])
                total += float(along @ block.covariance[np.ix_(places, places)] @ along)
            total += sum((own[part] * self._prior(part).deviation) ** 2 for part in own if part not in known)
        return total

    def deviation(self, source: Hashable) -> float | None:
        """Standard deviation of one measurement of the source, as a share of it; None before the first."""
        known = self._sources.get(source)
        return known.deviation if known is not None else None

    def observe(
        self,
        source: Hashable,
        terms: Sequence[Term],
        seconds: float,
        noise: float,
        now: float,
        *,
        is_confirmed: bool = False,
    ) -> None:
        """Learn from what the terms took together; `noise` is its standard deviation at least, as a share of that.

        Measurements of one `source` follow each other: by how much they differ is their noise, and two in a row that
        are far off are a change, whose noise is the least there is; so is one that `is_confirmed`.
        """
        parts = {part for term in terms for part in term.parts}
        for name in {part.block for part in parts}:
            self._revise(name)
        for part in sorted(parts):
            block = self._blocks.setdefault(part.block, _Block(now))
            block.advance(now)
            if part.name not in block.places:
                block.place(part.name, self._prior(part))
            block.measured_at[block.places[part.name]] = now
        expected, slopes = self._linear(terms)
        off = math.log(max(seconds / expected, LEAST_SECONDS if is_confirmed else LEAST_SHARE))
        known = self._sources.setdefault(source, _Source())
        varied = abs(off - known.left) if now - known.at < QUIET_S else None
        usual = max(noise, known.deviation)
        bound = CLIP * math.sqrt(self._spread(slopes) + usual**2)
        is_far, measured = abs(off) > bound, off
        has_changed = is_far and (is_confirmed or known.far * off > 0)
        known.far, known.was_near = 0.0, known.was_near or not is_far
        if has_changed:
            self._renew(parts, is_jump=known.was_near)
        elif is_far:
            known.far = off
            off = math.copysign(bound, off)
        if is_far:
            slopes = {name: slope for name, slope in slopes.items() if not name.startswith(STEADY)}
        if has_changed:
            usual = noise
        self._update(terms, math.log(expected) + off, usual, expected, slopes)
        known.at, known.left = now, math.log(expected) + measured - math.log(max(self.seconds(terms), LEAST_SECONDS))
        if varied is not None:
            known.deviation += GAIN * (MEAN_DIFFERENCE * min(varied, bound) - known.deviation)

    def _renew(self, parts: Iterable[Part], *, is_jump: bool) -> None:
        """Make nodes' parts as uncertain as a change makes them or, where they never were as expected, as at first."""
        for part in parts:
            block = self._blocks[part.block]
            place = block.places[part.name]
            if is_jump and part.name in block.jumps:
                block.renew(place, block.jumps[part.name])
            elif not is_jump and block.varies[place] and not part.block.startswith(SHARED):
                block.renew(place, block.prior_variance[place])

    def _update(
        self, terms: Sequence[Term], target: float, noise: float, expected: float, slopes: dict[str, Floats]
    ) -> None:
        """Iterated update: the logarithm of the terms' sum, `expected`, was measured as `target`.

        Blocks that are not in `slopes` stay as they are.
        """
        first = {name: self._blocks[name].mean for name in slopes}
        for step_number in range(MOST_STEPS):
            if step_number:
                expected, slopes = self._linear(terms, first)
            gains = {name: self._blocks[name].covariance @ slope for name, slope in slopes.items()}
            spread = noise**2 + sum(float(slope @ gains[name]) for name, slope in slopes.items())
            moved = sum(float(slope @ (self._blocks[name].mean - first[name])) for name, slope in slopes.items())
            left, largest = (target - math.log(expected) + moved) / spread, 0.0
            for name, gain in gains.items():
                block = self._blocks[name]
                step = np.minimum(np.maximum(first[name] + left * gain - block.mean, -MOST_STEP), MOST_STEP)
                low, high = block.prior_mean - math.log(FURTHEST), block.prior_mean + math.log(FURTHEST)
                block.mean = np.minimum(np.maximum(block.mean + step, low), high)
                largest = max(largest, *np.abs(step).tolist())
            if largest < MOST_STEP / 100 or (len(terms) == 1 and largest < MOST_STEP):
                break  # the logarithm of one term is linear: there was no more to it
        for name, gain in gains.items():
            self._blocks[name].covariance -= gain[:, None] * gain / spread

    def _linear(self, terms: Sequence[Term], blocks: Container[str] | None = None) -> tuple[float, dict[str, Floats]]:
        """The terms' sum, and by block, of these only, how its logarithm grows with each part."""
        seconds = [term.amount * self.factor(*term.parts) for term in terms]
        total = max(sum(seconds), LEAST_SECONDS)
        slopes: dict[str, Floats] = {}
        for term, took_s in zip(terms, seconds, strict=True):
            for part in term.parts:
                if blocks is not None and part.block not in blocks:
                    continue
                block = self._blocks[part.block]
                slope = slopes.setdefault(part.block, np.zeros(len(block.places)))
                slope[block.places[part.name]] += took_s / total
        return total, slopes

    def _spread(self, slopes: Mapping[str, Floats]) -> float:
        return sum(float(slope @ self._blocks[name].covariance @ slope) for name, slope in slopes.items())

    def _prior(self, part: Part) -> Prior:
        return self._priors[part.name.partition(":")[0]]


def _by_block(slopes: Mapping[Part, float]) -> dict[str, dict[Part, float]]:
    found: dict[str, dict[Part, float]] = {}
    for part, slope in slopes.items():
        found.setdefault(part.block, {})[part] = slope
    return found
