"""Outputs of Keras calls in an engine's graph: computed as Keras does, except for large dense layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.prepare.flatten import Call
from pipeline.tensorflow_runtime import as_array, keras, tf

_LARGE_BYTES = 1 << 24
_FLOAT_BYTES = 4
_SLICES = 16


def perform(call: Call, tensors: Mapping[int, Any], *, constant: bool = False) -> list[Any]:
    """Outputs of the call. A large dense layer over one row is computed in slices of its weights.

    Keras's own, one fused kernel, would have the weights once more, in oneDNN's order (VGG-16: 470 MB a segment). A
    product over the whole row has no copy and is as fast, but it adds up 25,088 terms one after another and is 7 times
    less exact; slices are as exact as the fused kernel. They are read where they are, in multiples of 64 bytes, or are
    `constant`: of a converter that would leave slicing to each run.
    """
    layer = call.operation
    if type(layer) is not keras.layers.Dense or layer.quantization_mode or layer.lora_enabled:
        return call.perform(tensors)
    row, kernel = tensors[call.inputs[0]], layer.kernel
    is_large = kernel.shape[0] * kernel.shape[1] * _FLOAT_BYTES >= _LARGE_BYTES
    if not is_large or any(size % _SLICES for size in kernel.shape) or row.shape != (1, kernel.shape[0]):
        return call.perform(tensors)
    if not row.dtype.name == layer.compute_dtype == kernel.dtype == "float32":
        return call.perform(tensors)
    if constant:
        with tf.init_scope():  # where a variable has its value
            held = as_array(kernel.value)
        slices = [tf.constant(part) for part in np.split(held, _SLICES)]
    else:
        slices = tf.split(kernel.value, _SLICES)
    pairs = zip(tf.split(row, _SLICES, axis=1), slices, strict=True)
    product = tf.add_n([tf.linalg.matmul(part, weights) for part, weights in pairs])
    if layer.bias is not None:
        product = tf.nn.bias_add(product, layer.bias)
    return [product if layer.activation is None else layer.activation(product)]
