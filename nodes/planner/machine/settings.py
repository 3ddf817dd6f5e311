"""The planner's settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from nodes.planner.machine.equality import Equality

GAIN, BAND = "gain", "band"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerSettings:
    """A new plan must be better by `margin` (a share), `min_seconds_between_plans` after the last one.

    Nothing is decided before `settle_s` after each connect: by then all that is retained is in, but not what nodes have
    to say at a connect of their own, as after a restart of the broker. A living node that has not prepared its part of
    a plan `prepare_timeout_s` after it could is treated like one that refuses, and one from which nothing has come for
    `lost_after_s` like one that is lost, until it speaks again. `band` is the share by which a time or a rate may
    differ from what the present plan assumed without being reason to think again. By the `rule` of a GAIN, a plan must
    be better with 95 % probability as well, or be one that may be tried; D3's BAND asks for the margin only.
    """

    margin: float = 0.1
    min_seconds_between_plans: float = 5.0
    settle_s: float = 1.0
    prepare_timeout_s: float = 120.0
    lost_after_s: float = 4.0
    band: float = 0.2
    rule: str = GAIN
    equality: Equality = field(default_factory=Equality)
