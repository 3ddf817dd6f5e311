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
from typing import NamedTuple, TypeAlias

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

Slopes: TypeAlias = dict[str, dict[int, float]]
"""By block and place, how the logarithm of a sum grows with each part; of all others it is 0."""

MEAN_DIFFERENCE = math.sqrt(math.pi) / 2
"""Standard deviation of a normal distribution by the mean absolute difference of two from it (von Neumann and others
1941; Rice 1984).
"""
_FURTHEST = math.log(FURTHEST)
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
    """Parts by place, with the moment in seconds for which `mean` and `covariance` hold, and when each was measured.

    Lists, not arrays: of the handful of parts that a block has, an array's calls would take most of the time.
    """

    at: float
    places: dict[str, int] = field(default_factory=dict)
    mean: list[float] = field(default_factory=list)
    covariance: list[list[float]] = field(default_factory=list)
    measured_at: list[float] = field(default_factory=list)
    priors: list[Prior] = field(default_factory=list)
    jumps: dict[str, float] = field(default_factory=dict)
    """Variances of those that changes touch."""

    def place(self, name: str, prior: Prior) -> int:
        if name not in self.places:
            self.places[name] = len(self.places)
            self.mean.append(prior.mean)
            self.priors.append(prior)
            if prior.jump:
                self.jumps[name] = prior.jump**2
            self.measured_at.append(self.at)
            for row in self.covariance:
                row.append(0.0)
            self.covariance.append([*([0.0] * len(self.covariance)), prior.deviation**2])
        return self.places[name]

    def renew(self, place: int, variance: float) -> None:
        """Make a part as uncertain as that, whatever was learned together with others."""
        for row in self.covariance:
            row[place] = 0.0
        self.covariance[place] = [0.0] * len(self.mean)
        self.covariance[place][place] = variance

    def advance(self, now: float) -> None:
        """Let time pass, in steps of LEAST_S: what nodes share is measured many times a second."""
        if now < self.at + LEAST_S:
            return
        passed = math.exp((self.at - now) / DRIFT_S)
        kept = [passed if prior.varies else 1.0 for prior in self.priors]
        for place, prior in enumerate(self.priors):
            quiet_s = now - max(self.measured_at[place] + QUIET_S, self.at)
            if prior.varies and quiet_s > 0:
                left = math.exp(-quiet_s / DRIFT_S)
                self.mean[place] = prior.mean + left * (self.mean[place] - prior.mean)
            by = kept[place]
            row = self.covariance[place] = [by * k * c for k, c in zip(kept, self.covariance[place], strict=True)]
            row[place] += (1 - by * by) * prior.deviation**2
        self.at = now

    def learn(self, gain: Sequence[float], spread: float) -> None:
        """Take a measurement's share out of what is uncertain; `gain` is the covariance with what was measured."""
        for place, own in enumerate(gain):
            if own:
                share, row = own / spread, self.covariance[place]
                self.covariance[place] = [c - share * g for c, g in zip(row, gain, strict=True)]

    def gain(self, slope: Mapping[int, float]) -> list[float]:
        """Covariance of each part with the sum of some, by their slopes."""
        (first, by), *others = slope.items()
        if not others:
            return [by * row[first] for row in self.covariance]
        return [by * row[first] + sum([b * row[place] for place, b in others]) for row in self.covariance]


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
        known = block.priors[place]
        if (known.mean, known.deviation) != (prior.mean, prior.deviation):
            block.priors[place] = known._replace(mean=prior.mean, deviation=prior.deviation)
            block.mean[place] = prior.mean
            block.renew(place, prior.deviation**2)

    def forget(self, part: Part) -> None:
        """Begin again with the part's prior."""
        self._revise(part.block)
        block = self._blocks.get(part.block)
        if block is not None and part.name in block.places:
            place = block.places[part.name]
            block.mean[place] = block.priors[place].mean
            block.renew(place, block.priors[place].deviation ** 2)

    def validate(self) -> None:
        """Assert what always holds."""
        for name, block in self._blocks.items():
            assert all(map(math.isfinite, block.mean)), f"{name}: {block.mean}"
            far = (abs(mean - prior.mean) for mean, prior in zip(block.mean, block.priors, strict=True))
            assert all(each <= _FURTHEST + 1e-6 for each in far), f"{name}: {block.mean}"
            assert all(row[place] >= 0 for place, row in enumerate(block.covariance)), f"{name}: {block.covariance}"

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
            name, what = part
            block = self._blocks.get(name)
            place = block.places.get(what) if block is not None else None
            total += block.mean[place] if block is not None and place is not None else self._prior(part).mean
        return math.exp(total)

    def seconds(self, terms: Iterable[Term]) -> float:
        """Sum of the terms."""
        return sum([term.amount * self.factor(*term.parts) for term in terms])

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
                along = {block.places[part.name]: own[part] for part in known}
                total += _along(along, block.gain(along))
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
        bound = CLIP * math.sqrt(self._spread(slopes, self._gains(slopes)) + usual**2)
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
            elif not is_jump and block.priors[place].varies and not part.block.startswith(SHARED):
                block.renew(place, block.priors[place].deviation ** 2)

    def _update(self, terms: Sequence[Term], target: float, noise: float, expected: float, slopes: Slopes) -> None:
        """Iterated update: the logarithm of the terms' sum, `expected`, was measured as `target`.

        Blocks that are not in `slopes` stay as they are.
        """
        first = {name: list(self._blocks[name].mean) for name in slopes}
        for step_number in range(MOST_STEPS):
            if step_number:
                expected, slopes = self._linear(terms, first)
            gains = self._gains(slopes)
            spread = noise**2 + self._spread(slopes, gains)
            moved = 0.0
            for name, slope in slopes.items():
                means, before = self._blocks[name].mean, first[name]
                moved += sum([by * (means[place] - before[place]) for place, by in slope.items()])
            left = (target - math.log(expected) + moved) / spread
            largest = max([self._step(name, gain, left, first[name]) for name, gain in gains.items()], default=0.0)
            if largest < MOST_STEP / 100 or (len(terms) == 1 and largest < MOST_STEP):
                break  # the logarithm of one term is linear: there was no more to it
        for name, gain in gains.items():
            self._blocks[name].learn(gain, spread)

    def _step(self, name: str, gain: Sequence[float], left: float, first: Sequence[float]) -> float:
        """Move a block's parts from where they were `first` by their share of what is `left`; returns the longest step
        of one of them.
        """
        block, largest = self._blocks[name], 0.0
        means, priors = block.mean, block.priors
        for place, own in enumerate(gain):
            mean, middle = means[place], priors[place].mean
            step = first[place] + left * own - mean
            if not step:
                continue
            if abs(step) > MOST_STEP:
                step = math.copysign(MOST_STEP, step)
            moved = mean + step
            if abs(moved - middle) > _FURTHEST:
                moved = middle + math.copysign(_FURTHEST, moved - middle)
            means[place] = moved
            largest = max(largest, abs(step))
        return largest

    def _linear(self, terms: Sequence[Term], blocks: Container[str] | None = None) -> tuple[float, Slopes]:
        """The terms' sum, and by block, of these only, how its logarithm grows with each part."""
        seconds = [term.amount * self.factor(*term.parts) for term in terms]
        total = max(sum(seconds), LEAST_SECONDS)
        slopes: Slopes = {}
        for term, took_s in zip(terms, seconds, strict=True):
            share = took_s / total
            for name, part in term.parts:
                if blocks is not None and name not in blocks:
                    continue
                place = self._blocks[name].places[part]
                if name not in slopes:
                    slopes[name] = {place: share}
                else:
                    slopes[name][place] = slopes[name].get(place, 0.0) + share
        return total, slopes

    def _gains(self, slopes: Slopes) -> dict[str, list[float]]:
        return {name: self._blocks[name].gain(slope) for name, slope in slopes.items()}

    def _spread(self, slopes: Slopes, gains: Mapping[str, Sequence[float]]) -> float:
        return sum([_along(slope, gains[name]) for name, slope in slopes.items()])

    def _prior(self, part: Part) -> Prior:
        return self._priors[part.name.partition(":")[0]]


def _along(slope: Mapping[int, float], gain: Sequence[float]) -> float:
    """Variance of the sum of some parts, by their slopes and all parts' covariance with it."""
    return sum([by * gain[place] for place, by in slope.items()])


def _by_block(slopes: Mapping[Part, float]) -> dict[str, dict[Part, float]]:
    found: dict[str, dict[Part, float]] = {}
    for part, slope in slopes.items():
        found.setdefault(part.block, {})[part] = slope
    return found
