"""Corrections: factors by which nodes compute a model slower or faster than profile or estimate foresaw. Pure.

One factor for each node and model, by which all its blocks' seconds are multiplied: blocks that were not measured move
with those that were. The planner prices with it, so the trap is that only nodes in use are ever measured. Frames of a
slow stream find cold caches and take 1.2 to 1.4 times the profile, which was measured warm; charged to the node in use
alone, that would drive its blocks to nodes that would be just as cold. Three rules stand against it:

- What all measured nodes share is not theirs: the value nearest to 1 in the range of their factors is charged to nodes
  that are not measured as well. A stream on one node cannot tell cold from loaded: up to `COLDNESS` it is taken for
  cold and charged to all; the further beyond, the less of it, and what is several times too slow is this node's alone.
- A factor stays until the smoothed one is a tenth off. So plans do not follow noise, and nothing is solved again for
it;
  the planner's margin then comes on top.
- The factor of a node that is not measured any more (its blocks went elsewhere) follows probes of its idle processor:
  by what they change, it has changed. Besides, it fades with each of its reports while others are measured, though not
  below what these share, so that it gets its blocks back some time after it was slow for a reason that no probe sees.
  Counted in reports: there is no clock in here. If it is found slow again, it fades half as fast the next time: a
  lasting load is not tried every minute.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.plan import NodeId

LEAST_SECONDS = 2e-4
"""Of a segment shorter than that, most is the call itself, which no profile knows."""
LEAST_REST_SECONDS = 1e-2
"""Likewise of what a coordinator does besides its tiles: it puts maps together there, which is no block's time."""
DEAD_BAND = 1.1
COLDNESS = 1.5
LARGEST = 100.0
WINDOWS, LEAST_WINDOWS = 5, 3
"""Reports whose median counts; before there are LEAST_WINDOWS the factor is 1."""
TURN, TURN_WINDOWS = 1.5, 2
"""TURN_WINDOWS reports in a row, beyond the smoothed one by TURN, are a change: earlier ones are forgotten."""
FADING = 0.95
"""The share that each report leaves of a factor that is not measured: half is gone after 14, nine tenths after 45."""
MOST_RELAPSES = 5
PROBE_TURN = 1.8
"""A smaller factor between probes has no meaning: on a processor that is shared out by the millisecond they vary by
1.5.
"""


@dataclass(slots=True)
class _Correction:
    """`basis` is what was foreseen, to be compared only; `used` follows `smoothed` in steps."""

    basis: object
    ratios: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOWS))
    smoothed: float = 1.0
    used: float = 1.0
    has_faded: bool = False
    relapses: int = 0
    probe_s: float | None = None

    @property
    def is_measured(self) -> bool:
        """True when enough of the node's newest reports are measured."""
        return len(self.ratios) >= LEAST_WINDOWS

    def learn(self, ratio: float) -> None:
        self.probe_s = None
        self.ratios.append(min(max(ratio, 1 / LARGEST), LARGEST))
        if self.is_measured:
            newest = sorted(list(self.ratios)[-TURN_WINDOWS:])
            if newest[0] > TURN * self.smoothed:
                self.ratios.extend([newest[0]] * WINDOWS)
            elif newest[-1] * TURN < self.smoothed:
                self.ratios.extend([newest[-1]] * WINDOWS)
            self.smoothed = statistics.median(self.ratios)
            self._follow()
            if self.has_faded:
                self.has_faded = False
                self.relapses = min(self.relapses + 1, MOST_RELAPSES) if self.smoothed > COLDNESS else 0

    def follow_probe(self, probe_s: float, least: float) -> None:
        """`smoothed` goes with the probe since the one that stood at its beginning, down to `least`."""
        changed = turned(probe_s, self.probe_s)
        if changed is not None:
            self.probe_s = probe_s
            self.smoothed = min(max(changed * self.smoothed, min(self.smoothed, least)), LARGEST)
            self._follow()

    def fade(self, common: float, shared: float) -> None:
        self.has_faded = True
        faded = common * (self.smoothed / common) ** (FADING ** (0.5**self.relapses))
        self.smoothed = max(faded, min(self.smoothed, shared))
        self._follow()
        if close(self.smoothed, common):
            self.used = common

    def _follow(self) -> None:
        found = 1.0 if close(self.smoothed, 1.0) else round(self.smoothed, 3)
        if not close(found, self.used):
            self.used = found


class Corrections:
    """By model and node. `common` is kept until a factor on which it rests changes."""

    def __init__(self) -> None:
        self._known: dict[str, dict[NodeId, _Correction]] = {}
        self._shared_by: dict[str, float | None] = {}

    def learn(self, node: NodeId, model: str, basis: object, ratio: float) -> None:
        """A report's measured seconds, divided by those foreseen; another basis than before begins again."""
        known = self._find(node, model)
        if known is None or known.basis != basis:
            known = self._known.setdefault(model, {})[node] = _Correction(basis)
        with self._watching(model, known):
            known.learn(ratio)

    def smoothed(self, node: NodeId, model: str, basis: object) -> float:
        """The smoothed factor, measured at present or not; 1 without any."""
        known = self._find(node, model)
        return known.smoothed if known and known.basis == basis else 1.0

    def forget(self, node: NodeId, model: str) -> None:
        """Forget the node's factor for the model, whose foreseen seconds have changed."""
        if self._known.get(model, {}).pop(node, None) is not None:
            self._shared_by.pop(model, None)

    def fade(self, node: NodeId, but: Collection[str], probe_s: float | None = None) -> None:
        """Fade factors of a node that reported, maybe with a probe's seconds, on all models `but` those
        measured now.
        """
        for model in self._known.keys() - set(but):
            known = self._find(node, model)
            if known is not None:
                with self._watching(model, known):
                    known.ratios.clear()
                with self._watching(model, known):
                    if probe_s is not None:
                        known.follow_probe(probe_s, self.common(model))
                    if (shared := self._shared(model)) is not None:
                        known.fade(self.common(model), shared)

    def common(self, model: str) -> float:
        """The factor charged to nodes that are not measured."""
        far = math.log(self._shared(model) or 1.0)
        cold = min(abs(far), max(0.0, 2 * math.log(COLDNESS) - abs(far)))
        return round(math.exp(math.copysign(cold, far)), 3)

    def factor_of(self, node: NodeId, model: str, basis: object) -> float:
        """The factor for the node's seconds if they rest on `basis`."""
        known, common = self._find(node, model), self.common(model)
        if known is None or known.basis != basis or not (known.is_measured or not close(known.used, common)):
            return common
        return known.used

    def _find(self, node: NodeId, model: str) -> _Correction | None:
        return self._known.get(model, {}).get(node)

    def _shared(self, model: str) -> float | None:
        if model not in self._shared_by:
            used = [known.used for known in self._known.get(model, {}).values() if known.is_measured]
            self._shared_by[model] = min(max(min(used), 1.0), max(used)) if used else None
        return self._shared_by[model]

    @contextmanager
    def _watching(self, model: str, known: _Correction) -> Iterator[None]:
        """What nodes share is found anew if this correction counts in it otherwise than before."""
        before = known.used, known.is_measured
        yield
        if (known.used, known.is_measured) != before:
            self._shared_by.pop(model, None)


def turned(probe_s: float, before_s: float | None) -> float | None:
    """The factor between a probe's seconds and the ones before, 1 for the first; None if it is no change."""
    changed = probe_s / (before_s or probe_s)
    return None if before_s is not None and 1 / PROBE_TURN < changed < PROBE_TURN else changed


def close(one: float, other: float) -> bool:
    """True when two factors are within the dead band of each other."""
    return abs(math.log(one / other)) <= math.log(DEAD_BAND)
