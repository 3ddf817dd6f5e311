"""Transfers between nodes: the link of two through the broker, and a plan's legs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from nodes.protocol.messages import LinkReport
from pipeline.cost import Link, link_label
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan

UNMEASURED_BYTES_PER_S = 1e12
"""A tier without a node is no bottleneck: what passes it goes from the broker straight on."""


class Leg(NamedTuple):
    """What passes from one node of a plan to the next, or back: bytes, and seconds that these take to code."""

    name: str
    sender: NodeId
    receiver: NodeId
    nbytes: int
    coding_s: float


def legs_of(plan: Plan) -> Iterator[Leg]:
    """From each of a plan's nodes to the next and from the last to the device."""
    used = sorted({*plan.placement, Tier.DEVICE})
    for lower, upper in pairwise(used):
        cost = plan.predicted.links.get(link_label(lower))
        if cost is not None:
            ends = plan.nodes[lower], plan.nodes[upper]
            yield Leg(f"{lower.label}_{upper.label}", *ends, cost.nbytes, _coding_s(plan, lower, upper))
            if upper == used[-1]:
                yield Leg("return", plan.nodes[upper], plan.device, cost.result_nbytes, _result_coding_s(plan, upper))


def _coding_s(plan: Plan, lower: Tier, upper: Tier) -> float:
    """Encoding at one end and decoding at the other, over one link or both."""
    first, last = (plan.predicted.links.get(link_label(link)) for link in (lower, Tier(upper - 1)))
    return (first.encode_seconds if first else 0.0) + (last.decode_seconds if last else 0.0)


def _result_coding_s(plan: Plan, upper: Tier) -> float:
    """Encoding a tier's outputs there, and decoding them on the device."""
    cost = plan.predicted.links.get(link_label(Tier(upper - 1)))
    return cost.result_encode_seconds + cost.result_decode_seconds if cost else 0.0


def link_between(lower: LinkReport | None, upper: LinkReport | None) -> Link:
    """From one tier's node through the broker to the next one's: up, then down, and half of each echo.

    The broker forwards a message when it has all of it, so the two ways' seconds add up; where one is much slower, as
    links between machines are, it is nearly all of the sum.
    """
    rates = [r for r in (lower and lower.up_bytes_per_s, upper and upper.down_bytes_per_s) if r]
    latency_s = sum(report.round_trip_s / 2 for report in (lower, upper) if report)
    return Link(1.0 / sum(1.0 / rate for rate in rates) if rates else UNMEASURED_BYTES_PER_S, latency_s)
