"""Mean and variance of each activation of a randomly weighted network, estimated layer by layer.

Seeded weights are scaled by it, so that signals neither die nor explode however deep the network. Only + - * / and
square roots, which IEEE 754 rounds alike everywhere: the estimate, so the weights, are the same bits on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_RECTIFIERS = {
    *("relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "silu"),
    *("swish", "gelu", "hard_silu", "hard_swish", "mish", "softplus"),
}
_GATES = {"sigmoid", "hard_sigmoid"}
_LAYERS_AS_ACTIVATIONS = {"ReLU": "relu", "LeakyReLU": "relu", "PReLU": "relu", "ELU": "relu", "Softmax": "softmax"}
_NORMALISE = ("BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization", "Normalization")
_SUMS = ("Add", "Subtract")
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
    name = getattr(getattr(operation, "activation", None), "__name__", None)
    return name if name is not None else kind.lower() if kind.lower() in _RECTIFIERS | _GATES else None


def after(operation: Any, inputs: Sequence[Moments], shrink: float, target: float) -> Moments:
    """Moments of what an operation makes of `inputs`.

    `shrink` is how many elements it averages or picks from for one of its own (pooling); `target` the variance that its
    weights were scaled for, if it has any.
    """
    kind = type(operation).__name__
    if kind.startswith(_WEIGHTED):
        return _activate(Moments(0.0, target), activation_of(operation))
    if kind in _NORMALISE:
        return Moments(0.0, 1.0)
    if kind in (*_SUMS, *_PRODUCTS, *_MIXES):
        return _merge(kind, inputs)
    if "AveragePool" in kind:
        return Moments(inputs[0].mean, inputs[0].variance / min(math.sqrt(max(shrink, 1.0)), 2.0))  # neighbours agree
    if "MaxPool" in kind:
        return Moments(inputs[0].mean + 0.3 * math.sqrt(inputs[0].variance), inputs[0].variance)
    if kind == "Rescaling" and isinstance(operation.scale, (int, float)):
        scale = float(operation.scale)
        return Moments(inputs[0].mean * scale + float(operation.offset), inputs[0].variance * scale * scale)
    return _activate(inputs[0], activation_of(operation))


def _merge(kind: str, inputs: Sequence[Moments]) -> Moments:
    if kind in _SUMS:
        return Moments(sum(m.mean for m in inputs), sum(m.variance for m in inputs))
    if kind in _PRODUCTS:
        mean, square = math.prod(m.mean for m in inputs), math.prod(m.square for m in inputs)
        return Moments(mean, square - mean * mean)
    mean = sum(m.mean for m in inputs) / len(inputs)
    return Moments(mean, sum(m.square for m in inputs) / len(inputs) - mean * mean)


def _activate(before: Moments, activation: str | None) -> Moments:
    if activation in _RECTIFIERS:
        return rectified(before)
    if activation in _GATES:
        return Moments(0.5, 0.04)
    if activation == "tanh":
        return Moments(0.0, before.variance / (1 + before.variance))
    return before


def rectified(before: Moments) -> Moments:
    """Moments of max(x, 0) for a normal x; Phi is approximated by an algebraic curve, exact at a mean of 0."""
    m, s2 = before.mean, before.variance
    share = 0.5 + 0.5 * m / math.sqrt(m * m + 1.6 * s2) if s2 > 0 else 1.0
    mean = 0.5 * (m + math.sqrt(m * m + 0.6366 * s2))
    return Moments(mean, max(s2 * share + m * mean - mean * mean, 1e-12))
