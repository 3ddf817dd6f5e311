"""Memory that a segment of a prepared model takes in TensorFlow beside its weights.

Counted are oneDNN's reordered copies of convolutions' kernels (that which is being reordered twice), two of the largest
activations, and what Keras and TensorFlow keep per block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pipeline.prepare.blocks import variables
from pipeline.prepare.flatten import Call

ACTIVATIONS_HELD = 2
"""Of the largest tensor: what a block reads and what it makes."""
BLOCK_BYTES = 300_000
"""Measured: what Keras's layers, the traced graph and oneDNN's kernels take beside weights, per block."""


def reordered_bytes(calls: Sequence[Call]) -> int:
    """At the peak of a first run: oneDNN's copies of the weights so far, and once more that which is being copied."""
    held = peak = 0
    for call in calls:
        for kernel in _reordered(call):
            held += nbytes_of(kernel)
            peak = max(peak, held + nbytes_of(kernel))
    return peak


def _reordered(call: Call) -> list[Any]:
    """The weights that oneDNN brings into its own order, see `set_up`. Small dense layers, too, are left out."""
    kind = type(call.operation).__name__
    if "Transpose" in kind or not kind.startswith(("Conv", "DepthwiseConv", "SeparableConv")):
        return []
    return [variable for variable in variables(call) if len(variable.shape) > 1]


def nbytes_of(variable: Any) -> int:
    """Bytes of a variable's value."""
    return int(math.prod(variable.shape)) * int(variable.value.dtype.size)
