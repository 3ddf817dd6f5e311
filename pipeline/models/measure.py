"""The facts of a model, taken from the model itself: it is built, weighed and prepared."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pipeline.models.build import make
from pipeline.models.facts import ModelFacts, facts_of
from pipeline.models.source import ModelSource
from pipeline.prepare.blocks import variables
from pipeline.prepare.flatten import Call
from pipeline.prepare.model import PreparedModel, prepared_from

_ACTIVATIONS_HELD = 2
"""Of the largest tensor: what a block reads and what it makes."""
_PROCESS_BYTES = 30_000_000
_BLOCK_BYTES = 300_000
"""Measured: what Keras's layers, the traced graph and oneDNN's kernels take beside weights: in all, and per block."""


def measure(source: ModelSource) -> ModelFacts:
    """Load a model and describe it. Raises UnknownModel, NotFunctional, ModelError."""
    _, flat = make(source)
    before = _weights(flat.calls)
    parameters = sum(math.prod(v.shape) for v in before.values() if not v.name.startswith("moving_"))
    sizes = {key: _nbytes(variable) for key, variable in before.items()}
    model = prepared_from(flat)
    after = {key: _nbytes(variable) for key, variable in _weights(flat.calls).items()}
    # what was folded and what it was folded into stand in memory side by side
    loading = sum({**sizes, **after}.values())
    running = (
        sum(after.values()) + _reordering(flat.calls) + _ACTIVATIONS_HELD * max(t.nbytes for t in model.graph.tensors)
    )
    others = _PROCESS_BYTES + _BLOCK_BYTES * len(model.graph)
    return facts_of(model.graph, parameters=parameters, memory_bytes=max(loading, running) + others)


def segment_bytes(model: PreparedModel, blocks: Iterable[int]) -> int:
    """What one more segment of these blocks takes once it has run: oneDNN's copies, activations, TensorFlow's graph."""
    blocks = list(blocks)
    held = [model.graph.tensors[t].nbytes for b in blocks for t in model.graph.blocks[b].outputs]
    copies = _reordering([call for block in blocks for call in model.calls[block]])
    return copies + _ACTIVATIONS_HELD * max(held, default=0) + _BLOCK_BYTES * len(blocks)


def _reordering(calls: list[Call]) -> int:
    """At the peak of a first run: oneDNN's copies of the weights so far, and once more that which is being copied."""
    held = peak = 0
    for call in calls:
        for kernel in _reordered(call):
            held += _nbytes(kernel)
            peak = max(peak, held + _nbytes(kernel))
    return peak


def _reordered(call: Call) -> list[Any]:
    """The weights that oneDNN brings into its own order, see `set_up`. Small dense layers, too, are left out."""
    kind = type(call.operation).__name__
    if "Transpose" in kind or not kind.startswith(("Conv", "DepthwiseConv", "SeparableConv")):
        return []
    return [variable for variable in variables(call) if len(variable.shape) > 1]


def _weights(calls: list[Call]) -> dict[int, Any]:
    return {id(variable): variable for call in calls for variable in variables(call)}


def _nbytes(variable: Any) -> int:
    return int(math.prod(variable.shape)) * int(variable.value.dtype.size)
