"""A probe of the processor's free capacity: one small convolution, timed on an engine. Only ratios have a meaning."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from pipeline.engines.base import unsplit
from pipeline.lite.sketch import Layer, Sketch

if TYPE_CHECKING:
    from pipeline.engines import Engine

_SIDE, _CHANNELS = 56, 64
_NETWORK = Sketch("processor", (_SIDE, _SIDE, _CHANNELS), (Layer("convolution", "conv", ("image",), 3, _CHANNELS),))
_LEAST_S = 2e-2
"""Several turns of a scheduler that shares a core out by the millisecond: what fits into one says nothing."""
_WARM_UP = 3
_MOST_ROUNDS = 64


class ProcessorProbe:
    """Times as many convolutions as took some tens of milliseconds when it was made.

    For one thread at a time.
    """

    def __init__(self, engine: Engine) -> None:
        model = engine.sketched(_NETWORK)
        self._segment = unsplit(engine, model)
        self._given = {i: np.ones(model.graph.tensors[i].shape, np.float32) for i in model.graph.inputs}
        self._rounds = 1
        quickest_s = min(self.seconds() for _ in range(_WARM_UP))
        self._rounds = min(max(round(_LEAST_S / quickest_s), 1), _MOST_ROUNDS)

    def seconds(self) -> float:
        """Seconds of the convolutions now."""
        began = time.perf_counter()
        for _ in range(self._rounds):
            self._segment.run(self._given)
        return time.perf_counter() - began
