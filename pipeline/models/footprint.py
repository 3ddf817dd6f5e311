"""What a segment of a loaded model takes of memory, and whether there is room for one more.

Counted per segment are oneDNN's reordered copies of convolutions' kernels (that which is being reordered twice), two of
the largest activations, and what Keras and TensorFlow keep per block. Loads the framework only when it weighs a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.models.host_memory import require

if TYPE_CHECKING:
    from pipeline.prepare.flatten import Call
    from pipeline.prepare.model import PreparedModel

ACTIVATIONS_HELD = 2
"""Of the largest tensor: what a block reads and what it makes."""
BLOCK_BYTES = 300_000
"""Measured: what Keras's layers, the traced graph and oneDNN's kernels take beside weights, per block."""


def check_room(model: PreparedModel, blocks: Sequence[int], times: int = 1) -> None:
    """Raise TooLarge when one more segment of a loaded model, these blocks in order, would take more than there is.

    With `times`, when so many would.
    """
    over = f", {times} times over," if times > 1 else ""
    first = model.graph.blocks[blocks[0]].name
    what = f"{len(blocks)} blocks of model {model.graph.name!r} from {first!r} on{over} take"
    mend = "free some, or give the node's memory_mb, so that plans keep within it"
    require(times * segment_bytes(model, blocks), what, mend)


def segment_bytes(model: PreparedModel, blocks: Iterable[int]) -> int:
    """What one more segment of these blocks takes once it has run: oneDNN's copies, activations, TensorFlow's graph."""
    blocks = list(blocks)
    held = [model.graph.tensors[t].nbytes for b in blocks for t in model.graph.blocks[b].outputs]
    copies = reordering([call for block in blocks for call in model.calls[block]])
    return copies + ACTIVATIONS_HELD * max(held, default=0) + BLOCK_BYTES * len(blocks)


def reordering(calls: list[Call]) -> int:
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
    from pipeline.prepare.blocks import variables  # loads the framework

    return [variable for variable in variables(call) if len(variable.shape) > 1]


def nbytes_of(variable: Any) -> int:
    """Of a variable's value."""
    return int(math.prod(variable.shape)) * int(variable.value.dtype.size)
