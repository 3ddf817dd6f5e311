"""Tensors that wait for their siblings: a segment runs once all inputs of a frame are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nodes.tier.machine.actions import Run
from nodes.tier.machine.events import TensorArrived
from pipeline.placement import Tier
from pipeline.wire import Array, FrameKey, Hop, Trace

JoinKey = tuple[str, int, int, int]
"""Stream, epoch, sequence and tile."""
_TIER_ORDER = {tier.label: int(tier) for tier in Tier}


@dataclass(slots=True)
class _Join:
    attempt: int
    inputs: dict[int, Array] = field(default_factory=dict)
    trace: Trace = ()
    decode_seconds: float = 0.0


def merge(first: Trace, second: Trace) -> Trace:
    """Both ways' hops, each node once, in tier order (not by time stamps: the nodes' clocks differ)."""
    by_node: dict[str, Hop] = {hop.node: hop for hop in (*first, *second)}
    return tuple(sorted(by_node.values(), key=lambda hop: _TIER_ORDER.get(hop.tier, len(Tier))))


class Joins:
    """The waiting inputs of one node; what is below a stream's low-water mark, or of an epoch let go, is forgotten."""

    def __init__(self) -> None:
        self._waiting: dict[JoinKey, _Join] = {}
        self._ran: dict[JoinKey, int] = {}
        self._low: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, event: TensorArrived, needed: Sequence[int]) -> Run | None:
        """Take a tensor; returns what to run when it was the last one missing. Repeats and old attempts do nothing."""
        self._forget_closed(event.key)
        key = (event.key.stream, event.key.epoch, event.key.sequence, event.key.tile)
        if event.key.attempt <= self._ran.get(key, 0):
            return None
        join = self._waiting.get(key)
        if join is None or join.attempt < event.key.attempt:
            join = self._waiting[key] = _Join(event.key.attempt)
        if join.attempt > event.key.attempt:
            return None
        join.inputs[event.tensor] = event.array
        join.trace = merge(join.trace, event.trace)
        join.decode_seconds += event.decode_seconds
        if not join.inputs.keys() >= set(needed):
            return None
        del self._waiting[key]
        self._ran[key] = event.key.attempt
        return Run(event.key, join.inputs, join.trace, join.decode_seconds)

    def drop_epoch(self, stream: str, epoch: int) -> None:
        """Forget an epoch that was let go."""
        for table in (self._waiting, self._ran):
            for key in [key for key in table if key[:2] == (stream, epoch)]:
                del table[key]

    def _forget_closed(self, frame: FrameKey) -> None:
        if frame.oldest_open <= self._low.get(frame.stream, -1):
            return
        self._low[frame.stream] = frame.oldest_open
        for table in (self._waiting, self._ran):
            for key in [key for key in table if key[0] == frame.stream and key[2] < frame.oldest_open]:
                del table[key]
