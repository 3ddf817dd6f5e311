"""Hash a network's answers to seeded frames: equal on two machines, their answers are."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from pipeline.engines.answers import frame
from pipeline.engines.base import Array, unsplit

if TYPE_CHECKING:
    from pipeline.engines.base import Engine, Loaded, Segment

FRAMES = 8


def fingerprint(engine: Engine, model: Loaded, frames: int = FRAMES) -> str:
    """SHA-256, in hex, of all outputs of the unsplit network for `frames` seeded frames."""
    segment, found = _whole(engine, model), hashlib.sha256()
    for seed in range(frames):
        made = segment.run(frame(model.graph, seed))
        for output in model.graph.outputs:
            found.update(_plain(made[output]).tobytes())
    return found.hexdigest()


def _whole(engine: Engine, model: Loaded) -> Segment:
    """Compile the whole network, without a first run on zeros if the engine can: in an emulator a run takes minutes."""
    if engine.name != "litert":
        return unsplit(engine, model)
    from pipeline.engines.litert import LiteRTEngine

    assert isinstance(engine, LiteRTEngine)
    graph = model.graph
    return engine.assemble(model, range(len(graph)), graph.inputs, tuple(dict.fromkeys(graph.outputs)))


def _plain(array: Array) -> Array:
    """Make an array little endian and its NaNs equal: processors set their signs differently."""
    array = array.astype(array.dtype.newbyteorder("<"))
    return np.where(np.isnan(array), np.nan, array).astype(array.dtype) if array.dtype.kind == "f" else array
