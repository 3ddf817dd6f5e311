"""Layers over maps without weights: pooling, padding, cropping, upsampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.prepare.flatten import Call
from pipeline.prepare.lowering.block_builder import (
    BlockBuilder,
    Lowerer,
    NoOperation,
    only_tensors,
    require_plain,
)


def window_pads(layer: Any, shape: Sequence[int], kernel: Sequence[int], dilation: Sequence[int]) -> list[list[int]]:
    """Rows and columns [before, after] of a window over `shape`: none for valid, else as SAME has them."""
    if layer.padding == "valid":
        return [[0, 0], [0, 0]]
    if layer.padding != "same":
        raise NoOperation(layer.padding)
    found = []
    for size, stride, taps, step in zip(shape[1:3], layer.strides, kernel, dilation, strict=True):
        missing = max(0, (-(-size // stride) - 1) * stride + step * (taps - 1) + 1 - size)
        found.append([missing // 2, missing - missing // 2])
    return found


def pool(kind: str) -> Lowerer:
    """Max or average pooling."""

    def lowered(block: BlockBuilder, call: Call) -> None:
        layer, (given, output) = call.operation, only_tensors(call)
        require_plain(layer)
        block.floats(given)
        pads = window_pads(layer, block.spec(given).shape, layer.pool_size, (1, 1))
        options = {"size": list(layer.pool_size), "stride": list(layer.strides), "pads": pads}
        block.add(kind, (given,), output, window=block.window(), **options)

    return lowered


def global_pool(kind: str, axes: Sequence[int]) -> Lowerer:
    """`kind` over all places of a map."""

    def lowered(block: BlockBuilder, call: Call) -> None:
        layer, (given, output) = call.operation, only_tensors(call)
        require_plain(layer)
        block.floats(given)
        block.add(kind, (given,), output, axes=list(axes), keep=bool(layer.keepdims))

    return lowered


def zero_padding(block: BlockBuilder, call: Call) -> None:
    """Zeros around a map."""
    layer, (given, output) = call.operation, only_tensors(call)
    require_plain(layer)
    block.floats(given)
    block.add("pad", (given,), output, window=block.window(), pads=[list(pad) for pad in layer.padding])


def cropping(block: BlockBuilder, call: Call) -> None:
    """Rows and columns cut off a map."""
    layer, (given, output) = call.operation, only_tensors(call)
    require_plain(layer)
    rows, columns = (
        [before, size - after]
        for (before, after), size in zip(layer.cropping, block.spec(given).shape[1:3], strict=True)
    )
    block.add("crop", (given,), output, window=block.window(), rows=rows, columns=columns)


def upsampling(block: BlockBuilder, call: Call) -> None:
    """Rows and columns repeated; nearest only."""
    layer, (given, output) = call.operation, only_tensors(call)
    require_plain(layer)
    block.floats(given)
    if layer.interpolation != "nearest":
        raise NoOperation(layer.interpolation)
    block.add("upsample", (given,), output, window=block.window(), times=list(layer.size))
