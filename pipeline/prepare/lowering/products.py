"""Layers of weights over their inputs: convolutions and dense layers."""

from __future__ import annotations

from typing import Any

from pipeline.prepare.flatten import Call
from pipeline.prepare.lowering.block_builder import (
    BlockBuilder,
    NoOperation,
    only_tensors,
    require_plain,
)
from pipeline.prepare.lowering.maps import window_pads

_LARGE_BYTES = 1 << 24
_SLICES = 16
"""Parts that a large dense layer over one row is summed in: one long sum is 7 times less exact (VGG-16)."""


def _geometry(block: BlockBuilder, layer: Any, given: int) -> dict[str, Any]:
    dilation = tuple(layer.dilation_rate)
    if max(layer.strides) > 1 and max(dilation) > 1:
        raise NoOperation("strides and dilation")
    pads = window_pads(layer, block.spec(given).shape, layer.kernel_size, dilation)
    return {"stride": list(layer.strides), "dilation": list(dilation), "pads": pads, "window": block.window()}


def _bias(block: BlockBuilder, layer: Any, size: int) -> int:
    return block.variable(layer.bias) if layer.bias is not None else block.zeros(size)


def conv(block: BlockBuilder, call: Call) -> None:
    """A convolution, grouped or not; one group per channel is a depthwise one."""
    layer, (given, output) = call.operation, only_tensors(call)
    require_plain(layer)
    block.floats(given)
    channels, filters = block.spec(given).shape[3], layer.filters
    bias = _bias(block, layer, filters)
    if layer.groups == channels and channels > 1:
        kernel = block.variable(
            layer.kernel, "depthwise", lambda w: w.transpose(2, 0, 1, 3).reshape(1, *w.shape[:2], -1)
        )
        block.finish(layer, "depthwise", (given,), output, arrays=(kernel, bias), **_geometry(block, layer, given))
        return
    kernel = block.variable(layer.kernel, "conv", lambda w: w.transpose(3, 0, 1, 2))
    block.finish(layer, "conv", (given,), output, arrays=(kernel, bias), **_geometry(block, layer, given))


def _depthwise_kernel(block: BlockBuilder, variable: Any) -> int:
    return block.variable(variable, "depthwise", lambda w: w.reshape(1, *w.shape[:2], -1))


def depthwise(block: BlockBuilder, call: Call) -> None:
    """A depthwise convolution."""
    layer, (given, output) = call.operation, only_tensors(call)
    require_plain(layer)
    block.floats(given)
    channels = block.spec(given).shape[3] * layer.depth_multiplier
    arrays = _depthwise_kernel(block, layer.kernel), _bias(block, layer, channels)
    block.finish(layer, "depthwise", (given,), output, arrays=arrays, **_geometry(block, layer, given))


def separable(block: BlockBuilder, call: Call) -> None:
    """A depthwise convolution and one of 1 x 1 after it."""
    layer, (given, output) = call.operation, only_tensors(call)
    require_plain(layer)
    block.floats(given)
    channels = block.spec(given).shape[3] * layer.depth_multiplier
    between = block.value((*block.spec(output).shape[:3], channels))
    depthwise = _depthwise_kernel(block, layer.depthwise_kernel), block.zeros(channels)
    block.add("depthwise", (given,), between, arrays=depthwise, **_geometry(block, layer, given))
    pointwise = block.variable(layer.pointwise_kernel, "conv", lambda w: w.transpose(3, 0, 1, 2))
    block.finish(layer, "conv", (between,), output, arrays=(pointwise, _bias(block, layer, layer.filters)))


def dense(block: BlockBuilder, call: Call) -> None:
    """A dense layer over the last axis, in slices where it is large and over one row."""
    layer, (given, output) = call.operation, only_tensors(call)
    require_plain(layer)
    block.floats(given)
    shape = block.spec(given).shape
    inputs, units = (int(size) for size in layer.kernel.shape)
    bias = _bias(block, layer, units)
    is_large = shape == (1, inputs) and inputs * units * 4 >= _LARGE_BYTES and inputs % _SLICES == 0
    slices = _SLICES if is_large else 1
    step = inputs // slices
    weights = [
        block.variable(layer.kernel, f"dense {i}/{slices}", lambda w, i=i: w[i * step : (i + 1) * step].T)  # type: ignore[misc]
        for i in range(slices)
    ]
    block.finish(layer, "dense", (given,), output, arrays=(*weights, bias))
