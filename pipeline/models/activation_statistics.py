"""Mean and variance of each activation of a randomly weighted network, estimated layer by layer.

Seeded weights are scaled by it, so that signals neither die nor explode however deep the network. Only + - * / and
square roots, which IEEE 754 rounds alike everywhere: the estimate, so the weights, are the same bits on every machine.
(And `math.fsum`, which is exact; `sum` of floats differs between versions of Python.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
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

_INCREASING = frozenset(_ACTIVATIONS) - {"silu", "swish", "mish", "gelu", "hard_silu", "hard_swish"}

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

_MOST_DRAWN = 64
"""Of more than sixteen values that many, the largest is nearly always the last."""

_SUMS = ("Add", "Subtract", "CustomScaleLayer")
"""The last is Inception-ResNet-v2's: x + y * scale."""

_PRODUCTS = ("Multiply",)
_MIXES = ("Concatenate", "Average", "Maximum", "Minimum")
_WEIGHTED = ("Conv", "DepthwiseConv", "SeparableConv", "Dense", "EinsumDense", "Embedding", "LSTM", "GRU", "SimpleRNN")


@dataclass(frozen=True, slots=True)
class ActivationStatistics:
    """Over all elements of a tensor, and over inputs.

    `shared` is the part of the variance that neighbouring positions of a channel have in common: as in Schoenholz et
    al., "Deep Information Propagation", it grows with each layer. What a pooling window makes of its elements hangs on
    it. `normal` is what an increasing `activation` made it of.
    """

    mean: float
    variance: float
    shared: float = 0.0
    normal: ActivationStatistics | None = None
    activation: str | None = None

    @property
    def square(self) -> float:
        """The mean of the squares."""
        return self.variance + self.mean * self.mean

    @property
    def overlap(self) -> float:
        """The mean of the products of two neighbours."""
        return self.shared + self.mean * self.mean

    @property
    def agreement(self) -> float:
        """The share of the variance that neighbours have in common."""
        return self.shared / self.variance if self.variance > 0 else 1.0


INPUTS = {
    "tf": ActivationStatistics(0.0, 0.3, 0.15),
    "torch": ActivationStatistics(0.0, 1.0, 0.5),
    "caffe": ActivationStatistics(0.0, 4500.0, 2250.0),
    "unit": ActivationStatistics(0.5, 0.08, 0.04),
    "none": ActivationStatistics(127.5, 4500.0, 2250.0),
}
"""Of a picture's pixels, by preprocessing mode. Neighbours share half: between noise and a photograph."""


def activation_of(operation: Any) -> str | None:
    """The name of the activation that an operation is or ends with."""
    kind = type(operation).__name__
    if kind in _LAYERS_AS_ACTIVATIONS:
        return _LAYERS_AS_ACTIVATIONS[kind]
    return getattr(getattr(operation, "activation", None), "__name__", None)


def after(
    operation: Any,
    inputs: Sequence[ActivationStatistics],
    *,
    sizes: Sequence[int] = (),
    constants: Sequence[float] = (),
    shrink: float = 1.0,
    target: float = 1.0,
) -> ActivationStatistics:
    """Statistics of what an operation makes of `inputs`, which have `sizes` elements, and of plain numbers.

    `shrink` is how many times fewer elements it makes than it reads; `target` the variance that its weights were scaled
    for, if it has any.
    """
    sizes = sizes or (1,) * len(inputs)
    kind = type(operation).__name__
    if kind.startswith(_WEIGHTED):
        alike = inputs[0].overlap / inputs[0].square if inputs[0].square > 0 else 1.0
        return _activate(ActivationStatistics(0.0, target, target * alike), activation_of(operation))
    if kind == "Normalization" and operation.input_mean is None:
        return inputs[0]  # what it learns from data is 0 and 1 until then
    if kind in _NORMALISE:
        return ActivationStatistics(0.0, _NORMALISED, _NORMALISED - (1 - inputs[0].agreement))
    if kind in (*_SUMS, *_PRODUCTS):
        return _combine(operation, [*inputs, *(ActivationStatistics(number, 0.0) for number in constants)])
    if kind in _MIXES:
        return _mix(inputs, sizes)
    if "AveragePool" in kind or "MaxPool" in kind:
        return _pool(operation, inputs[0], shrink)
    if kind == "Rescaling" and isinstance(operation.scale, (int, float)):
        scale = float(operation.scale)
        square = scale * scale
        mean = inputs[0].mean * scale + float(operation.offset)
        return ActivationStatistics(mean, inputs[0].variance * square, inputs[0].shared * square)
    return _activate(inputs[0], activation_of(operation))


def _combine(operation: Any, inputs: Sequence[ActivationStatistics]) -> ActivationStatistics:
    """A sum or a product, as if its inputs were independent."""
    kind = type(operation).__name__
    if kind == "CustomScaleLayer":
        scale = float(operation.scale)
        second = inputs[1]
        inputs = [
            inputs[0],
            ActivationStatistics(second.mean * scale, second.variance * scale * scale, second.shared * scale * scale),
        ]
    if kind == "Subtract":
        inputs = [inputs[0], *(ActivationStatistics(-m.mean, m.variance, m.shared) for m in inputs[1:])]
    if kind in _SUMS:
        return ActivationStatistics(
            math.fsum(m.mean for m in inputs),
            math.fsum(m.variance for m in inputs),
            math.fsum(m.shared for m in inputs),
        )
    mean, square = math.prod(m.mean for m in inputs), math.prod(m.square for m in inputs)
    return ActivationStatistics(mean, square - mean * mean, math.prod(m.overlap for m in inputs) - mean * mean)


def _mix(inputs: Sequence[ActivationStatistics], sizes: Sequence[int]) -> ActivationStatistics:
    """Some elements from here, some from there."""
    total = sum(sizes)

    def mixed(values: Iterable[float]) -> float:
        return math.fsum(value * n for value, n in zip(values, sizes, strict=True)) / total

    mean = mixed(m.mean for m in inputs)
    return ActivationStatistics(
        mean, mixed(m.square for m in inputs) - mean * mean, mixed(m.overlap for m in inputs) - mean * mean
    )


def _pool(operation: Any, x: ActivationStatistics, shrink: float) -> ActivationStatistics:
    """An average keeps what its elements share, and 1/n of what is each one's own; a maximum adds the largest of that.

    The elements of a global pooling are farther apart than neighbours and share half; they are many.
    """
    window = getattr(operation, "pool_size", None)
    shared = x.shared if window is not None else x.variance / 2
    own = max(x.variance - shared, 0.0)
    if "AveragePool" in type(operation).__name__:
        return ActivationStatistics(x.mean, shared + own / math.prod(window) if window is not None else shared, shared)
    if x.normal is not None:  # the largest of what is activated is the largest, activated
        return _activate(_pool(operation, x.normal, shrink), x.activation)
    largest = _largest(math.prod(window) if window is not None else max(round(shrink), 1))
    return ActivationStatistics(x.mean + largest.mean * math.sqrt(own), shared + largest.variance * own, shared)


def _largest(count: int) -> ActivationStatistics:
    """Statistics of the largest of `count` independent standard normal values. In whole numbers up to the last
    division, so exact.
    """
    values = sorted((*_NODES, *(-node for node in _NODES)))
    n, count = len(values), min(count, _MOST_DRAWN)
    shares = [((i + 1) ** count - i**count) / n**count for i in range(n)]
    mean = math.fsum(value * share for value, share in zip(values, shares, strict=True))
    square = math.fsum(value * value * share for value, share in zip(values, shares, strict=True))
    return ActivationStatistics(mean, square - mean * mean)


def _activate(before: ActivationStatistics, activation: str | None) -> ActivationStatistics:
    """The mean over sixteen equally likely values of a normal distribution."""
    function = _ACTIVATIONS.get(activation or "")
    if function is None:
        return before
    made = _applied(function, before.mean, math.sqrt(before.variance))
    common, own = math.sqrt(max(before.shared, 0.0)), math.sqrt(max(before.variance - before.shared, 0.0))
    means = [_mean(_applied(function, at, own)) for at in _applied(float, before.mean, common)]
    origin = (before, activation) if activation in _INCREASING else (None, None)
    return ActivationStatistics(_mean(made), max(_variance(made), 1e-12), _variance(means), *origin)


def _applied(function: Callable[[float], float], mean: float, deviation: float) -> list[float]:
    return [function(mean + sign * node * deviation) for node in _NODES for sign in (-1, 1)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) * (value - mean) for value in values) / len(values)
