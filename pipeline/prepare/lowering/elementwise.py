"""Functions of elements: activations, arithmetic of two tensors, merging layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.lite.program import ARRAY
from pipeline.prepare.flatten import Call
from pipeline.prepare.lowering.block_builder import (
    Array,
    BlockBuilder,
    Lowerer,
    NoOperation,
    activation_of,
    only_tensors,
)


def merge(kind: str, *, mean: bool = False) -> Lowerer:
    """A layer that folds its inputs by `kind` from left to right; `mean` divides by their number."""

    def lowered(block: BlockBuilder, call: Call) -> None:
        (output,), inputs = call.outputs, call.inputs
        block.floats(*inputs)
        rest, made = inputs[1:], inputs[0]
        if not rest:
            raise NoOperation("one input")
        for number, following in enumerate(rest, start=1):
            is_last = number == len(rest) and not mean
            shape = np.broadcast_shapes(block.spec(made).shape, block.spec(following).shape)
            after = output if is_last else block.value(shape)
            block.add(kind, (made, following), after)
            made = after
        if mean:
            block.add("divide", (made, ARRAY), output, arrays=(block.constant(float(len(inputs))),))

    return lowered


def activation(block: BlockBuilder, call: Call) -> None:
    """A layer that is an activation by its name."""
    given, output = only_tensors(call)
    block.floats(given)
    name = activation_of(call.operation.activation)
    if not name:
        raise NoOperation("nothing to do")
    block.activate(name, given, output)


def relu(block: BlockBuilder, call: Call) -> None:
    """ReLU, ReLU6, leaky or clipped; not clipped and leaky at once."""
    layer, (given, output) = call.operation, only_tensors(call)
    block.floats(given)
    if layer.threshold or (layer.negative_slope and layer.max_value is not None):
        raise NoOperation("a bent ReLU")
    if layer.negative_slope:
        block.add("leaky_relu", (given,), output, slope=float(layer.negative_slope))
    elif layer.max_value is None or layer.max_value == 6:  # noqa: PLR2004
        block.activate("relu" if layer.max_value is None else "relu6", given, output)
    else:
        block.add("clip", (given,), output, low=0.0, high=float(layer.max_value))


def leaky_relu(block: BlockBuilder, call: Call) -> None:
    """Leaky ReLU with a slope that is a number."""
    given, output = only_tensors(call)
    block.floats(given)
    slope = getattr(call.operation, "negative_slope", None)
    if not isinstance(slope, float | int):
        raise NoOperation("a slope that is no number")
    block.add("leaky_relu", (given,), output, slope=float(slope))


def elu(block: BlockBuilder, call: Call) -> None:
    """ELU with an alpha of 1."""
    given, output = only_tensors(call)
    block.floats(given)
    if float(call.operation.alpha) != 1.0:
        raise NoOperation("ELU of another alpha")
    block.add("elu", (given,), output)


def prelu(block: BlockBuilder, call: Call) -> None:
    """PReLU with its slopes as an array."""
    given, output = only_tensors(call)
    block.floats(given)
    block.add("prelu", (given, ARRAY), output, arrays=(block.variable(call.operation.alpha),))


def softmax(block: BlockBuilder, call: Call) -> None:
    """Softmax along the last axis."""
    given, output = only_tensors(call)
    block.floats(given)
    if call.operation.axis not in {-1, len(block.spec(given).shape) - 1}:
        raise NoOperation("softmax over another axis")
    block.add("softmax", (given,), output)


def unary(kind: str) -> Lowerer:
    """A function `kind` of each element."""

    def lowered(block: BlockBuilder, call: Call) -> None:
        given, output = only_tensors(call)
        block.floats(given, output)
        block.activate(kind, given, output)

    return lowered


def gelu(block: BlockBuilder, call: Call) -> None:
    """GELU, exact or by tanh."""
    given, output = only_tensors(call)
    block.floats(given)
    block.add("gelu_tanh" if call.operation.approximate else "gelu", (given,), output)


def binary(kind: str) -> Lowerer:
    """Arithmetic `kind` of two tensors, or of a tensor and a number."""

    def lowered(block: BlockBuilder, call: Call) -> None:
        (output,) = call.outputs
        block.floats(*call.inputs, output)
        operands = [*call.args, *call.kwargs.values()]
        if len(operands) != 2:  # noqa: PLR2004
            raise NoOperation("not two operands")
        inputs, arrays = [], []
        for operand in operands:
            if hasattr(operand, "id") and operand.id in call.inputs:
                inputs.append(operand.id)
            else:
                inputs.append(ARRAY)
                arrays.append(block.constant(_number(operand)))
        block.add(kind, inputs, output, arrays=arrays)

    return lowered


def _number(operand: Any) -> Array:
    try:
        array = np.asarray(operand)
    except (TypeError, ValueError):
        raise NoOperation("an operand that is no number") from None
    if array.dtype.kind not in "fiu":
        raise NoOperation("an operand that is no number")
    return array
