"""Functions of each element as LiteRT kernels, plain or with the same bits on every processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.errors import ModelError
from pipeline.lite.flatfile import ACTIVATIONS, Array, FlatFile, Ref
from pipeline.lite.shapes import Shapes

_LEAST_ROOT = 1e-19
"""Less than the root of any normal number, and no zero: what zero is divided by."""
_GREATEST_ROOT = 2e19
"""More than the root of any finite number, and finite: what infinity is divided by."""
_BINARY = {
    "add": "ADD",
    "subtract": "SUB",
    "multiply": "MUL",
    "divide": "DIV",
    "maximum": "MAXIMUM",
    "minimum": "MINIMUM",
}
_FUSING = frozenset({"add", "subtract", "multiply", "divide"})
_UNARY = {
    "relu": "RELU",
    "relu6": "RELU6",
    "hard_silu": "HARD_SWISH",
    "tanh": "TANH",
    "exp": "EXP",
    "log": "LOG",
    "square": "SQUARE",
    "abs": "ABS",
}


class Elementwise(Shapes):
    """`everywhere` asks for the same bits on every processor: approximations that differ are built from others."""

    def __init__(self, file: FlatFile, weights: Callable[[int], Array], *, everywhere: bool) -> None:
        super().__init__(file, weights)
        self.everywhere = everywhere

    def binary(self, kind: str, x: Ref, y: Ref, activation: str = "none") -> Ref:
        """Arithmetic of two tensors, or of one and a constant; sizes of 1 are repeated."""
        code = _BINARY[kind]
        options = {"fusedActivationFunction": ACTIVATIONS[activation]} if kind in _FUSING else {}
        if not options and activation != "none":
            return self.unary(activation, self.binary(kind, x, y))
        return self.file.add(code, [x, y], _broadcast(x.shape, y.shape), dtype=x.dtype, **options)

    def unary(self, kind: str, x: Ref, options: Mapping[str, Any] | None = None) -> Ref:
        """A function of each element."""
        lowered = getattr(self, f"_{kind}", None)
        if lowered is not None:
            return lowered(x, **(options or {}))  # type: ignore[no-any-return]
        return self.file.add(_UNARY[kind], [x], x.shape)

    def filled(self, x: Ref, value: float) -> Ref:
        """A map of one value everywhere."""
        same = self.scalar(value)
        return self.binary("minimum", self.binary("maximum", x, same), same)

    def _sigmoid(self, x: Ref) -> Ref:
        if not self.everywhere:
            return self.file.add("LOGISTIC", [x], x.shape)
        half = self.scalar(0.5)
        bent = self.file.add("TANH", [self.binary("multiply", x, half)], x.shape)
        return self.binary("add", self.binary("multiply", bent, half), half)

    def _silu(self, x: Ref) -> Ref:
        if not self.everywhere:
            return self.binary("multiply", x, self._sigmoid(x))
        return self.silu_of_half(self.binary("multiply", x, self.scalar(0.5)))

    def silu_of_half(self, half: Ref) -> Ref:
        """X / (1 + exp(-x)) from x / 2, which costs a convolution before it nothing: h + h tanh(h)."""
        bent = self.file.add("TANH", [half], half.shape)
        return self.binary("multiply", half, self.binary("add", bent, self.scalar(1.0)))

    def sigmoid_of_half(self, half: Ref) -> Ref:
        """1 / (1 + exp(-x)) from x / 2: 0.5 + 0.5 tanh(h)."""
        bent = self.file.add("TANH", [half], half.shape)
        return self.binary("add", self.binary("multiply", bent, self.scalar(0.5)), self.scalar(0.5))

    def _elu(self, x: Ref) -> Ref:
        if not self.everywhere:
            return self.file.add("ELU", [x], x.shape)
        below = self.file.add("EXP", [self.binary("minimum", x, self.scalar(0.0))], x.shape)
        return self.binary("maximum", x, self.binary("subtract", below, self.scalar(1.0)))

    def _negative(self, x: Ref) -> Ref:
        return self.file.add("NEG", [x], x.shape)

    def _hard_sigmoid(self, x: Ref) -> Ref:
        return self.binary("multiply", self.binary("add", x, self.scalar(3.0), "relu6"), self.scalar(1.0 / 6.0))

    def _gelu(self, x: Ref) -> Ref:
        return self.file.add("GELU", [x], x.shape, approximate=False)

    def _gelu_tanh(self, x: Ref) -> Ref:
        return self.file.add("GELU", [x], x.shape, approximate=True)

    def _sqrt(self, x: Ref) -> Ref:
        """By logarithms, which are exact to 4e-6 and end at 2.4e38, and a step of Newton's: then exact to 2e-7."""
        if not self.everywhere:
            return self.file.add("SQRT", [x], x.shape)
        half = self.scalar(0.5)
        near = self.file.add("EXP", [self.binary("multiply", self.file.add("LOG", [x], x.shape), half)], x.shape)
        divisor = self.binary(
            "minimum", self.binary("maximum", near, self.scalar(_LEAST_ROOT)), self.scalar(_GREATEST_ROOT)
        )
        above = self.binary("divide", x, divisor)
        return self.binary("multiply", self.binary("add", near, above), half)

    def _rsqrt(self, x: Ref) -> Ref:
        if not self.everywhere:
            return self.file.add("RSQRT", [x], x.shape)
        return self.binary("divide", self.scalar(1.0), self._sqrt(x))

    def _softplus(self, x: Ref) -> Ref:
        falling = self.file.add("EXP", [self._negative(self.file.add("ABS", [x], x.shape))], x.shape)
        logs = self.file.add("LOG", [self.binary("add", falling, self.scalar(1.0))], x.shape)
        return self.binary("add", self.file.add("RELU", [x], x.shape), logs)

    def _leaky_relu(self, x: Ref, slope: float) -> Ref:
        return self.file.add("LEAKY_RELU", [x], x.shape, alpha=float(slope))

    def _clip(self, x: Ref, low: float, high: float) -> Ref:
        return self.binary("minimum", self.binary("maximum", x, self.scalar(low)), self.scalar(high))

    def prelu(self, x: Ref, slopes: Ref) -> Ref:
        """x, or below zero x times its channel's slope."""
        return self.file.add("PRELU", [x, slopes], x.shape)


def _broadcast(x: Sequence[int], y: Sequence[int]) -> tuple[int, ...]:
    try:
        return tuple(int(n) for n in np.broadcast_shapes(tuple(x), tuple(y)))
    except ValueError:
        raise ModelError(f"shapes {tuple(x)} and {tuple(y)} do not go together") from None
