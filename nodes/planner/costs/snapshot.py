"""What a plan rests on, node by node, and when that is no longer so. Pure.

D3's rule: a plan was made for certain times and bandwidths, and as long as each stays within a band around what was
assumed, nothing is decided anew. So noise is not followed, nor is anything solved for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from nodes.planner.costs.compute_seconds import Basis
from nodes.protocol.messages import LinkReport
from pipeline.plan import NodeId

LEAST_ROUND_TRIP_S = 2e-3
"""A round trip that differs by less changes no plan, however short it is."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Shares, from 0 to below 1, of a node's processor and of its ways to and from the broker that others have."""

    compute: float = 0.0
    up: float = 0.0
    down: float = 0.0


@dataclass(frozen=True, slots=True)
class Condition:
    """All that a node's part in a stream's costs follows from; `factor` is telemetry's on what `basis` foresees,
    `handling_s` what a frame takes the node to receive and to send; of a worker, what a tile's way there and back takes
    beside its bytes. `intake_s` is what it takes the stream's device to read a frame and to answer it.
    """

    basis: Basis
    factor: float
    link: LinkReport
    taken: Taken = Taken()
    handling_s: float = 0.0
    intake_s: float = 0.0

    @property
    def slowness(self) -> float:
        """What to multiply foreseen seconds with: what others take of a shared processor is missing for this stream."""
        return self.factor / (1 - self.taken.compute)

    @property
    def way(self) -> LinkReport:
        """What is left of the node's way to the broker and back."""
        return replace(
            self.link,
            up_bytes_per_s=self.link.up_bytes_per_s * (1 - self.taken.up),
            down_bytes_per_s=self.link.down_bytes_per_s * (1 - self.taken.down),
        )


def departures(node: NodeId, assumed: Condition, now: Condition, band: float) -> Iterator[str]:
    """What has left its band, in words; `band` is a share of the assumed value."""
    if now.basis != assumed.basis:
        yield f"{node} has been measured anew"
    elif _is_outside(now.slowness, assumed.slowness, band):
        yield f"{node} takes {now.slowness / assumed.slowness:.2f} times as long as assumed"
    was, is_ = assumed.way, now.way
    for old, new, where in (
        (was.up_bytes_per_s, is_.up_bytes_per_s, "to the broker"),
        (was.down_bytes_per_s, is_.down_bytes_per_s, "from the broker"),
    ):
        if _is_outside(new, old, band):
            yield f"{node} has {new / 1e6:.3g} MB/s {where}, not {old / 1e6:.3g}"
    old, new = was.round_trip_s, is_.round_trip_s
    if _is_outside(new, old, band) and abs(new - old) > LEAST_ROUND_TRIP_S:
        yield f"{node} has a round trip of {new * 1e3:.3g} ms, not {old * 1e3:.3g}"
    for old, new, what in (
        (assumed.handling_s, now.handling_s, "receive and send"),
        (assumed.intake_s, now.intake_s, "read a frame and answer it"),
    ):
        if _is_outside(new, old, band) and abs(new - old) > LEAST_ROUND_TRIP_S:
            yield f"{node} takes {new * 1e3:.3g} ms to {what}, not {old * 1e3:.3g}"


def _is_outside(new: float, old: float, band: float) -> bool:
    return abs(new - old) > band * old
