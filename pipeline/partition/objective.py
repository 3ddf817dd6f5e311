"""Objectives: one number for a placement's costs, so that unlike costs can be weighed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

from pipeline.coding import LEAST_LATENCY, CodingWorth
from pipeline.cost import Costs, Prediction
from pipeline.errors import PlanError
from pipeline.placement import Tier

MEGABYTE = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The weights of a sum; its value is what the weights are in.

    `latency` per second from a frame's arrival to its answer, `period` per second between frames at full load (the
    busiest stage or link), `backbone` per megabyte between edge and cloud, `price` per unit of money, `energy` per
    joule that a frame adds to what the nodes draw when idle. So `Objective(latency=1, backbone=0.05)` is in seconds,
    and says that a megabyte saved is worth 50 ms. Raises PlanError unless one weight is above 0 and none below.
    """

    latency: float = 0.0
    period: float = 0.0
    backbone: float = 0.0
    price: float = 0.0
    energy: float = 0.0

    def __post_init__(self) -> None:
        weights = asdict(self)
        wrong = [
            f"{name}={weight:g}" for name, weight in weights.items() if not (math.isfinite(weight) and weight >= 0)
        ]
        if wrong or not any(weights.values()):
            given = f"not {', '.join(wrong)}" if wrong else "and here all are 0"
            raise PlanError(f"an objective's weights are finite and at least 0, one of them above, {given}")

    def value(self, prediction: Prediction) -> float:
        """The weighted sum to minimise, in the weights' unit."""
        return float(
            self.latency * prediction.seconds
            + self.period * prediction.period_s
            + self.backbone * prediction.backbone_nbytes / MEGABYTE
            + self.price * prediction.price
            + self.energy * prediction.joules
        )

    def per_second(self, costs: Costs, tier: Tier) -> float:
        """The worth of a second in which a tier's node computes for the frame, but for the period."""
        return self.latency + self.price * costs.prices.get(tier, 0.0) + self.energy * costs.draw(tier).watts

    def judging(self, costs: Costs) -> Costs:
        """The same costs with codecs chosen for this objective.

        Seconds, bytes, money and joules add up, so the codecs are the best for every placement. The period is the
        largest of several sums: for it each tensor gets the codec with which it is itself least of a bottleneck.
        """
        return costs if costs.worth == self.coding_worth else replace(costs, worth=self.coding_worth)

    @property
    def coding_worth(self) -> CodingWorth:
        """The weights by which codecs are chosen."""
        return CodingWorth(self.latency or LEAST_LATENCY, self.period, self.backbone / MEGABYTE, self.energy)

    def text(self, value: float) -> str:
        """A frame's value with its unit, if it has a plain one."""
        if self in (LATENCY, THROUGHPUT):
            return f"{value * 1e3:.1f} ms"
        return f"{value:.4g}" + {"backbone": " MB", "price": "", "energy": " J"}.get(str(self), f" ({self})")

    def phrase(self, value: float) -> str:
        """A frame's value in words: a period is not called a frame's seconds, which are its latency."""
        return f"a period of {self.text(value)}" if self == THROUGHPUT else f"{self.text(value)} a frame"

    def __str__(self) -> str:
        named = next((name for name, objective in NAMED.items() if objective == self), None)
        return named or ",".join(f"{name}={weight:g}" for name, weight in asdict(self).items() if weight)


LATENCY = Objective(latency=1.0)
THROUGHPUT = Objective(period=1.0)
NAMED: Mapping[str, Objective] = MappingProxyType(
    {
        "latency": LATENCY,
        "throughput": THROUGHPUT,
        "backbone": Objective(backbone=1.0),
        "price": Objective(price=1.0),
        "energy": Objective(energy=1.0),
    }
)


def parse(text: str) -> Objective:
    """Read `latency`, `throughput`, `backbone`, `price`, `energy`, or weights such as `latency=1,backbone=0.05`.

    Raises PlanError.
    """
    if text in NAMED:
        return NAMED[text]
    weights = {}
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        try:
            weight = float(number) if equals and name in Objective.__slots__ else None
        except ValueError:
            weight = None
        if weight is None or name in weights:
            raise PlanError(
                f"objective {text!r}: {part.strip()!r} is neither {', '.join(NAMED)} nor a weight (once each) such as "
                f"latency=1 of {', '.join(Objective.__slots__)}"
            )
        weights[name] = weight
    return Objective(**weights)
