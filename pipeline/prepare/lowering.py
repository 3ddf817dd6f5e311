"""A prepared model's Keras calls as operations of a program, which run without Keras.

A block with a call that is not known here becomes one `foreign` operation: its graph as TensorFlow's converter makes
it. LiteRT runs that too, but not in tiles, and with the same bits on one kind of processor only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.graph import Block
from pipeline.lite.package import Draft
from pipeline.lite.program import ARRAY, Op
from pipeline.prepare.flatten import Call, Spec
from pipeline.prepare.folding import Affine
from pipeline.prepare.foreign import convert
from pipeline.tensorflow_runtime import as_array, keras

if TYPE_CHECKING:
    from pipeline.prepare.model import PreparedModel

Array = npt.NDArray[Any]
Lowerer = Callable[["_Block", Call], None]

_L = keras.layers
_LARGE_BYTES = 1 << 24
_SLICES = 16
"""A large dense layer over one row is summed in so many slices: one long sum is 7 times less exact (VGG-16)."""
_FUSED = frozenset({"relu", "relu6"})
_FUSING = frozenset({"conv", "depthwise", "dense", "add", "subtract", "multiply", "divide"})
_ACTIVATIONS = {
    **{name: name for name in ("relu", "relu6", "elu", "sigmoid", "silu", "hard_silu", "hard_sigmoid", "tanh")},
    **{name: name for name in ("gelu", "softplus", "softmax")},
    **{"exponential": "exp", "linear": ""},
}
_MAP_RANK = 4


class _Unknown(Exception):
    """No operation here does what the call does."""


def lower(model: PreparedModel) -> Draft:
    """The operations of every block, and its weights, to be read one after the other. Raises ModelError."""
    arrays = _Arrays()
    blocks = tuple(_lowered(model, block, arrays) for block in model.graph.blocks)
    return Draft(model.graph, blocks, arrays.makers)


class _Arrays:
    """The constants so far: each variable, or what is made of it, once."""

    def __init__(self) -> None:
        self.makers: list[Callable[[], Array]] = []
        self._known: dict[object, int] = {}
        self._held: list[Any] = []

    def add(self, make: Callable[[], Array], key: object = None, held: Any = None) -> int:
        """The id of an array; equal keys share one. `held` is what the key is the identity of."""
        if key is not None and key in self._known:
            return self._known[key]
        self.makers.append(make)
        self._held.append(held)
        if key is not None:
            self._known[key] = len(self.makers) - 1
        return len(self.makers) - 1


def _lowered(model: PreparedModel, block: Block, arrays: _Arrays) -> tuple[Op, ...]:
    if block.index == 0:
        return ()
    made = _Block(model, block, arrays)
    try:
        for call in model.calls[block.index]:
            _of(call)(made, call)
    except _Unknown:
        content = convert(model, block)
        held = arrays.add(lambda: np.frombuffer(content, np.uint8))
        return (Op("foreign", block.inputs, block.outputs, (held,), {}),)
    return tuple(made.ops)


def _of(call: Call) -> Lowerer:
    kind = type(call.operation)
    known = _LAYERS.get(kind)
    if known is None and kind.__module__.startswith("keras.src."):
        known = _OPERATIONS.get(kind.__name__)
    if known is None:
        raise _Unknown(kind.__name__)
    return known


class _Block:
    """The operations of one block in the making."""

    def __init__(self, model: PreparedModel, block: Block, arrays: _Arrays) -> None:
        self.ops: list[Op] = []
        self.arrays = arrays
        self._specs: dict[int, Spec] = dict(model.specs)
        self._next = max(self._specs) + 1
        self._outputs = frozenset(block.outputs)
        self._windows = 0

    def spec(self, tensor: int) -> Spec:
        return self._specs[tensor]

    def floats(self, *tensors: int) -> None:
        """Raise _Unknown unless all of these are float32."""
        if any(self._specs[t].dtype != "float32" for t in tensors):
            raise _Unknown("not float32")

    def value(self, shape: Sequence[int], dtype: str = "float32") -> int:
        """A new tensor within the block."""
        self._specs[self._next] = Spec(tuple(shape), dtype)
        self._next += 1
        return self._next - 1

    def window(self) -> int:
        """The next window's place in the block."""
        self._windows += 1
        return self._windows - 1

    def add(
        self,
        kind: str,
        inputs: Sequence[int],
        output: int,
        *,
        arrays: Sequence[int] = (),
        window: int | None = None,
        **options: Any,
    ) -> None:
        self.ops.append(Op(kind, tuple(inputs), (output,), tuple(arrays), options, window))

    def variable(self, variable: Any, how: str = "", make: Callable[[Array], Array] = lambda array: array) -> int:
        """An array of a variable's values, or of what is made of them."""
        return self.arrays.add(lambda: make(as_array(variable.value)), (id(variable), how), variable)

    def zeros(self, size: int) -> int:
        return self.arrays.add(lambda: np.zeros(size, np.float32), ("zeros", size))

    def constant(self, value: Any) -> int:
        array = np.asarray(value, np.float32)
        return self.arrays.add(lambda: array, (array.tobytes(), array.shape))

    def activate(self, name: str, given: int, output: int) -> None:
        """An activation by its name here; fused where a product can."""
        last = self.ops[-1] if self.ops else None
        fusible = (
            name in _FUSED
            and last is not None
            and last.kind in _FUSING
            and last.outputs == (given,)
            and given not in self._outputs
            and last.options.get("activation", "none") == "none"
        )
        if fusible and last is not None:
            self.ops[-1] = replace(last, outputs=(output,), options={**last.options, "activation": name})
        else:
            self.add(name, (given,), output)

    def finish(self, layer: Any, kind: str, inputs: Sequence[int], output: int, **options: Any) -> None:
        """A product and the activation that its layer has."""
        name = _activation(getattr(layer, "activation", None))
        if not name:
            self.add(kind, inputs, output, **options)
            return
        between = self.value(self.spec(output).shape)
        self.add(kind, inputs, between, **options)
        self.activate(name, between, output)


def _activation(function: Any) -> str:
    """The name of a layer's activation here, "" for none."""
    if function is None:
        return ""
    own = str(getattr(function, "__module__", "")).startswith("keras.src.activations")
    name = getattr(function, "__name__", "")
    if not own or name not in _ACTIVATIONS:
        raise _Unknown(name)
    return _ACTIVATIONS[name]


def _plain(layer: Any) -> None:
    """Raise _Unknown for a layer whose weights are not simply float32."""
    is_float32 = layer.compute_dtype == layer.variable_dtype == "float32"
    if not is_float32 or getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        raise _Unknown("quantised, adapted, or of another dtype")
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise _Unknown("channels first")


def _one(call: Call) -> tuple[int, int]:
    """The only input and output of a call."""
    if len(call.inputs) != 1 or len(call.outputs) != 1:
        raise _Unknown("several tensors")
    return call.inputs[0], call.outputs[0]


def _pads(layer: Any, shape: Sequence[int], kernel: Sequence[int], dilation: Sequence[int]) -> list[list[int]]:
    if layer.padding == "valid":
        return [[0, 0], [0, 0]]
    if layer.padding != "same":
        raise _Unknown(layer.padding)
    found = []
    for size, stride, taps, step in zip(shape[1:3], layer.strides, kernel, dilation, strict=True):
        missing = max(0, (-(-size // stride) - 1) * stride + step * (taps - 1) + 1 - size)
        found.append([missing // 2, missing - missing // 2])
    return found


def _geometry(block: _Block, layer: Any, given: int) -> dict[str, Any]:
    dilation = tuple(layer.dilation_rate)
    if max(layer.strides) > 1 and max(dilation) > 1:
        raise _Unknown("strides and dilation")
    pads = _pads(layer, block.spec(given).shape, layer.kernel_size, dilation)
    return {"stride": list(layer.strides), "dilation": list(dilation), "pads": pads, "window": block.window()}


def _bias(block: _Block, layer: Any, size: int) -> int:
    return block.variable(layer.bias) if layer.bias is not None else block.zeros(size)


def _conv(block: _Block, call: Call) -> None:
    layer, (given, output) = call.operation, _one(call)
    _plain(layer)
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


def _depthwise_kernel(block: _Block, variable: Any) -> int:
    return block.variable(variable, "depthwise", lambda w: w.reshape(1, *w.shape[:2], -1))


def _depthwise(block: _Block, call: Call) -> None:
    layer, (given, output) = call.operation, _one(call)
    _plain(layer)
    block.floats(given)
    channels = block.spec(given).shape[3] * layer.depth_multiplier
    arrays = _depthwise_kernel(block, layer.kernel), _bias(block, layer, channels)
    block.finish(layer, "depthwise", (given,), output, arrays=arrays, **_geometry(block, layer, given))


def _separable(block: _Block, call: Call) -> None:
    layer, (given, output) = call.operation, _one(call)
    _plain(layer)
    block.floats(given)
    channels = block.spec(given).shape[3] * layer.depth_multiplier
    between = block.value((*block.spec(output).shape[:3], channels))
    depthwise = _depthwise_kernel(block, layer.depthwise_kernel), block.zeros(channels)
    block.add("depthwise", (given,), between, arrays=depthwise, **_geometry(block, layer, given))
    pointwise = block.variable(layer.pointwise_kernel, "conv", lambda w: w.transpose(3, 0, 1, 2))
    block.finish(layer, "conv", (between,), output, arrays=(pointwise, _bias(block, layer, layer.filters)))


def _dense(block: _Block, call: Call) -> None:
    layer, (given, output) = call.operation, _one(call)
    _plain(layer)
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


def _pool(kind: str) -> Lowerer:
    def lowered(block: _Block, call: Call) -> None:
        layer, (given, output) = call.operation, _one(call)
        _plain(layer)
        block.floats(given)
        pads = _pads(layer, block.spec(given).shape, layer.pool_size, (1, 1))
        options = {"size": list(layer.pool_size), "stride": list(layer.strides), "pads": pads}
        block.add(kind, (given,), output, window=block.window(), **options)

    return lowered


def _global(kind: str, axes: Sequence[int]) -> Lowerer:
    def lowered(block: _Block, call: Call) -> None:
        layer, (given, output) = call.operation, _one(call)
        _plain(layer)
        block.floats(given)
        block.add(kind, (given,), output, axes=list(axes), keep=bool(layer.keepdims))

    return lowered


def _zero_padding(block: _Block, call: Call) -> None:
    layer, (given, output) = call.operation, _one(call)
    _plain(layer)
    block.floats(given)
    block.add("pad", (given,), output, window=block.window(), pads=[list(pad) for pad in layer.padding])


def _cropping(block: _Block, call: Call) -> None:
    layer, (given, output) = call.operation, _one(call)
    _plain(layer)
    rows, columns = (
        [before, size - after]
        for (before, after), size in zip(layer.cropping, block.spec(given).shape[1:3], strict=True)
    )
    block.add("crop", (given,), output, window=block.window(), rows=rows, columns=columns)


def _upsampling(block: _Block, call: Call) -> None:
    layer, (given, output) = call.operation, _one(call)
    _plain(layer)
    block.floats(given)
    if layer.interpolation != "nearest":
        raise _Unknown(layer.interpolation)
    block.add("upsample", (given,), output, window=block.window(), times=list(layer.size))


def _affine(block: _Block, call: Call) -> None:
    layer, (given, output) = call.operation, _one(call)
    block.floats(given)
    between = block.value(block.spec(given).shape)
    block.add("multiply", (given, ARRAY), between, arrays=(block.variable(layer.scale),))
    block.add("add", (between, ARRAY), output, arrays=(block.variable(layer.shift),))


def _layer_norm(block: _Block, call: Call) -> None:
    layer, (given, output) = call.operation, _one(call)
    _plain(layer)
    block.floats(given)
    last = len(block.spec(given).shape) - 1
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0] if len(layer.axis) == 1 else None
    if axis not in {-1, last} or getattr(layer, "rms_scaling", False):
        raise _Unknown("layer normalisation over other axes")
    found = [block.variable(one) if one is not None else None for one in (layer.gamma, layer.beta)]
    arrays = [one for one in found if one is not None]
    places = [None if one is None else arrays.index(one) for one in found]
    block.add("layer_norm", (given,), output, arrays=arrays, epsilon=float(layer.epsilon), arrays_at=places)


def _normalization(block: _Block, call: Call) -> None:
    layer, (given, output) = call.operation, _one(call)
    block.floats(given)
    if layer.invert:
        raise _Unknown("inverse normalisation")
    deviation = np.maximum(np.sqrt(np.asarray(layer.variance)), np.float32(keras.config.epsilon()))
    between = block.value(block.spec(given).shape)
    block.add("subtract", (given, ARRAY), between, arrays=(block.constant(np.asarray(layer.mean)),))
    block.add("divide", (between, ARRAY), output, arrays=(block.constant(deviation),))


def _rescaling(block: _Block, call: Call) -> None:
    layer, (given, output) = call.operation, _one(call)
    if layer.compute_dtype != "float32":
        raise _Unknown(layer.compute_dtype)
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


def _layer_scale(block: _Block, call: Call) -> None:
    given, output = _one(call)
    block.floats(given)
    block.add("multiply", (given, ARRAY), output, arrays=(block.variable(call.operation.gamma),))


def _custom_scale(block: _Block, call: Call) -> None:
    (first, second), (output,) = call.inputs, call.outputs
    block.floats(first, second)
    between = block.value(block.spec(second).shape)
    block.add("multiply", (second, ARRAY), between, arrays=(block.constant(call.operation.scale),))
    block.add("add", (first, between), output)


def _merge(kind: str, *, mean: bool = False) -> Lowerer:
    def lowered(block: _Block, call: Call) -> None:
        (output,), inputs = call.outputs, call.inputs
        block.floats(*inputs)
        rest, made = inputs[1:], inputs[0]
        if not rest:
            raise _Unknown("one input")
        for number, following in enumerate(rest, start=1):
            is_last = number == len(rest) and not mean
            shape = np.broadcast_shapes(block.spec(made).shape, block.spec(following).shape)
            after = output if is_last else block.value(shape)
            block.add(kind, (made, following), after)
            made = after
        if mean:
            block.add("divide", (made, ARRAY), output, arrays=(block.constant(float(len(inputs))),))

    return lowered


def _concatenate(block: _Block, call: Call) -> None:
    (output,) = call.outputs
    block.floats(*call.inputs)
    axis = call.operation.axis
    block.add("concat", call.inputs, output, axis=axis % len(block.spec(output).shape))


def _reshape(block: _Block, call: Call) -> None:
    given, output = _one(call)
    block.floats(given)
    block.add("reshape", (given,), output, shape=list(block.spec(output).shape))


def _permute(block: _Block, call: Call) -> None:
    given, output = _one(call)
    block.floats(given)
    block.add("transpose", (given,), output, order=[0, *call.operation.dims])


def _activation_layer(block: _Block, call: Call) -> None:
    given, output = _one(call)
    block.floats(given)
    name = _activation(call.operation.activation)
    if not name:
        raise _Unknown("nothing to do")
    block.activate(name, given, output)


def _relu(block: _Block, call: Call) -> None:
    layer, (given, output) = call.operation, _one(call)
    block.floats(given)
    if layer.threshold or (layer.negative_slope and layer.max_value is not None):
        raise _Unknown("a bent ReLU")
    if layer.negative_slope:
        block.add("leaky_relu", (given,), output, slope=float(layer.negative_slope))
    elif layer.max_value is None or layer.max_value == 6:  # noqa: PLR2004
        block.activate("relu" if layer.max_value is None else "relu6", given, output)
    else:
        block.add("clip", (given,), output, low=0.0, high=float(layer.max_value))


def _leaky_relu(block: _Block, call: Call) -> None:
    given, output = _one(call)
    block.floats(given)
    slope = getattr(call.operation, "negative_slope", None)
    if not isinstance(slope, float | int):
        raise _Unknown("a slope that is no number")
    block.add("leaky_relu", (given,), output, slope=float(slope))


def _elu(block: _Block, call: Call) -> None:
    given, output = _one(call)
    block.floats(given)
    if float(call.operation.alpha) != 1.0:
        raise _Unknown("ELU of another alpha")
    block.add("elu", (given,), output)


def _prelu(block: _Block, call: Call) -> None:
    given, output = _one(call)
    block.floats(given)
    block.add("prelu", (given, ARRAY), output, arrays=(block.variable(call.operation.alpha),))


def _softmax(block: _Block, call: Call) -> None:
    given, output = _one(call)
    block.floats(given)
    if call.operation.axis not in {-1, len(block.spec(given).shape) - 1}:
        raise _Unknown("softmax over another axis")
    block.add("softmax", (given,), output)


def _unary(kind: str) -> Lowerer:
    def lowered(block: _Block, call: Call) -> None:
        given, output = _one(call)
        block.floats(given, output)
        block.activate(kind, given, output)

    return lowered


def _gelu(block: _Block, call: Call) -> None:
    given, output = _one(call)
    block.floats(given)
    block.add("gelu_tanh" if call.operation.approximate else "gelu", (given,), output)


def _binary(kind: str) -> Lowerer:
    def lowered(block: _Block, call: Call) -> None:
        (output,) = call.outputs
        block.floats(*call.inputs, output)
        operands = [*call.args, *call.kwargs.values()]
        if len(operands) != 2:  # noqa: PLR2004
            raise _Unknown("not two operands")
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
        raise _Unknown("an operand that is no number") from None
    if array.dtype.kind not in "fiu":
        raise _Unknown("an operand that is no number")
    return array


def _reduce(kind: str) -> Lowerer:
    def lowered(block: _Block, call: Call) -> None:
        given, output = _one(call)
        block.floats(given, output)
        count, axis = len(block.spec(given).shape), call.operation.axis
        axes = range(count) if axis is None else axis if isinstance(axis, list | tuple) else [axis]
        block.add(kind, (given,), output, axes=sorted(one % count for one in axes), keep=bool(call.operation.keepdims))

    return lowered


def _embedding(block: _Block, call: Call) -> None:
    layer, (given, output) = call.operation, _one(call)
    _plain(layer)
    if block.spec(given).dtype not in {"int32", "int64"}:
        raise _Unknown("embedding of floats")
    block.add("gather", (given, ARRAY), output, arrays=(block.variable(layer.embeddings),))


_LAYERS: Mapping[type, Lowerer] = {
    _L.Conv2D: _conv,
    _L.DepthwiseConv2D: _depthwise,
    _L.SeparableConv2D: _separable,
    _L.Dense: _dense,
    _L.MaxPooling2D: _pool("max_pool"),
    _L.AveragePooling2D: _pool("average_pool"),
    _L.GlobalAveragePooling2D: _global("mean", (1, 2)),
    _L.GlobalMaxPooling2D: _global("max", (1, 2)),
    _L.GlobalAveragePooling1D: _global("mean", (1,)),
    _L.GlobalMaxPooling1D: _global("max", (1,)),
    _L.ZeroPadding2D: _zero_padding,
    _L.Cropping2D: _cropping,
    _L.UpSampling2D: _upsampling,
    Affine: _affine,
    _L.LayerNormalization: _layer_norm,
    _L.Normalization: _normalization,
    _L.Rescaling: _rescaling,
    _L.Add: _merge("add"),
    _L.Subtract: _merge("subtract"),
    _L.Multiply: _merge("multiply"),
    _L.Maximum: _merge("maximum"),
    _L.Minimum: _merge("minimum"),
    _L.Average: _merge("add", mean=True),
    _L.Concatenate: _concatenate,
    _L.Reshape: _reshape,
    _L.Flatten: _reshape,
    _L.Permute: _permute,
    _L.Activation: _activation_layer,
    _L.ReLU: _relu,
    _L.LeakyReLU: _leaky_relu,
    _L.ELU: _elu,
    _L.PReLU: _prelu,
    _L.Softmax: _softmax,
    _L.Embedding: _embedding,
}

_OPERATIONS: Mapping[str, Lowerer] = {
    "LayerScale": _layer_scale,
    "CustomScaleLayer": _custom_scale,
    "Add": _binary("add"),
    "Subtract": _binary("subtract"),
    "Multiply": _binary("multiply"),
    "Divide": _binary("divide"),
    "TrueDivide": _binary("divide"),
    "Maximum": _binary("maximum"),
    "Minimum": _binary("minimum"),
    "Relu": _unary("relu"),
    "Relu6": _unary("relu6"),
    "Silu": _unary("silu"),
    "Sigmoid": _unary("sigmoid"),
    "Tanh": _unary("tanh"),
    "HardSilu": _unary("hard_silu"),
    "HardSigmoid": _unary("hard_sigmoid"),
    "Softplus": _unary("softplus"),
    "Exp": _unary("exp"),
    "Log": _unary("log"),
    "Sqrt": _unary("sqrt"),
    "Rsqrt": _unary("rsqrt"),
    "Square": _unary("square"),
    "Abs": _unary("abs"),
    "Gelu": _gelu,
    "Mean": _reduce("mean"),
    "Sum": _reduce("sum"),
    "Max": _reduce("max"),
    "Reshape": _reshape,
}
