"""Hash a network's answers to seeded frames: equal on two machines, their answers are."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from pipeline.engines.answers import frame
from pipeline.engines.base import Array, unsplit

if TYPE_CHECKING:
    from pipeline.engines.base import Engine, Loaded

FRAMES = 8


def fingerprint(engine: Engine, model: Loaded) -> str:
    """SHA-256, in hex, of all outputs of the unsplit network for eight seeded frames."""
    segment, found = unsplit(engine, model), hashlib.sha256()
    for seed in range(FRAMES):
        made = segment.run(frame(model.graph, seed))
        for output in model.graph.outputs:
            found.update(_plain(made[output]).tobytes())
    return found.hexdigest()


def _plain(array: Array) -> Array:
    """Little endian, and every NaN the same: processors set its sign differently."""
    array = array.astype(array.dtype.newbyteorder("<"))
    return np.where(np.isnan(array), np.nan, array).astype(array.dtype) if array.dtype.kind == "f" else array
