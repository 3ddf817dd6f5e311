"""The facts of a model, taken from the model itself: it is built, weighed and prepared."""

from __future__ import annotations

import math
from typing import Any

from pipeline.models.build import make
from pipeline.models.facts import ModelFacts, facts_of
from pipeline.models.load import finished
from pipeline.models.source import ModelSource
from pipeline.prepare.blocks import variables
from pipeline.prepare.flatten import Call
from pipeline.prepare.footprint import ACTIVATIONS_HELD, BLOCK_BYTES, nbytes_of, reordered_bytes

_PROCESS_BYTES = 30_000_000
"""Measured, likewise, in all: see `footprint.BLOCK_BYTES`."""


def measure(source: ModelSource) -> ModelFacts:
    """Load a model and describe it. Raises UnknownModel, NotFunctional, ModelError."""
    _, flat = make(source)
    before = _weights(flat.calls)
    parameters = sum(math.prod(v.shape) for v in before.values() if not v.name.startswith("moving_"))
    sizes = {key: nbytes_of(variable) for key, variable in before.items()}
    model = finished(flat)
    after = {key: nbytes_of(variable) for key, variable in _weights(flat.calls).items()}
    # what was folded and what it was folded into stand in memory side by side
    loading = sum({**sizes, **after}.values())
    activations = ACTIVATIONS_HELD * max(t.nbytes for t in model.graph.tensors)
    running = sum(after.values()) + reordered_bytes(flat.calls) + activations
    others = _PROCESS_BYTES + BLOCK_BYTES * len(model.graph)
    return facts_of(model.graph, parameters=parameters, memory_bytes=max(loading, running) + others)


def _weights(calls: list[Call]) -> dict[int, Any]:
    return {id(variable): variable for call in calls for variable in variables(call)}
