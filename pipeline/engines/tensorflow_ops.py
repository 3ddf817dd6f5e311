"""Helpers of TensorFlow's segments and tile segments: calls of functions, and what its optimiser must not fuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.errors import ModelError
from pipeline.graph import Axis, Block, ModelGraph, Window
from pipeline.tensorflow_runtime import tf


def caller(function: Any) -> Callable[..., Sequence[Any]]:
    """Wrap a function to be called without TensorFlow's binding and packing of arguments by name.

    That takes 0.1 ms a call, as much as a small block; where TensorFlow no longer allows it, the function itself is
    returned.
    """
    flat = getattr(getattr(function, "_inference_function", None), "call_flat", None)
    if flat is None:
        return function  # type: ignore[no-any-return]
    captured = function.captured_inputs
    return lambda *tensors: flat(*tensors, *captured)


def pads_widely(block: Block) -> bool:
    """True when a convolution follows an explicit padding wider than its kernel reaches.

    TensorFlow fuses the two, and oneDNN then adds in another order than without padding, where a tile inside has none.
    """
    windows = block.windows or ()
    return len(windows) > 1 and any(
        pad.before + pad.after > kernel.dilation * (kernel.kernel - 1)
        for pad, kernel in zip(_axes(windows[0]), _axes(windows[1]), strict=True)
    )


def _axes(window: Window) -> tuple[Axis, Axis]:
    return window.rows, window.columns


def kept_apart(tensor: Any) -> Any:
    """The tensor, behind an operation that does nothing and that TensorFlow does not fuse across."""
    return tf.raw_ops.EnsureShape(input=tensor, shape=tensor.shape)


def border(graph: ModelGraph, index: int, made: Any) -> Any:
    """A block's output, behind an operation that does nothing.

    TensorFlow's optimiser fuses a convolution with the addition that follows, but not across this one: a block runs the
    same kernels whatever else is in its segment.
    """
    promised = graph.tensors[index]
    if not made.shape.is_compatible_with(promised.shape) or made.dtype.name != promised.dtype:
        raise ModelError(
            f"model {graph.name!r}: tensor {promised.name!r} is {made.dtype.name}{tuple(made.shape)}, "
            f"Keras declared {promised.dtype}{promised.shape}; the layer's compute_output_shape is wrong"
        )
    return tf.raw_ops.EnsureShape(input=made, shape=promised.shape)
