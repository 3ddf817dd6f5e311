"""Tensors that wait for their siblings: a segment runs once all inputs of a frame are there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nodes.tier.machine.actions import Run
from nodes.tier.machine.events import TensorArrived
from pipeline.placement import Tier
from pipeline.wire import MARK_WINDOW, Array, FrameKey, Hop, Trace

FrameName = tuple[str, int, int, int]
"""Stream, epoch, sequence and tile."""
LIMIT_BYTES = 1 << 29
MOST_FRAMES = 4_096
"""Whose attempts are remembered."""
NEAR = 8
"""Attempts at a frame so close together follow from each other: a newer one makes an older one superfluous. Between
others nothing follows. A number out of nowhere so stops nothing.
"""
_TIER_ORDER = {tier.label: int(tier) for tier in Tier}


@dataclass(slots=True)
class _Join:
    inputs: dict[int, Array] = field(default_factory=dict)
    trace: Trace = ()
    decode_seconds: float = 0.0

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.inputs.values())


def merge(first: Trace, second: Trace) -> Trace:
    """Both ways' hops, each node once, in tier order (not by time stamps: the nodes' clocks differ)."""
    by_node: dict[str, Hop] = {hop.node: hop for hop in (*first, *second)}
    return tuple(sorted(by_node.values(), key=lambda hop: _TIER_ORDER.get(hop.tier, len(Tier))))


class Joins:
    """The waiting inputs of one node, at most `limit_bytes` of them.

    What is below its stream's low-water mark, or of an epoch let go, is forgotten. The mark is the one told last, not
    the highest: a device whose numbers were lost counts from 1 again, and a mark that was wrong is mended by the next.
    """

    def __init__(self, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._waiting: OrderedDict[tuple[FrameName, int], _Join] = OrderedDict()
        self._ran: OrderedDict[FrameName, tuple[int, ...]] = OrderedDict()
        self._low: dict[str, int] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, event: TensorArrived, needed: Sequence[int]) -> Run | None:
        """Take a tensor; returns what to run when it was the last one missing. Repeats and old attempts do nothing."""
        self._forget_closed(event.key)
        key, attempt = event.key, event.key.attempt
        frame = (key.stream, key.epoch, key.sequence, key.tile)
        if any(0 <= ran - attempt < NEAR for ran in self._ran.get(frame, ())):
            return None
        waiting = [other for name, other in self._waiting if name == frame]
        if any(0 < other - attempt < NEAR for other in waiting):
            return None
        for other in waiting:
            if 0 < attempt - other < NEAR:
                self._drop((frame, other))
        join = self._waiting.setdefault((frame, attempt), _Join())
        self._bytes += event.array.nbytes - (join.inputs[event.tensor].nbytes if event.tensor in join.inputs else 0)
        join.inputs[event.tensor] = event.array
        join.trace = merge(join.trace, event.trace)
        join.decode_seconds += event.decode_seconds
        if not join.inputs.keys() >= set(needed):
            self._make_room()
            return None
        self._drop((frame, attempt))
        self._remember(frame, attempt)
        return Run(key, join.inputs, join.trace, join.decode_seconds)

    def drop_epoch(self, stream: str, epoch: int) -> None:
        """Forget an epoch that was let go."""
        self._drop_where(lambda frame: frame[:2] == (stream, epoch))

    def validate(self) -> None:
        """Assert what always holds."""
        assert self._bytes == sum(join.nbytes for join in self._waiting.values())
        assert self._bytes <= self._limit_bytes or len(self._waiting) <= 1
        assert len(self._ran) <= MOST_FRAMES
        assert all(len(attempts) <= NEAR for attempts in self._ran.values())

    def _remember(self, frame: FrameName, attempt: int) -> None:
        self._ran[frame] = (*self._ran.pop(frame, ()), attempt)[-NEAR:]
        while len(self._ran) > MOST_FRAMES:
            self._ran.popitem(last=False)

    def _make_room(self) -> None:
        """The oldest goes first: its frame is submitted again."""
        while self._bytes > self._limit_bytes and len(self._waiting) > 1:
            self._drop(next(iter(self._waiting)))

    def _forget_closed(self, key: FrameKey) -> None:
        if key.oldest_open != self._low.get(key.stream):
            self._low[key.stream] = key.oldest_open
            self._drop_where(lambda frame: frame[0] == key.stream and is_closed(frame[2], key.oldest_open))

    def _drop_where(self, condition: Callable[[FrameName], bool]) -> None:
        for name in [name for name in self._waiting if condition(name[0])]:
            self._drop(name)
        for frame in [frame for frame in self._ran if condition(frame)]:
            del self._ran[frame]

    def _drop(self, name: tuple[FrameName, int]) -> None:
        self._bytes -= self._waiting.pop(name).nbytes


def is_closed(sequence: int, oldest_open: int) -> bool:
    """True when a low-water mark has the frame closed: it is below the mark, by at most MARK_WINDOW."""
    return 0 < oldest_open - sequence <= MARK_WINDOW
