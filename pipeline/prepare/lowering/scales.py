"""Layers that scale and shift: norms, rescaling, and scales of their own."""

from __future__ import annotations

import numpy as np

from pipeline.lite.program import ARRAY
from pipeline.prepare.flatten import Call
from pipeline.prepare.lowering.block_builder import (
    BlockBuilder,
    NoOperation,
    only_tensors,
    require_plain,
)
from pipeline.tensorflow_runtime import keras


def affine(block: BlockBuilder, call: Call) -> None:
    """A folded batch norm: scale, then shift."""
    layer, (given, output) = call.operation, only_tensors(call)
    block.floats(given)
    between = block.value(block.spec(given).shape)
    block.add("multiply", (given, ARRAY), between, arrays=(block.variable(layer.scale),))
    block.add("add", (between, ARRAY), output, arrays=(block.variable(layer.shift),))


def layer_norm(block: BlockBuilder, call: Call) -> None:
    """Layer norm over the last axis."""
    layer, (given, output) = call.operation, only_tensors(call)
    require_plain(layer)
    block.floats(given)
    last = len(block.spec(given).shape) - 1
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0] if len(layer.axis) == 1 else None
    if axis not in {-1, last} or getattr(layer, "rms_scaling", False):
        raise NoOperation("layer normalisation over other axes")
    found = [block.variable(one) if one is not None else None for one in (layer.gamma, layer.beta)]
    arrays = [one for one in found if one is not None]
    places = [None if one is None else arrays.index(one) for one in found]
    block.add("layer_norm", (given,), output, arrays=arrays, epsilon=float(layer.epsilon), arrays_at=places)


def normalization(block: BlockBuilder, call: Call) -> None:
    """Normalisation by the layer's mean and deviation."""
    layer, (given, output) = call.operation, only_tensors(call)
    block.floats(given)
    if layer.invert:
        raise NoOperation("inverse normalisation")
    deviation = np.maximum(np.sqrt(np.asarray(layer.variance)), np.float32(keras.config.epsilon()))
    between = block.value(block.spec(given).shape)
    block.add("subtract", (given, ARRAY), between, arrays=(block.constant(np.asarray(layer.mean)),))
    block.add("divide", (between, ARRAY), output, arrays=(block.constant(deviation),))


def rescaling(block: BlockBuilder, call: Call) -> None:
    """A scale and a shift, of integers too."""
    layer, (given, output) = call.operation, only_tensors(call)
    if layer.compute_dtype != "float32":
        raise NoOperation(layer.compute_dtype)
    shape = block.spec(given).shape
    if block.spec(given).dtype != "float32":
        whole = block.value(shape)
        block.add("cast", (given,), whole, dtype="float32")
        given = whole
    scale, offset = np.asarray(layer.scale, np.float32), np.asarray(layer.offset, np.float32)
    if not offset.any():
        block.add("multiply", (given, ARRAY), output, arrays=(block.constant(scale),))
        return
    between = block.value(shape)
    block.add("multiply", (given, ARRAY), between, arrays=(block.constant(scale),))
    block.add("add", (between, ARRAY), output, arrays=(block.constant(offset),))


def layer_scale(block: BlockBuilder, call: Call) -> None:
    """A scale per channel, as ConvNeXt's."""
    given, output = only_tensors(call)
    block.floats(given)
    block.add("multiply", (given, ARRAY), output, arrays=(block.variable(call.operation.gamma),))


def custom_scale(block: BlockBuilder, call: Call) -> None:
    """The first input plus the second one scaled, as Inception-ResNet's."""
    (first, second), (output,) = call.inputs, call.outputs
    block.floats(first, second)
    between = block.value(block.spec(second).shape)
    block.add("multiply", (second, ARRAY), between, arrays=(block.constant(call.operation.scale),))
    block.add("add", (first, between), output)
