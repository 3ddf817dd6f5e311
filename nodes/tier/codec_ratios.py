"""How far codecs shrink the tensors of frames that pass, for the planner to choose by.

The codec in use is seen with each frame; the others are tried now and then, within a hundredth of a thread's time.
"""

from __future__ import annotations

import time

import numpy as np

from nodes.tier.meter import Meter
from pipeline import codecs
from pipeline.codecs import NONE, Array
from pipeline.plan import StreamId

INTERVAL_S = 5.0
SHARE = 0.01
"""Of a thread's time, for all tensors that pass it."""


class CodecTrials:
    """Of one thread."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._due: dict[tuple[StreamId, int], float] = {}
        self._free_at = 0.0

    def sent(self, stream: StreamId, tensor: int, codec: str, ratio: float) -> None:
        """A frame's tensor was sent so many times smaller."""
        if codec != NONE:
            self._meter.ratio(stream, tensor, codec, ratio)

    def consider(self, stream: StreamId, tensor: int, array: Array) -> None:
        """Try all codecs on a tensor if that is due."""
        now = time.monotonic()
        if now < max(self._free_at, self._due.get((stream, tensor), 0.0)):
            return
        for codec, ratio in codecs.ratios(np.ascontiguousarray(array)).items():  # a tile may be a view
            self._meter.ratio(stream, tensor, codec, ratio)
        ended = time.monotonic()
        self._due[stream, tensor] = ended + INTERVAL_S
        self._free_at = ended + (ended - now) / SHARE
