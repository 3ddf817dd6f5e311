"""A block's work: amounts by feature (MACs, bytes, operations), each in a unit that a node's speed prices.

Source of the idea: D3's regression of a layer's latency on its configuration. The features here are what a kernel
spends time on (MACs by kind of kernel, bytes moved, weights read, operations started), so that blocks' amounts add up.
"""

from __future__ import annotations

import math
from collections import Counter

from pipeline.frames.input_blocks import KIND_DECODE
from pipeline.graph import Block, ModelGraph

Amounts = Counter[str]

UNITS = {
    "conv_1x1": "mac",
    "conv": "mac",
    "conv_few_channels": "mac",
    "conv_strided": "mac",
    "conv_spilled": "mac",
    "conv_bytes": "byte",
    "conv_weights": "weight_byte",
    "conv_operation": "operation",
    "depthwise": "depthwise_mac",
    "depthwise_bytes": "byte",
    "depthwise_operation": "operation",
    "dense_weights": "weight_byte",
    "dense_operation": "operation",
    "average_window": "byte",
    "max_window": "byte",
    "pool_bytes": "byte",
    "pool_operation": "operation",
    "move_bytes": "byte",
    "move_operation": "operation",
    "elementwise_bytes": "byte",
    "elementwise_spilled": "byte",
    "elementwise_operation": "operation",
    "other_bytes": "byte",
    "other_weights": "weight_byte",
    "other_operation": "operation",
    "segment": "operation",
    "decode_bytes": "byte",
}
"""The features, and what one of each costs a node by its own measurement."""

_FEW_CHANNELS = 8
_CACHE_BYTES = 1 << 20
"""What is larger does not stay in a core's own cache, and is spilled."""
_ELEMENTWISE = {
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "BatchNormalization", "Rescaling"),
    *(
        "FrameNormalise",
        "Activation",
        "ReLU",
        "LeakyReLU",
        "PReLU",
        "ELU",
        "Relu",
        "Relu6",
        "Silu",
        "Sigmoid",
        "HardSigmoid",
        "Gelu",
    ),
}
_PICTURE_BYTES = 3 * 640 * 480
"""Of the test picture, decoded: what its stream's frames are is learned when they come."""
_MOVES = {"Concatenate", "ZeroPadding2D", "Cropping2D", "Permute", "UpSampling2D"}
_FREE = {"input", "InputLayer", "Flatten", "Reshape", "Dropout"}


def amounts(graph: ModelGraph, block: Block) -> Amounts:
    """The block's amounts by feature; features that it does not have are missing."""
    if block.kind in _FREE:
        return Counter()
    if block.kind in {"SeparableConv1D", "SeparableConv2D"}:
        return _separable(graph, block)
    if block.kind == KIND_DECODE:
        return Counter(decode_bytes=_PICTURE_BYTES)
    if block.kind.startswith("Depthwise"):
        return Counter(depthwise=block.macs, depthwise_bytes=_moved(graph, block), depthwise_operation=1)
    if block.kind.startswith("Conv") and block.macs:
        return _convolution(graph, block)
    if block.kind == "Dense":
        return Counter(dense_weights=4 * block.parameters, dense_operation=1)
    if "Pool" in block.kind:
        return _pooling(graph, block)
    if block.kind in _ELEMENTWISE:
        return _elementwise(graph, block)
    if block.kind in _MOVES:
        return Counter(move_bytes=_moved(graph, block), move_operation=1)
    return Counter(other_bytes=_moved(graph, block), other_weights=4 * block.parameters, other_operation=1)


def _moved(graph: ModelGraph, block: Block) -> int:
    return sum(graph.tensors[t].nbytes for t in (*block.inputs, *block.outputs))


def _convolution(graph: ModelGraph, block: Block) -> Amounts:
    channels = graph.tensors[block.inputs[0]].shape[-1]
    kernel = math.prod(block.kernel) or 1
    name = "conv_few_channels" if channels <= _FEW_CHANNELS else "conv_1x1" if kernel == 1 else "conv"
    found: Amounts = Counter(conv_bytes=_moved(graph, block), conv_weights=4 * block.parameters, conv_operation=1)
    found[name] = block.macs
    if name == "conv":
        weights = 4 * block.parameters
        found["conv_spilled"] = int(block.macs * max(0.0, 1 - _CACHE_BYTES / max(weights, 1)))
        found["conv_strided"] = block.macs if max(block.strides, default=1) > 1 else 0
    return found


def _separable(graph: ModelGraph, block: Block) -> Amounts:
    """A depthwise convolution and a 1x1 convolution, with a tensor between them that nobody else sees."""
    source, made = graph.tensors[block.inputs[0]], graph.tensors[block.outputs[0]]
    places = math.prod(made.shape[1:-1])
    between = 4 * places * source.shape[-1]
    depthwise = places * source.shape[-1] * (math.prod(block.kernel) or 1)
    return Counter(
        depthwise=depthwise,
        depthwise_bytes=source.nbytes + between,
        depthwise_operation=1,
        conv_1x1=max(block.macs - depthwise, 0),
        conv_bytes=between + made.nbytes,
        conv_weights=4 * block.parameters,
        conv_operation=1,
    )


def _pooling(graph: ModelGraph, block: Block) -> Amounts:
    made = sum(graph.tensors[t].nbytes for t in block.outputs)
    window = "max_window" if "Max" in block.kind else "average_window"
    found: Amounts = Counter(pool_bytes=_moved(graph, block), pool_operation=1)
    found[window] = math.prod(block.kernel) * made if block.kernel else 0
    return found


def _elementwise(graph: ModelGraph, block: Block) -> Amounts:
    """Amounts of an activation at the block's end: one more pass over its output."""
    made = sum(graph.tensors[t].nbytes for t in block.outputs)
    passes = min(len(block.layers), 2) or 1
    nbytes = _moved(graph, block) + (passes - 1) * 2 * made
    return Counter(
        elementwise_bytes=nbytes, elementwise_spilled=max(0, nbytes - _CACHE_BYTES), elementwise_operation=passes
    )
