"""Mean and variance of each activation of a randomly weighted network, estimated layer by layer.

Seeded weights are scaled by it, so that signals neither die nor explode however deep the network. Only + - * / and
square roots, which IEEE 754 rounds alike everywhere: the estimate, so the weights, are the same bits on every machine.
(And `math.fsum`, which is exact; `sum` of floats differs between versions of Python.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_NODES = (0.0816, 0.2468, 0.4185, 0.6026, 0.8079, 1.0509, 1.3714, 1.9382)
"""The positive half of sixteen equally likely values of a standard normal variable."""


def _step(steepness: float) -> Callable[[float], float]:
    """From 0 to 1, much like a logistic function or the normal distribution, in exact operations."""
    return lambda x: 0.5 + 0.5 * x / math.sqrt(x * x + steepness)


_logistic, _in_silu, _in_gelu, _in_mish = _step(3.5), _step(2.8), _step(0.85), _step(2.0)


def _clipped(x: float) -> float:
    return min(max(x / 6 + 0.5, 0.0), 1.0)


def _elu(x: float) -> float:
    return x if x > 0 else x / (1 - x)


_ACTIVATIONS: dict[str, Callable[[float], float]] = {
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "leaky_relu": lambda x: max(x, 0.2 * x),
    "prelu": lambda x: max(x, 0.0),
    "elu": _elu,
    "selu": lambda x: 1.05 * _elu(x),
    "celu": _elu,
    "silu": lambda x: x * _in_silu(x),
    "swish": lambda x: x * _in_silu(x),
    "mish": lambda x: x * _in_mish(x),
    "gelu": lambda x: x * _in_gelu(x),
    "hard_silu": lambda x: x * _clipped(x),
    "hard_swish": lambda x: x * _clipped(x),
    "softplus": lambda x: 0.5 * (x + math.sqrt(x * x + 2.0)),
    "sigmoid": _logistic,
    "hard_sigmoid": _clipped,
    "tanh": lambda x: x / math.sqrt(x * x + 1.0),
}
"""Each activation or an algebraic stand-in: exponentials round differently from one machine to another."""

SMOOTH = frozenset({"silu", "swish", "mish", "hard_silu", "hard_swish"})
"""Those that are nearly linear for small values and nearly the identity for large ones."""

_LAYERS_AS_ACTIVATIONS = {
    **{"ReLU": "relu", "LeakyReLU": "leaky_relu", "PReLU": "prelu", "ELU": "elu", "Softmax": "softmax"},
    **{"Relu": "relu", "Relu6": "relu6", "Silu": "silu", "Gelu": "gelu", "LeakyRelu": "leaky_relu"},
    **{"Sigmoid": "sigmoid", "HardSigmoid": "hard_sigmoid", "Tanh": "tanh", "HardSilu": "hard_silu"},
}
_NORMALISE = ("BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization", "Normalization")
_NORMALISED = 1.03
"""The variance that a batch norm's own drawn weights leave; over a hundred layers, the 3 % would be a factor of 19."""

_SUMS = ("Add", "Subtract", "CustomScaleLayer")
"""The last is Inception-ResNet-v2's: x + y * scale."""

_PRODUCTS = ("Multiply",)
_MIXES = ("Concatenate", "Average", "Maximum", "Minimum")
_WEIGHTED = ("Conv", "DepthwiseConv", "SeparableConv", "Dense", "EinsumDense", "Embedding", "LSTM", "GRU", "SimpleRNN")


@dataclass(frozen=True, slots=True)
class Moments:
    """Over all elements of a tensor, and over inputs."""

    mean: float
    variance: float

    @property
    def square(self) -> float:
        """The mean of the squares."""
        return self.variance + self.mean * self.mean


INPUTS = {
    "tf": Moments(0.0, 0.3),
    "torch": Moments(0.0, 1.0),
    "caffe": Moments(0.0, 4500.0),
    "unit": Moments(0.5, 0.08),
    "none": Moments(127.5, 4500.0),
}
"""Of a picture's pixels, by preprocessing mode."""


def activation_of(operation: Any) -> str | None:
    """The name of the activation that an operation is or ends with."""
    kind = type(operation).__name__
    if kind in _LAYERS_AS_ACTIVATIONS:
        return _LAYERS_AS_ACTIVATIONS[kind]
    return getattr(getattr(operation, "activation", None), "__name__", None)


def after(
    operation: Any,
    inputs: Sequence[Moments],
    *,
    sizes: Sequence[int] = (),
    constants: Sequence[float] = (),
    shrink: float = 1.0,
    target: float = 1.0,
) -> Moments:
    """Moments of what an operation makes of `inputs`, which have `sizes` elements, and of plain numbers.

    `shrink` is how many elements it averages or picks from for one of its own (pooling); `target` the variance that its
    weights were scaled for, if it has any.
    """
    sizes = sizes or (1,) * len(inputs)
    kind = type(operation).__name__
    if kind.startswith(_WEIGHTED):
        return _activate(Moments(0.0, target), activation_of(operation))
    if kind == "Normalization" and operation.input_mean is None:
        return inputs[0]  # what it learns from data is 0 and 1 until then
    if kind in _NORMALISE:
        return Moments(0.0, _NORMALISED)
    if kind in (*_SUMS, *_PRODUCTS):
        return _combine(operation, [*inputs, *(Moments(number, 0.0) for number in constants)])
    if kind in _MIXES:
        return _mix(inputs, sizes)
    if "AveragePool" in kind:
        agreeing = math.sqrt(math.sqrt(max(shrink, 1.0)))  # neighbours are much alike
        return Moments(inputs[0].mean, inputs[0].variance / min(agreeing, 2.0))
    if "MaxPool" in kind:
        return Moments(inputs[0].mean + 0.3 * math.sqrt(inputs[0].variance), inputs[0].variance)
    if kind == "Rescaling" and isinstance(operation.scale, (int, float)):
        scale = float(operation.scale)
        return Moments(inputs[0].mean * scale + float(operation.offset), inputs[0].variance * scale * scale)
    return _activate(inputs[0], activation_of(operation))


def _combine(operation: Any, inputs: Sequence[Moments]) -> Moments:
    """A sum or a product, as if its inputs were independent."""
    kind = type(operation).__name__
    if kind == "CustomScaleLayer":
        scale = float(operation.scale)
        inputs = [inputs[0], Moments(inputs[1].mean * scale, inputs[1].variance * scale * scale)]
    if kind == "Subtract":
        inputs = [inputs[0], *(Moments(-m.mean, m.variance) for m in inputs[1:])]
    if kind in _SUMS:
        return Moments(math.fsum(m.mean for m in inputs), math.fsum(m.variance for m in inputs))
    mean, square = math.prod(m.mean for m in inputs), math.prod(m.square for m in inputs)
    return Moments(mean, square - mean * mean)


def _mix(inputs: Sequence[Moments], sizes: Sequence[int]) -> Moments:
    """Some elements from here, some from there."""
    total = sum(sizes)
    mean = math.fsum(m.mean * n for m, n in zip(inputs, sizes, strict=True)) / total
    return Moments(mean, math.fsum(m.square * n for m, n in zip(inputs, sizes, strict=True)) / total - mean * mean)


def _activate(before: Moments, activation: str | None) -> Moments:
    """The mean over sixteen equally likely values of a normal distribution."""
    function = _ACTIVATIONS.get(activation or "")
    if function is None:
        return before
    deviation = math.sqrt(before.variance)
    made = [function(before.mean + sign * node * deviation) for node in _NODES for sign in (-1, 1)]
    mean = math.fsum(made) / len(made)
    return Moments(mean, max(math.fsum((value - mean) ** 2 for value in made) / len(made), 1e-12))
