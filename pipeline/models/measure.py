"""The facts of a model, taken from the model itself: it is built, weighed and prepared."""

from __future__ import annotations

import math
from typing import Any

from pipeline.blocks import variables
from pipeline.flatten import Call
from pipeline.models.build import make
from pipeline.models.facts import ModelFacts, facts_of
from pipeline.models.source import ModelSource
from pipeline.prepared import prepared_from

_ACTIVATIONS_HELD = 2
"""Of the largest tensor: what a block reads and what it makes."""


def measure(source: ModelSource) -> ModelFacts:
    """Load a model and describe it. Raises UnknownModel, NotFunctional, ModelError."""
    _, flat = make(source)
    before = _weights(flat.calls)
    parameters = sum(math.prod(v.shape) for v in before.values() if not v.name.startswith("moving_"))
    sizes = {key: _nbytes(variable) for key, variable in before.items()}
    model = prepared_from(flat)
    after = _weights([call for block in model.calls for call in block])
    # what was folded and what it was folded into stand in memory side by side
    sizes.update({key: _nbytes(variable) for key, variable in after.items()})
    activations = _ACTIVATIONS_HELD * max(tensor.nbytes for tensor in model.graph.tensors)
    return facts_of(model.graph, parameters=parameters, load_bytes=sum(sizes.values()) + activations)


def _weights(calls: list[Call]) -> dict[int, Any]:
    return {id(variable): variable for call in calls for variable in variables(call)}


def _nbytes(variable: Any) -> int:
    return int(math.prod(variable.shape)) * int(variable.value.dtype.size)
