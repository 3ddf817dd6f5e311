"""Utilisation of shared nodes: streams' measured frames per second, times the predicted cost of each frame.

A stream is planned with what the others leave. A processor of which a share is taken works for one more stream as if it
were that much slower, which holds exactly for a shared one and roughly for one that serves frames in turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

from nodes.planner.costs.snapshot import NodeSnapshot, Utilisation
from nodes.protocol.messages import LinkReport
from pipeline.cost import LinkCost, link_label
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan, StreamId

MOST = 0.9
"""A stream that takes all it can get still leaves something to one that comes."""
SPAN_S = 5.0
"""Frames are counted over so long at least: reports that were held up come at once, and none of them says a rate."""
LEAST_S = 1.0
"""Before so long, what was counted says no more than that it is not more."""
STALE_S = 15.0


class Rates:
    """Frames per second of each stream, as its device reports how many it computed."""

    def __init__(self) -> None:
        self._counts: dict[StreamId, deque[tuple[float, int]]] = {}
        """Moments of reports with the frames since the one before; those of the first are not counted."""

    def counted(self, stream: StreamId, frames: int, now: float) -> None:
        """Count `frames` since the last call; the first call only starts the clock."""
        counts = self._counts.get(stream)
        if counts is None or now - counts[-1][0] > STALE_S:
            counts = self._counts[stream] = deque()
        counts.append((now, frames))
        while len(counts) > 1 and now - counts[1][0] >= SPAN_S:
            counts.popleft()

    def rate_of(self, stream: StreamId, now: float) -> float:
        """Frames over the seconds in which they were counted; 0 when nothing has been said for a while."""
        counts = self._counts.get(stream)
        if counts is None or counts[-1][0] == counts[0][0] or now - counts[-1][0] > STALE_S:
            return 0.0
        seconds = max(counts[-1][0] - counts[0][0], LEAST_S)
        return (sum(frames for _, frames in counts) - counts[0][1]) / seconds


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """A stream under its plan: frames per second, and the seconds that one takes of each stage, unshared and without
    tiles.
    """

    plan: Plan
    rate_hz: float
    seconds: Mapping[Tier, float]


@dataclass(frozen=True, slots=True)
class _Share:
    """What one stream takes of one node: seconds of its processor, bytes sent and received, each per second."""

    compute: float = 0.0
    sent: float = 0.0
    received: float = 0.0

    def plus(self, other: _Share, sign: float = 1.0) -> _Share:
        return _Share(
            self.compute + sign * other.compute, self.sent + sign * other.sent, self.received + sign * other.received
        )

    def utilisation(self, link: LinkReport) -> Utilisation:
        shares = (self.compute, self.sent / link.up_bytes_per_s, self.received / link.down_bytes_per_s)
        return Utilisation(*(round(min(max(share, 0.0), MOST), 3) for share in shares))


_NOTHING = _Share()


class Loads:
    """What all streams together take of each node, kept as running sums: a stream's change costs its own nodes only."""

    def __init__(self) -> None:
        self._streams: dict[StreamId, dict[NodeId, _Share]] = {}
        self._totals: dict[NodeId, _Share] = {}
        self._known: dict[tuple[NodeId, str], tuple[NodeSnapshot, _Share, NodeSnapshot]] = {}
        """What was learned, what all streams take, and both together."""

    def take(self, stream: StreamId, load: StreamLoad | None) -> set[NodeId]:
        """Take a stream's load in place of its last one, None for none; returns the nodes on which it is or was."""
        before, now = self._streams.pop(stream, {}), _shares(load) if load is not None else {}
        if now:
            self._streams[stream] = now
        for node in before.keys() | now.keys():
            total = self._totals.get(node, _Share()).plus(before.get(node, _Share()), -1.0)
            self._totals[node] = total.plus(now.get(node, _Share()))
        for node in before.keys() - now.keys():
            if not any(node in shares for shares in self._streams.values()):
                del self._totals[node]  # no rest of rounding stays behind
        return before.keys() | now.keys()

    def left_by_others(
        self, node: NodeId, model: str, learned: NodeSnapshot, but: StreamId | None = None
    ) -> NodeSnapshot:
        """The node, by what was `learned` of it for a model, with what all streams `but` one take of it.

        Streams that take nothing of it get the same object until something changes.
        """
        total, own = self._totals.get(node, _NOTHING), None
        if but is not None:
            own = self._streams.get(but, {}).get(node)
        known = self._known.get((node, model))
        if own is None and known is not None and known[0] is learned and known[1] is total:
            return known[2]
        taken = (total if own is None else total.plus(own, -1.0)).utilisation(learned.link)
        found = learned if taken == learned.utilisation else replace(learned, utilisation=taken)
        if own is None:
            self._known[node, model] = learned, total, found
        return found

    def forget(self, node: NodeId) -> None:
        """Drop what is kept of a node that is gone."""
        self._known = {key: known for key, known in self._known.items() if key[0] != node}


def _shares(load: StreamLoad) -> dict[NodeId, _Share]:
    found: dict[NodeId, _Share] = {}
    for tile in load.plan.predicted.tiles.tiles if load.plan.predicted.tiles else ():
        worker = NodeId(tile.worker)
        taken = _Share(*(load.rate_hz * each for each in (tile.compute_seconds, tile.result_nbytes, tile.nbytes)))
        found[worker] = found.get(worker, _Share()).plus(taken)
    for tier, node in load.plan.nodes.items():
        sent, received = _bytes(load.plan, tier)
        taken = _Share(*(load.rate_hz * each for each in (load.seconds.get(tier, 0.0), sent, received)))
        found[node] = found.get(node, _Share()).plus(taken)
    return found


def _bytes(plan: Plan, tier: Tier) -> tuple[int, int]:
    """Bytes that the tier's node sends and receives per frame: its cuts' tensors and, from the last tier, results."""
    nothing = LinkCost(0.0, 0, 0, 0.0)
    above = plan.predicted.links.get(link_label(tier), nothing) if tier is not Tier.CLOUD else nothing
    below = plan.predicted.links.get(link_label(Tier(tier - 1)), nothing) if tier is not Tier.DEVICE else nothing
    is_last = tier is max(plan.nodes)
    sent = above.nbytes + (below.result_nbytes if is_last else 0)
    received = below.nbytes + (above.result_nbytes if tier is Tier.DEVICE else 0)
    return sent, received
