"""The cost model: what a placement takes, per stage and link. All planners and every printed price use it.

Source: D3's serial sum, with a tensor sent once to however many readers it has. The broker stands at the edge, so what
goes from device to cloud pays both links.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from pipeline.errors import PlanError
from pipeline.graph import ModelGraph
from pipeline.placement import Tier, crossings

LINKS = (Tier.DEVICE, Tier.EDGE)
"""A link is named by its lower tier."""


def link_label(lower: Tier) -> str:
    """`device_edge` or `edge_cloud`."""
    return f"{lower.label}_{Tier(lower + 1).label}"


@dataclass(frozen=True, slots=True)
class Link:
    """One way between neighbouring tiers: bytes per second, and seconds of latency one way."""

    bandwidth_bytes_per_s: float
    latency_s: float

    def __post_init__(self) -> None:
        if not (self.bandwidth_bytes_per_s > 0 and math.isfinite(self.latency_s) and self.latency_s >= 0):
            raise PlanError(
                f"a link needs a bandwidth above 0 and a latency of at least 0, not "
                f"{self.bandwidth_bytes_per_s} bytes/s and {self.latency_s} s; measure it again"
            )


@dataclass(frozen=True, slots=True)
class Costs:
    """What a planner knows: `seconds[tier][block]` for the tiers that have a node, and both links.

    `prices` are money per second of a tier's node at work, 0 where none is given.
    """

    seconds: Mapping[Tier, Sequence[float]]
    device_edge: Link
    edge_cloud: Link
    prices: Mapping[Tier, float] = field(default_factory=lambda: MappingProxyType({}))

    def check(self, graph: ModelGraph) -> None:
        """Raise PlanError unless there is a finite, non-negative time for each block of each tier with a node."""
        if Tier.DEVICE not in self.seconds:
            raise PlanError("no costs for the device: it is where frames enter")
        for tier, seconds in self.seconds.items():
            if len(seconds) != len(graph):
                raise PlanError(
                    f"{len(seconds)} block times on the {tier.label} for {len(graph)} blocks; profile again"
                )
            for block, value in zip(graph.blocks, seconds, strict=True):
                if not (math.isfinite(value) and value >= 0):
                    raise PlanError(f"block {block.name!r} takes {value} s on the {tier.label}; profile again")
        for tier, price in self.prices.items():
            if not (math.isfinite(price) and price >= 0):
                raise PlanError(f"a second on the {tier.label} costs {price}; give a price of at least 0")

    def link(self, lower: Tier) -> Link:
        """The link from `lower` to the next tier."""
        return self.device_edge if lower == Tier.DEVICE else self.edge_cloud


@dataclass(frozen=True, slots=True)
class LinkCost:
    """Tensors going up a link and the result coming down it: seconds and bytes of both.

    `busy_seconds` are those in which the link is taken and no other frame's bytes can pass: all but its latency.
    """

    seconds: float
    nbytes: int
    result_nbytes: int
    busy_seconds: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a placement takes: seconds of each stage by tier label, each link by `device_edge`/`edge_cloud`.

    `seconds` is the latency of one frame, `price` what it costs in money.
    """

    seconds: float
    stages: Mapping[str, float]
    links: Mapping[str, LinkCost]
    price: float = 0.0

    @property
    def period_s(self) -> float:
        """Seconds between the frames of a stream at full load: those of its busiest stage or link."""
        busy = (link.busy_seconds for link in self.links.values())
        return max([*self.stages.values(), *busy], default=0.0)

    @property
    def backbone_nbytes(self) -> int:
        """Bytes of one frame between edge and cloud, its result's included."""
        link = self.links.get(link_label(Tier.EDGE))
        return link.nbytes + link.result_nbytes if link else 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Prediction:
        """Read it back; raises KeyError, TypeError or ValueError for anything else."""
        prediction = cls(
            seconds=float(value["seconds"]),
            stages={str(k): float(v) for k, v in value["stages"].items()},
            links={
                str(k): LinkCost(
                    float(v["seconds"]), int(v["nbytes"]), int(v["result_nbytes"]), float(v["busy_seconds"])
                )
                for k, v in value["links"].items()
            },
            price=float(value["price"]),
        )
        of_links = (number for link in prediction.links.values() for number in (link.seconds, link.busy_seconds))
        numbers = (prediction.seconds, prediction.price, *prediction.stages.values(), *of_links)
        if not all(map(math.isfinite, numbers)):
            raise ValueError("a predicted time or price is not finite")
        return prediction


def predict(graph: ModelGraph, placement: Sequence[Tier], costs: Costs) -> Prediction:
    """Latency of one frame under `placement`, in seconds, with its parts.

    Raises PlanError when the placement uses a tier that `costs` has no node for.
    """
    stages: dict[str, float] = {}
    for block, tier in zip(graph.blocks, placement, strict=True):
        if tier not in costs.seconds:
            raise PlanError(f"block {block.name!r} is placed on the {tier.label}, which has no node")
        stages[tier.label] = stages.get(tier.label, 0.0) + costs.seconds[tier][block.index]
    links = {}
    for lower in LINKS:
        cost = _link_cost(graph, placement, costs, lower)
        if cost is not None:
            links[link_label(lower)] = cost
    total = sum(stages.values()) + sum(cost.seconds for cost in links.values())
    price = sum(costs.prices.get(tier, 0.0) * stages.get(tier.label, 0.0) for tier in Tier)
    return Prediction(total, stages, links, price)


def critical_path_s(graph: ModelGraph, placement: Sequence[Tier], costs: Costs) -> float:
    """Seconds until the last output is made if whatever does not wait for another could run at once.

    A lower bound for how branches may overlap: each tensor crosses on its own, and the answer's way back is not in it.
    """
    done = [0.0] * len(graph)
    for block in graph.blocks:
        tier, ready = placement[block.index], 0.0
        for tensor in block.inputs:
            producer = graph.producer[tensor]
            arrives = done[producer]
            for lower in LINKS:
                if placement[producer] <= lower < tier:
                    link = costs.link(lower)
                    arrives += graph.tensors[tensor].nbytes / link.bandwidth_bytes_per_s + link.latency_s
            ready = max(ready, arrives)
        done[block.index] = ready + costs.seconds[tier][block.index]
    return max(done[graph.producer[tensor]] for tensor in graph.outputs)


def _link_cost(graph: ModelGraph, placement: Sequence[Tier], costs: Costs, lower: Tier) -> LinkCost | None:
    if max(placement) <= lower:
        return None
    link = costs.link(lower)
    nbytes = sum(graph.tensors[c.tensor].nbytes for c in crossings(graph, placement) if c.crosses(lower))
    returning = [t for t in set(graph.outputs) if placement[graph.producer[t]] > lower]
    result_nbytes = sum(graph.tensors[t].nbytes for t in returning)
    busy = (nbytes + result_nbytes) / link.bandwidth_bytes_per_s
    return LinkCost(busy + link.latency_s * (2 if returning else 1), nbytes, result_nbytes, busy)
