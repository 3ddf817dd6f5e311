"""Utilisation of shared nodes: streams' measured frames per second, times the predicted cost of each frame.

A stream is planned with what the others leave. A processor of which a share is taken works for one more stream as if it
were that much slower, which holds exactly for a shared one and roughly for one that serves frames in turn.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nodes.planner.costs.snapshot import Utilisation
from nodes.protocol.messages import LinkReport
from pipeline.cost import LinkCost, link_label
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan, StreamId

MOST = 0.9
"""A stream that takes all it can get still leaves something to one that comes."""
WINDOWS = 5
STALE_S = 15.0


@dataclass(slots=True)
class _Rate:
    counted_at: float
    windows: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOWS))


class Rates:
    """Frames per second of each stream, as its device reports how many it computed."""

    def __init__(self) -> None:
        self._known: dict[StreamId, _Rate] = {}

    def counted(self, stream: StreamId, frames: int, now: float) -> None:
        """Count `frames` since the last call; the first call only starts the clock."""
        known = self._known.get(stream)
        if known is None or now - known.counted_at > STALE_S:
            self._known[stream] = _Rate(now)
        elif now > known.counted_at:
            known.windows.append(frames / (now - known.counted_at))
            known.counted_at = now

    def rate_of(self, stream: StreamId, now: float) -> float:
        """The median of the last windows; 0 when nothing has been said for a while."""
        known = self._known.get(stream)
        if known is None or not known.windows or now - known.counted_at > STALE_S:
            return 0.0
        return statistics.median(known.windows)


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """A stream under its plan: frames per second, and the seconds that one takes of each stage, unshared and without
    tiles.
    """

    plan: Plan
    rate_hz: float
    seconds: Mapping[Tier, float]


def utilisation_of(node: NodeId, link: LinkReport, stream_loads: Iterable[StreamLoad]) -> Utilisation:
    """Shares of the node's processor and link that these streams use."""
    compute = up = down = 0.0
    for stream_load in stream_loads:
        for tile in stream_load.plan.predicted.tiles.tiles if stream_load.plan.predicted.tiles else ():
            if tile.worker == node:
                compute += stream_load.rate_hz * tile.compute_seconds
                up += stream_load.rate_hz * tile.result_nbytes / link.up_bytes_per_s
                down += stream_load.rate_hz * tile.nbytes / link.down_bytes_per_s
        tier = stream_load.plan.tier_of(node)
        if tier is None:
            continue
        sent, received = _bytes(stream_load.plan, tier)
        compute += stream_load.rate_hz * stream_load.seconds.get(tier, 0.0)
        up += stream_load.rate_hz * sent / link.up_bytes_per_s
        down += stream_load.rate_hz * received / link.down_bytes_per_s
    return Utilisation(*(round(min(share, MOST), 3) for share in (compute, up, down)))


def _bytes(plan: Plan, tier: Tier) -> tuple[int, int]:
    """Bytes that the tier's node sends and receives per frame: its cuts' tensors and, from the last tier, results."""
    nothing = LinkCost(0.0, 0, 0, 0.0)
    above = plan.predicted.links.get(link_label(tier), nothing) if tier is not Tier.CLOUD else nothing
    below = plan.predicted.links.get(link_label(Tier(tier - 1)), nothing) if tier is not Tier.DEVICE else nothing
    is_last = tier is max(plan.nodes)
    sent = above.nbytes + (below.result_nbytes if is_last else 0)
    received = below.nbytes + (above.result_nbytes if tier is Tier.DEVICE else 0)
    return sent, received
