"""A node's compiled segments: each set of blocks is compiled once, and goes with the last epoch that it runs.

Compiling takes a slow device seconds, beside frames that wait. So where there is memory a stream's last plan but one
stays compiled, since plans return when lines and nodes recover; and a device has whole networks standing by, which it
takes over when these fail. A segment may have its weights once more, in its engine's own order, so no more are kept.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nodes.protocol.work import Work
from pipeline.models.host_memory import TooLarge, check_room
from pipeline.placement import Stage, Tier, stages
from pipeline.tiles.tiling import Part

if TYPE_CHECKING:
    from pipeline.engines import Engine, Loaded, Segment

SegmentKey = tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class SegmentStore:
    """Segments by epoch. `hold` may take seconds; `segment_of` may be called meanwhile, from another thread.

    With `keeps_replaced`, what a stream's last epoch ran is kept while it has another, and there is memory.
    """

    def __init__(self, engine: Engine, models: Mapping[str, Loaded], *, keeps_replaced: bool = False) -> None:
        self._engine = engine
        self._models = models
        self._keeps_replaced = keeps_replaced
        self._replaced: dict[str, set[SegmentKey]] = {}
        self._compiled: dict[SegmentKey, Segment] = {}
        self._held: dict[tuple[str, int], dict[Work, SegmentKey]] = {}
        self._standing_by: set[SegmentKey] = set()
        self._lock = threading.Lock()

    def hold(self, stream: str, epoch: int, model: str, stage: Stage | Part, work: Work = Work.STAGE) -> None:
        """Have the segment of a stage, or of a part of one, ready for this epoch.

        Raises TooLarge when there is not enough memory for it, and what the engine raises.
        """
        key, segment = self._segment(model, stage)
        with self._lock:
            self._compiled[key] = segment
            self._held.setdefault((stream, epoch), {})[work] = key

    def stand_by(self, model: str) -> None:
        """Have the whole network ready as one segment from now on, for whichever epoch comes to run it.

        Raises TooLarge when that would leave less memory than another one needs, and what the engine raises.
        """
        graph = self._models[model].graph
        (whole,) = stages(graph, (Tier.DEVICE,) * len(graph))
        key, segment = self._segment(model, whole, room_for=2)
        with self._lock:
            self._compiled[key] = segment
            self._standing_by.add(key)

    def _segment(self, model: str, stage: Stage | Part, room_for: int = 1) -> tuple[SegmentKey, Segment]:
        prepared = self._models[model]
        # on the device a frame's input is given to the segment; elsewhere it is given what crossed
        inputs = prepared.graph.inputs if 0 in stage.blocks else stage.inputs
        key = (model, stage.blocks, inputs, stage.outputs)
        segment = self._compiled.get(key)
        if segment is None:
            if self._replaced and not _has_room(prepared, stage.blocks, room_for):
                self._replaced.clear()
                self._free_unused()
            check_room(prepared, stage.blocks, times=room_for)
            segment = self._engine.compile(prepared, stage.blocks, inputs, stage.outputs)
        return key, segment

    def segment_of(self, stream: str, epoch: int, work: Work = Work.STAGE) -> Segment | None:
        """The epoch's segment for this work, None when it is not held."""
        with self._lock:
            key = self._held.get((stream, epoch), {}).get(work)
            return self._compiled[key] if key else None

    def release(self, stream: str, epoch: int) -> None:
        """Let the epoch go, and what neither another epoch runs nor is kept."""
        with self._lock:
            released = set(self._held.pop((stream, epoch), {}).values())
        if self._keeps_replaced and any(other == stream for other, _ in self._held):
            keys = {key for key in released if _has_room(self._models[key[0]], key[1])}
            if keys:
                self._replaced[stream] = keys
        elif released:
            self._replaced.pop(stream, None)
        self._free_unused()

    def _free_unused(self) -> None:
        with self._lock:
            used = self._standing_by.union(*self._replaced.values(), *(held.values() for held in self._held.values()))
            unused = [self._compiled.pop(key) for key in set(self._compiled) - used]
        del unused  # its memory is freed here, where nobody waits for the lock


def _has_room(model: Loaded, blocks: Sequence[int], times: int = 1) -> bool:
    try:
        check_room(model, blocks, times)
    except TooLarge:
        return False
    return True
