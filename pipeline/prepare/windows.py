"""Windows of Keras operations, from their classes: the inputs that each output reads of a feature map.

Knows Keras's layers and operations, and only those of which it is sure: of any other, an output may depend on the whole
map. Knows no tile and no kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.graph import Axis, Window
from pipeline.prepare.flatten import Call, FlatModel, Spec
from pipeline.prepare.folding import Affine
from pipeline.tensorflow_runtime import keras

_L = keras.layers
_CONVOLUTIONS = (_L.Conv2D, _L.DepthwiseConv2D, _L.SeparableConv2D)
_POOLS = {_L.MaxPooling2D: "lowest", _L.AveragePooling2D: "absent"}
WINDOWED = (*_CONVOLUTIONS, *_POOLS, _L.ZeroPadding2D, _L.Cropping2D, _L.UpSampling2D)
"""Each call of one of these is one window of its block, in their order."""

_EVERYWHERE_ALIKE = (
    *(_L.Add, _L.Subtract, _L.Multiply, _L.Average, _L.Maximum, _L.Minimum),
    *(_L.ReLU, _L.LeakyReLU, _L.ELU, _L.Rescaling),
)
_OF_KERAS_APPLICATIONS = {"CustomScaleLayer", "LayerScale"}
"""Layers that keras.applications brings itself: `a + b * scale`, and a factor for each channel."""
_EXACT = {
    *("Relu", "Relu6", "LeakyRelu", "HardSilu", "HardSigmoid", "Tanh", "HardTanh", "Softsign", "Abs", "Square", "Sqrt"),
    *("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum", "Minimum", "Negative", "Clip"),
}
"""Operations that give a number the same bits wherever it stands."""
_BY_REGISTER = {
    *("Elu", "Selu", "Celu", "Gelu", "Silu", "Softplus", "LogSigmoid", "Sigmoid", "Exp", "Log", "Rsqrt", "Power"),
}
"""Operations that TensorFlow computes by the register, and those of a map's last values that do not fill one otherwise.

Which values these are hangs on the map's size. So they can be tiled where channels fill registers. That is also why
LayerNormalization, with a reciprocal root for each place, and log_softmax cannot.
"""
_EXACT_ACTIVATIONS = {
    *("linear", "relu", "relu6", "leaky_relu", "hard_silu", "hard_sigmoid", "tanh", "hard_tanh", "softsign", "softmax"),
}
_REGISTER = 8
"""float32 values: the least that Eigen takes at a time with AVX; with AVX-512 it takes 16, and 8 of a rest."""
_MAP_RANK = 4
_SPATIAL = slice(1, 3)


def windows_of(flat: FlatModel, calls: Sequence[Call]) -> tuple[Window, ...] | None:
    """The windows of a block of these calls; None when it has to see whole maps."""
    found = []
    for call in calls:
        if call.masks or len(call.outputs) != 1 or len(flat.specs[call.outputs[0]].shape) != _MAP_RANK:
            return None
        specs, made = [flat.specs[t] for t in call.inputs], flat.specs[call.outputs[0]]
        if type(call.operation) in WINDOWED:
            window = _window(call.operation, specs[0], made)
            if window is None:
                return None
            found.append(window)
        elif not (is_local(call) and all(_fits(spec.shape, made.shape) for spec in specs)):
            return None
        if _by_register(call.operation) and made.shape[-1] % _REGISTER:
            return None
    return tuple(found)


def _fits(given: Sequence[int], made: Sequence[int]) -> bool:
    """True when a tensor's rows and columns match those made of it, or are repeated over an axis."""
    aligned = (1,) * (_MAP_RANK - len(given)) + tuple(given)
    return all(a in {1, b} for a, b in zip(aligned[_SPATIAL], made[_SPATIAL], strict=True))


def _by_register(layer: Any) -> bool:
    if type(layer) is _L.ELU or type(layer).__name__ in _BY_REGISTER:
        return True
    activation = getattr(layer, "activation", None)
    return activation is not None and activation.__name__ not in _EXACT_ACTIVATIONS


def is_local(call: Call) -> bool:
    """True when each output depends on its inputs at the same row and column only, in the same way everywhere."""
    layer = call.operation
    kind, module = type(layer).__name__, type(layer).__module__
    if not _constants_are_everywhere_alike(call):
        return False
    if module.startswith("keras.src.ops"):
        return kind in _EXACT | _BY_REGISTER
    if isinstance(layer, _L.Activation):
        return _is_known(layer.activation)
    if module.startswith("keras.src.applications"):
        return kind in _OF_KERAS_APPLICATIONS
    if isinstance(layer, (_L.PReLU, _L.Normalization)):
        return _weights_are_everywhere_alike(layer)
    if type(layer) in {_L.Softmax, _L.Concatenate, _L.BatchNormalization, Affine}:
        return _is_last(layer.axis)
    return type(layer) in _EVERYWHERE_ALIKE or (type(layer) is _L.Dense and _is_known(layer.activation))


def _is_known(activation: Any) -> bool:
    """Keras's own activations look along channels at most; a user's function may do anything."""
    own = str(getattr(activation, "__module__", "")).startswith("keras.src.activations")
    return activation is None or (own and activation.__name__ != "log_softmax")


def _is_last(axis: Any) -> bool:
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    return all(one in {-1, _MAP_RANK - 1} for one in axes)


def _constants_are_everywhere_alike(call: Call) -> bool:
    """True when no argument is an array with values of its own for each row or column."""
    leaves = keras.tree.flatten((call.args, dict(call.kwargs)))
    return all(_has_no_places(getattr(leaf, "shape", ())) for leaf in leaves)


def _has_no_places(shape: Sequence[int]) -> bool:
    return all(size == 1 for size in tuple(shape)[:-1])


def _weights_are_everywhere_alike(layer: Any) -> bool:
    held = [*layer.weights, getattr(layer, "mean", None), getattr(layer, "variance", None)]
    return all(_has_no_places(weight.shape) for weight in held if weight is not None)


def _window(layer: Any, given: Spec, made: Spec) -> Window | None:
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return None
    rows, columns = (_axis(layer, number, given.shape[number + 1]) for number in range(2))
    if rows is None or columns is None:
        return None
    if tuple(axis.made_from(size) for axis, size in zip((rows, columns), given.shape[_SPATIAL], strict=True)) != tuple(
        made.shape[_SPATIAL]
    ):
        return None  # Keras has another arithmetic here than we believe
    return Window(rows, columns, _POOLS.get(type(layer), "zero"))


def _axis(layer: Any, number: int, size: int) -> Axis | None:
    if isinstance(layer, _L.ZeroPadding2D):
        return Axis(before=layer.padding[number][0], after=layer.padding[number][1])
    if isinstance(layer, _L.Cropping2D):
        return Axis(before=-layer.cropping[number][0], after=-layer.cropping[number][1])
    if isinstance(layer, _L.UpSampling2D):
        return Axis(scale=layer.size[number]) if layer.interpolation == "nearest" else None
    if not _is_known(getattr(layer, "activation", None)):
        return None
    pool = type(layer) in _POOLS
    dilation = 1 if pool else layer.dilation_rate[number]
    axis = Axis((layer.pool_size if pool else layer.kernel_size)[number], layer.strides[number], dilation)
    if axis.stride > 1 and not pool and max(layer.dilation_rate) > 1:
        return None  # Keras takes this apart in its own way
    if layer.padding == "valid":
        return axis
    missing = max(0, (-(-size // axis.stride) - 1) * axis.stride + axis.dilation * (axis.kernel - 1) + 1 - size)
    return axis._replace(before=missing // 2, after=missing - missing // 2)
