"""Simplify a flat model for inference: no-ops go, batch norm goes into the layer before it or becomes one multiply-add.

Done once at load, in float64, rounded to float32 once, so that all nodes hold the same bits. Changes calls, not shapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.prepare.flatten import Call, FlatModel, Spec
from pipeline.tensorflow_runtime import keras, own_as_tensor

Array = npt.NDArray[np.float64]

_L = keras.layers
_IDLE = {
    _L.Dropout, _L.SpatialDropout1D, _L.SpatialDropout2D, _L.SpatialDropout3D, _L.AlphaDropout, _L.GaussianDropout,
    _L.GaussianNoise, _L.ActivityRegularization, _L.Identity,
}  # fmt: skip
_PLAIN = {_L.Conv1D, _L.Conv2D, _L.Conv3D, _L.Dense}
_DEPTHWISE = {_L.DepthwiseConv1D, _L.DepthwiseConv2D}
_SEPARABLE = {_L.SeparableConv1D, _L.SeparableConv2D}
_TRANSPOSE = {_L.Conv1DTranspose, _L.Conv2DTranspose, _L.Conv3DTranspose}
FOLDS = _PLAIN | _DEPTHWISE | _SEPARABLE | _TRANSPOSE


class Given(keras.initializers.Initializer):  # type: ignore[misc]  # keras has no annotations
    """A Keras initialiser that gives `value`, rounded to float32 once."""

    def __init__(self, value: Array) -> None:
        self._value = value.astype(np.float32)

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> Any:
        """The value, as a tensor."""
        return own_as_tensor(self._value.reshape(shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """Nothing: the value is in the variable."""
        return {}


class Affine(keras.layers.Layer):  # type: ignore[misc]  # keras has no annotations
    """`x * scale + shift`, along one axis: the rest of a batch norm that could not be folded."""

    def __init__(self, scale: Array, shift: Array, axis: int, name: str) -> None:
        super().__init__(name=name)
        self._constants = (scale, shift)
        self.axis = axis

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Make both weights, ready to broadcast."""
        shape = [1] * len(input_shape)
        shape[self.axis] = input_shape[self.axis]
        scale, shift = (constant.reshape(shape) for constant in self._constants)
        self.scale = self.add_weight(shape=shape, initializer=Given(scale), name="scale", trainable=False)
        self.shift = self.add_weight(shape=shape, initializer=Given(shift), name="shift", trainable=False)
        del self._constants

    def call(self, x: Any) -> Any:
        """One multiply, one add."""
        return x * self.scale + self.shift

    def get_config(self) -> dict[str, Any]:
        """The configuration that the digest covers besides the weights."""
        return {"axis": self.axis}


def simplify(flat: FlatModel) -> None:
    """All of it, in place. Originals of folded layers are no longer referred to."""
    _remove_idle(flat)
    _fold(flat)
    for position, call in enumerate(flat.calls):
        if type(call.operation) is _L.BatchNormalization and _is_float32(call.operation):
            flat.calls[position] = replace(call, operation=_affine(call.operation, flat.specs[call.inputs[0]]))


def _remove_idle(flat: FlatModel) -> None:
    kept: list[Call] = []
    same: dict[int, int] = {}
    for call in flat.calls:
        moved = _rewire(call, same)
        if _is_idle(flat, moved):
            same[moved.outputs[0]] = moved.inputs[0]
        else:
            kept.append(moved)
    flat.calls = kept
    flat.outputs = tuple(same.get(tensor, tensor) for tensor in flat.outputs)


def _is_idle(flat: FlatModel, call: Call) -> bool:
    kind = type(call.operation)
    linear = kind is _L.Activation and call.operation.activation is keras.activations.linear
    return (kind in _IDLE or linear) and flat.specs[call.inputs[0]] == flat.specs[call.outputs[0]]


def _rewire(call: Call, same: Mapping[int, int]) -> Call:
    if not any(tensor in same for tensor in call.inputs):
        return call
    return call.reading({tensor: same.get(tensor, tensor) for tensor in (*call.inputs, *call.masks)})


def _fold(flat: FlatModel) -> None:
    uses = Counter(id(call.operation) for call in flat.calls)
    readers, maker = flat.readers(), {call.outputs[0]: i for i, call in enumerate(flat.calls)}
    gone: set[int] = set()
    for position, norm in enumerate(flat.calls):
        at = maker.get(norm.inputs[0]) if type(norm.operation) is _L.BatchNormalization else None
        if at is None or not _foldable(flat, flat.calls[at], norm, uses, len(readers[norm.inputs[0]])):
            continue
        host = flat.calls[at]
        layer = folded(host.operation, norm.operation, flat.specs[host.inputs[0]].shape)
        flat.calls[at] = replace(host, operation=layer, layers=host.layers + norm.layers, outputs=norm.outputs)
        maker[norm.outputs[0]] = at
        gone.add(position)
    flat.calls = [call for position, call in enumerate(flat.calls) if position not in gone]


def _foldable(flat: FlatModel, host: Call, norm: Call, uses: Counter[int], readers: int) -> bool:
    layer, spec = host.operation, flat.specs[host.outputs[0]]
    return (
        type(layer) in FOLDS
        and layer.activation is keras.activations.linear
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and not getattr(layer, "lora_enabled", False)
        and uses[id(layer)] == 1
        and readers == 1
        and host.outputs[0] not in flat.outputs
        and norm.operation.axis in {-1, len(spec.shape) - 1}
        and _is_float32(layer)
        and _is_float32(norm.operation)
    )


def _is_float32(layer: Any) -> bool:
    return layer.compute_dtype == layer.variable_dtype == "float32" and layer.quantization_mode is None


def constants(norm: Any) -> tuple[Array, Array]:
    """Scale and shift per channel of a batch norm at inference."""
    mean, variance = _float64(norm.moving_mean), _float64(norm.moving_variance)
    scale = (_float64(norm.gamma) if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
    return scale, (_float64(norm.beta) if norm.center else 0.0) - mean * scale


def _float64(variable: Any) -> Array:
    return np.asarray(variable.numpy(), np.float64)


def _affine(norm: Any, spec: Spec) -> Affine:
    layer = Affine(*constants(norm), norm.axis, norm.name)
    layer.build(spec.shape)
    return layer


def folded(layer: Any, norm: Any, input_shape: tuple[int, ...]) -> Any:
    """A new layer that does what `layer` and then `norm` did."""
    scale, shift = constants(norm)
    bias = shift + (_float64(layer.bias) * scale if layer.use_bias else 0.0)
    config = {k: v for k, v in layer.get_config().items() if not k.endswith(("_regularizer", "_constraint"))}
    made = type(layer).from_config({**config, "use_bias": True})
    made.bias_initializer = Given(bias)
    if type(layer) in _SEPARABLE:
        made.depthwise_initializer = Given(_float64(layer.depthwise_kernel))
        made.pointwise_initializer = Given(_float64(layer.pointwise_kernel) * scale)
    else:
        kernel = Given(_float64(layer.kernel) * _along(scale, layer))
        setattr(made, "depthwise_initializer" if type(layer) in _DEPTHWISE else "kernel_initializer", kernel)
    made.build(input_shape)
    for name in [n for n in vars(made) if n.endswith("_initializer")]:
        setattr(made, name, keras.initializers.Zeros())  # they hold copies of what the variables now have
    return made


def _along(scale: Array, layer: Any) -> Array:
    """The scale of each output channel where the kernel has that channel."""
    if type(layer) in _DEPTHWISE:
        return scale.reshape(layer.kernel.shape[-2:])
    return scale[:, None] if type(layer) in _TRANSPOSE else scale
