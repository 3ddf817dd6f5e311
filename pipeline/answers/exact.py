"""Functions of float32 arrays that give the same bits on every processor.

NumPy's own exp and its sums choose kernels by the processor. Here are only additions, multiplications, divisions and
roundings, each of one operation of IEEE 754, and sums in one order.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[Any]
_F = np.float32

_LOG2_E = _F(1.44269504)
_LN2_HIGH, _LN2_LOW = _F(0.693359375), _F(-2.12194440e-4)
_POLYNOMIAL = tuple(
    map(_F, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1))
)
_LEAST, _MOST = _F(-87.0), _F(88.0)


def exp(x: Floats) -> Floats:
    """The power of e by `x`, float32, within 2 units of the last place; Cephes' `expf`. Of 88 at most, and -87."""
    x = np.minimum(np.maximum(x.astype(_F), _LEAST), _MOST)
    halves = np.floor(x * _LOG2_E + _F(0.5))
    rest = x - halves * _LN2_HIGH
    rest = rest - halves * _LN2_LOW
    y = np.full_like(rest, _POLYNOMIAL[0])
    for factor in _POLYNOMIAL[1:]:
        y = y * rest + factor
    y = y * (rest * rest) + rest + _F(1)
    powers: Floats = np.ldexp(y, halves.astype(np.int32))
    return powers


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + e^-x), float32."""
    return _F(1) / (_F(1) + exp(-x.astype(_F)))


def softmax(x: Floats, axis: int = -1) -> Floats:
    """Softmax along an axis, float32, summed from the first to the last."""
    powers = exp(x.astype(_F) - x.max(axis=axis, keepdims=True).astype(_F))
    return powers / total(powers, axis)


def total(x: Floats, axis: int = -1) -> Floats:
    """The sum along an axis, added from the first to the last; the axis stays, with 1 element."""
    return np.take(np.add.accumulate(x, axis=axis), [x.shape[axis] - 1], axis=axis)


def activated(x: Floats, activation: str) -> Floats:
    """Scores of outputs, float32: as they are, or by `sigmoid` or `softmax` over the last axis."""
    if activation == "sigmoid":
        return sigmoid(x)
    return softmax(x) if activation == "softmax" else x.astype(_F)
