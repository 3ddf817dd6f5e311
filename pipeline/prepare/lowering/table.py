"""The lowering of each Keras layer and operation, by its type."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.prepare.flatten import Call
from pipeline.prepare.folding import Affine
from pipeline.prepare.lowering.axes import concatenate, embedding, permute, reduce, reshape
from pipeline.prepare.lowering.block_builder import (
    Lowerer,
    NoOperation,
)
from pipeline.prepare.lowering.elementwise import (
    activation,
    binary,
    elu,
    gelu,
    leaky_relu,
    merge,
    prelu,
    relu,
    softmax,
    unary,
)
from pipeline.prepare.lowering.maps import cropping, global_pool, pool, upsampling, zero_padding
from pipeline.prepare.lowering.products import conv, dense, depthwise, separable
from pipeline.prepare.lowering.scales import affine, custom_scale, layer_norm, layer_scale, normalization, rescaling
from pipeline.tensorflow_runtime import keras

_L = keras.layers

_LAYERS: Mapping[type, Lowerer] = {
    _L.Conv2D: conv,
    _L.DepthwiseConv2D: depthwise,
    _L.SeparableConv2D: separable,
    _L.Dense: dense,
    _L.MaxPooling2D: pool("max_pool"),
    _L.AveragePooling2D: pool("average_pool"),
    _L.GlobalAveragePooling2D: global_pool("mean", (1, 2)),
    _L.GlobalMaxPooling2D: global_pool("max", (1, 2)),
    _L.GlobalAveragePooling1D: global_pool("mean", (1,)),
    _L.GlobalMaxPooling1D: global_pool("max", (1,)),
    _L.ZeroPadding2D: zero_padding,
    _L.Cropping2D: cropping,
    _L.UpSampling2D: upsampling,
    Affine: affine,
    _L.LayerNormalization: layer_norm,
    _L.Normalization: normalization,
    _L.Rescaling: rescaling,
    _L.Add: merge("add"),
    _L.Subtract: merge("subtract"),
    _L.Multiply: merge("multiply"),
    _L.Maximum: merge("maximum"),
    _L.Minimum: merge("minimum"),
    _L.Average: merge("add", mean=True),
    _L.Concatenate: concatenate,
    _L.Reshape: reshape,
    _L.Flatten: reshape,
    _L.Permute: permute,
    _L.Activation: activation,
    _L.ReLU: relu,
    _L.LeakyReLU: leaky_relu,
    _L.ELU: elu,
    _L.PReLU: prelu,
    _L.Softmax: softmax,
    _L.Embedding: embedding,
}

_OPERATIONS: Mapping[str, Lowerer] = {
    "LayerScale": layer_scale,
    "CustomScaleLayer": custom_scale,
    "Add": binary("add"),
    "Subtract": binary("subtract"),
    "Multiply": binary("multiply"),
    "Divide": binary("divide"),
    "TrueDivide": binary("divide"),
    "Maximum": binary("maximum"),
    "Minimum": binary("minimum"),
    "Relu": unary("relu"),
    "Relu6": unary("relu6"),
    "Silu": unary("silu"),
    "Sigmoid": unary("sigmoid"),
    "Tanh": unary("tanh"),
    "HardSilu": unary("hard_silu"),
    "HardSigmoid": unary("hard_sigmoid"),
    "Softplus": unary("softplus"),
    "Exp": unary("exp"),
    "Log": unary("log"),
    "Sqrt": unary("sqrt"),
    "Rsqrt": unary("rsqrt"),
    "Square": unary("square"),
    "Abs": unary("abs"),
    "Gelu": gelu,
    "Mean": reduce("mean"),
    "Sum": reduce("sum"),
    "Max": reduce("max"),
    "Reshape": reshape,
}


def lowerer_of(call: Call) -> Lowerer:
    """The function that lowers a call. Raises NoOperation where there is none."""
    kind = type(call.operation)
    known = _LAYERS.get(kind)
    if known is None and kind.__module__.startswith("keras.src."):
        known = _OPERATIONS.get(kind.__name__)
    if known is None:
        raise NoOperation(kind.__name__)
    return known
