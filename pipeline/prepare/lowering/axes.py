"""What goes along axes: joining, reshaping, reductions, rows of a table."""

from __future__ import annotations

from pipeline.lite.program import ARRAY
from pipeline.prepare.flatten import Call
from pipeline.prepare.lowering.block_builder import (
    BlockBuilder,
    Lowerer,
    NoOperation,
    only_tensors,
    require_plain,
)


def concatenate(block: BlockBuilder, call: Call) -> None:
    """Tensors joined along an axis."""
    (output,) = call.outputs
    block.floats(*call.inputs)
    axis = call.operation.axis
    block.add("concat", call.inputs, output, axis=axis % len(block.spec(output).shape))


def reshape(block: BlockBuilder, call: Call) -> None:
    """Reshape and Flatten."""
    given, output = only_tensors(call)
    block.floats(given)
    block.add("reshape", (given,), output, shape=list(block.spec(output).shape))


def permute(block: BlockBuilder, call: Call) -> None:
    """Axes in another order."""
    given, output = only_tensors(call)
    block.floats(given)
    block.add("transpose", (given,), output, order=[0, *call.operation.dims])


def reduce(kind: str) -> Lowerer:
    """`kind` (mean, sum, max) over the operation's axes."""

    def lowered(block: BlockBuilder, call: Call) -> None:
        given, output = only_tensors(call)
        block.floats(given, output)
        count, axis = len(block.spec(given).shape), call.operation.axis
        axes = range(count) if axis is None else axis if isinstance(axis, list | tuple) else [axis]
        block.add(kind, (given,), output, axes=sorted(one % count for one in axes), keep=bool(call.operation.keepdims))

    return lowered


def embedding(block: BlockBuilder, call: Call) -> None:
    """Rows of a table, one for each integer."""
    layer, (given, output) = call.operation, only_tensors(call)
    require_plain(layer)
    if block.spec(given).dtype not in {"int32", "int64"}:
        raise NoOperation("embedding of floats")
    block.add("gather", (given, ARRAY), output, arrays=(block.variable(layer.embeddings),))
