"""Drift: costs that have left the band around what a plan assumed. Pure.

D3's rule: a plan was made for certain times and bandwidths, and as long as each stays within a band around what was
assumed, nothing is decided again. So noise is not followed, nor is anything solved for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nodes.planner.costs.snapshot import NodeSnapshot
from pipeline.plan import NodeId

LEAST_ROUND_TRIP_S = 2e-3
"""A round trip that differs by less changes no plan, however short it is."""


def drift(node: NodeId, assumed: NodeSnapshot, now: NodeSnapshot, band: float) -> Iterator[str]:
    """Yield what has left its band, in words; `band` is a share of the assumed value."""
    if now is assumed:
        return
    if now.basis != assumed.basis:
        yield f"{node} has been measured again"
    elif _is_outside(now.slowness, assumed.slowness, band):
        yield f"{node} takes {now.slowness / assumed.slowness:.2f} times as long as assumed"
    elif _is_outside(now.input_slowness, assumed.input_slowness, band):
        yield f"{node} takes {now.input_slowness / assumed.input_slowness:.2f} times as long as assumed for inputs"
    was, is_ = assumed.available_link, now.available_link
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
        (assumed.overhead_s, now.overhead_s, "receive and send"),
        (assumed.frame_overhead_s, now.frame_overhead_s, "read a frame and answer it"),
        (assumed.gather_s, now.gather_s, "cut and gather tiles"),
    ):
        if _is_outside(new, old, band) and abs(new - old) > LEAST_ROUND_TRIP_S:
            yield f"{node} takes {new * 1e3:.3g} ms to {what}, not {old * 1e3:.3g}"


def _is_outside(new: float, old: float, band: float) -> bool:
    return abs(new - old) > band * old


def is_news(before: NodeSnapshot, now: NodeSnapshot, band: float) -> bool:
    """Whether streams may decide otherwise: what is learned comes in steps, what others take may go a quarter band."""
    if replace(now, utilisation=before.utilisation) != before:
        return True
    left = zip(_left(before), _left(now), strict=True)
    return any(_is_outside(new, old, band / 4) for old, new in left)


def is_nowhere_better(before: NodeSnapshot, now: NodeSnapshot, band: float) -> bool:
    """Whether no stream that does without the node has a reason to look at it again: a quarter band is none."""
    most, least = 1 + band / 4, 1 - band / 4
    was, is_ = before.available_link, now.available_link
    return (
        now.basis == before.basis
        and now.slowness >= least * before.slowness
        and now.input_slowness >= least * before.input_slowness
        and is_.up_bytes_per_s <= most * was.up_bytes_per_s
        and is_.down_bytes_per_s <= most * was.down_bytes_per_s
        and is_.round_trip_s >= least * was.round_trip_s
        and now.overhead_s >= least * before.overhead_s
        and now.frame_overhead_s >= least * before.frame_overhead_s
        and now.gather_s >= least * before.gather_s
    )


def _left(snapshot: NodeSnapshot) -> tuple[float, float, float]:
    taken = snapshot.utilisation
    return 1 - taken.compute, 1 - taken.up, 1 - taken.down
