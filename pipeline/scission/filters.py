"""Filters of placements, each a small value, and the parser of Scission's notation for them.

Given for a tier, comma-separated: a number n (layer n runs there), !n (it does not), -1 (the tier is unused), !-1 (it
is used), a name (the tier is used, with that system; several names: with one of them), !name (the tier is used, with
another system). Numbers are layers always, as Scission has it; @2500 is the system called 2500.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import PlanError
from pipeline.placement import Tier
from pipeline.scission.candidates import Candidates, Flags
from pipeline.scission.system import MOST_BYTES, MOST_SECONDS, bounded

MEGABYTE = 1e6
UNUSED = -1
_FORMS = "give a layer (3), !3, -1 for unused, !-1 for used, a system's name or !name"
_ROUNDING = 1e-9
"""A sum of floats may exceed its limit by this share of it."""


@dataclass(frozen=True)
class Filter:
    """One filter, as it was given. Its subclasses say which placements it allows."""

    tier: Tier
    text: str

    def allows(self, found: Candidates) -> Flags:
        """Mask of the placements that it allows, broadcastable to the candidates' shape."""
        raise NotImplementedError

    def check(self, names: Sequence[str], last_layer: int) -> None:
        """Raise PlanError for a layer or system that is not there; `names` are the tier's systems."""

    def note(self, names: Sequence[str]) -> str | None:
        """A warning that the user may have meant something else, or None."""
        return None


@dataclass(frozen=True)
class OnLayer(Filter):
    """A layer runs on the tier, or does not; layer -1 stands for an unused tier."""

    layer: int
    wanted: bool

    def allows(self, found: Candidates) -> Flags:
        """Mask of placements whose layers on the tier include it, or do not; an unused tier has layers -1 to -1."""
        inside: Flags = (found.first[self.tier] <= self.layer) & (self.layer <= found.last[self.tier])
        return inside if self.wanted else ~inside

    def check(self, names: Sequence[str], last_layer: int) -> None:
        """Raise PlanError for a layer beyond the last one.

        Not for a negated one that is a system's name: it may be meant so, and then it excludes nothing.
        """
        if self.layer <= last_layer or (str(self.layer) in names and not self.wanted):
            return
        raise PlanError(f"{self.text}: no layer {self.layer}: they are 0 to {last_layer}" + self._meant(names))

    def note(self, names: Sequence[str]) -> str | None:
        """A warning if a system's name is the layer's number, else None."""
        return f"{self.text} is read as layer {self.layer}" + self._meant(names) if str(self.layer) in names else None

    def _meant(self, names: Sequence[str]) -> str:
        sign = "" if self.wanted else "!"
        return f"; the system of that name is {sign}@{self.layer}" if str(self.layer) in names else ""


@dataclass(frozen=True)
class OnSystems(Filter):
    """The tier is used: with one of these systems, or with none of them."""

    names: tuple[str, ...]
    wanted: bool

    def allows(self, found: Candidates) -> Flags:
        """Mask of placements that use the tier with such a system."""
        systems = found.systems[self.tier]
        fitting = [system is not None and (system.name in self.names) == self.wanted for system in systems]
        return found.along(self.tier, fitting) & found.uses(self.tier)

    def check(self, names: Sequence[str], last_layer: int) -> None:
        """Raise PlanError unless each name is a system with a profile of the model."""
        for name in self.names:
            if name not in names:
                known = f"known: {', '.join(names)}" if names else "none has a profile of this model"
                raise PlanError(f"{self.text}: no {self.tier.label} system {name!r}: {known}; {_FORMS}")


@dataclass(frozen=True)
class Upload(Filter):
    """At most `nbytes` bytes go up from the tier, which is device or edge."""

    nbytes: float

    def allows(self, found: Candidates) -> Flags:
        """Mask of placements that send no more."""
        return found.sent[self.tier] <= self.nbytes * (1 + _ROUNDING)


@dataclass(frozen=True)
class Seconds(Filter):
    """The tier computes for at most `seconds`."""

    seconds: float

    def allows(self, found: Candidates) -> Flags:
        """Mask of placements in which the tier takes no longer, with a tolerance for rounding in sums of many
        blocks.
        """
        slack = _ROUNDING * np.maximum(self.seconds, found.computing)
        return found.stages[self.tier] <= self.seconds + slack


@dataclass(frozen=True)
class Share(Filter):
    """The tier takes at most this share (0 to 1) of the seconds that all tiers compute; links do not count."""

    share: float

    def allows(self, found: Candidates) -> Flags:
        """Mask of placements in which the tier takes no more."""
        return found.stages[self.tier] <= (self.share + _ROUNDING) * found.computing


def tier_filters(tier: Tier, given: Sequence[str]) -> tuple[Filter, ...]:
    """Parse a tier's filters: each text a comma-separated list, several like one long list. Raises PlanError."""
    filters: list[Filter] = []
    names: list[str] = []
    for word in (word.strip() for text in given for word in text.split(",")):
        text = f"--{tier.label} {word}"
        body = word.removeprefix("!")
        wanted = body == word
        if re.fullmatch(r"\d{1,9}|-1", body, re.ASCII):
            filters.append(OnLayer(tier, text, int(body), wanted))
        elif not body.removeprefix("@") or re.match(r"[-+!]", body):
            raise PlanError(f"--{tier.label} {word!r} is no filter; {_FORMS}")
        elif wanted:
            names.append(body.removeprefix("@"))
        else:
            filters.append(OnSystems(tier, text, (body.removeprefix("@"),), wanted=False))
    if names:
        filters.append(OnSystems(tier, f"--{tier.label} {','.join(names)}", tuple(names), wanted=True))
    return tuple(filters)


def upload_filter(tier: Tier, megabytes: float) -> Filter:
    """Limit the megabytes that the tier (device or edge) sends up. Raises PlanError."""
    text = f"--{tier.label}-upload {megabytes:g}"
    try:
        return Upload(tier, text, bounded(megabytes, 0, MOST_BYTES / MEGABYTE) * MEGABYTE)
    except ValueError as error:
        raise PlanError(f"{text}: {error}; give megabytes, such as 0.5") from None


def time_filter(tier: Tier, limit: str) -> Filter:
    """Limit the tier's computing: seconds (0.5), or a share (30%) of all tiers'. Raises PlanError."""
    text = f"--{tier.label}-time {limit}"
    number = limit.strip().removesuffix("%")
    is_share = number != limit.strip()
    try:
        value = bounded(float(number), 0, 100 if is_share else MOST_SECONDS)
    except ValueError:
        raise PlanError(f"{text}: give seconds, such as 0.5, or a share from 0% to 100%, such as 30%") from None
    return Share(tier, text, value / 100) if is_share else Seconds(tier, text, value)
