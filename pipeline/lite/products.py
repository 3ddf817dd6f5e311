"""Products of matrices and sums over axes as LiteRT kernels: dense layers, reductions, softmax, layer norm.

Between x86 with FMA and ARM products of a single row or of few channels are summed in different orders; here they are
padded to sizes for which the order is one (docs/exactness.md).
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.errors import ModelError
from pipeline.lite.elementwise import Elementwise
from pipeline.lite.flatfile import ACTIVATIONS, Array, FlatFile, Ref

F = np.float32
_LANES = 8
"""Output channels from which on every processor takes the kernel that sums in order."""
_IN_ORDER = frozenset({"x86_64", "AMD64"})
"""Here single rows and few channels are summed like all others: what ARM needs for them would change no bit."""
_REDUCTIONS = {"mean": "MEAN", "sum": "SUM", "max": "REDUCE_MAX"}


class Products(Elementwise):
    """Sums over an axis, with `everywhere` in one order on every processor."""

    def __init__(self, file: FlatFile, weights: Callable[[int], Array], *, everywhere: bool) -> None:
        super().__init__(file, weights, everywhere=everywhere)
        self._minds_rows = everywhere and platform.machine() not in _IN_ORDER

    def dense(self, x: Ref, arrays: Sequence[int], activation: str, *, scale: float = 1.0) -> Ref:
        """A dense layer over the last axis; arrays: weights (units, inputs), one or several side by side, then bias.

        Several are slices of one row: their products are added, which is more exact than one long sum.
        """
        *slices, bias = arrays
        units = self._weights(bias).shape[0]
        widths = [self._weights(one).shape for one in slices]
        if any(len(w) != 2 or w[0] != units for w in widths) or sum(w[1] for w in widths) != x.shape[-1]:  # noqa: PLR2004
            raise ModelError(f"a dense layer of weights {widths[:4]} does not fit {x.shape}")
        if len(slices) > 1 and len(x.shape) != 2:  # noqa: PLR2004
            raise ModelError(f"a dense layer in slices takes a row, not {x.shape}")
        is_one = self._minds_rows and math.prod(x.shape[:-1]) == 1
        lanes = lanes_for(units, is_plain=True) if self._minds_rows else units
        given = self.concat([x, x], len(x.shape) - 2) if is_one else x
        made, begin = None, 0
        for number, one in enumerate(slices):
            width = self._weights(one).shape[1]
            is_last = number == len(slices) - 1
            part = given
            if len(slices) > 1:
                part = self.slice(given, (0, begin), (given.shape[0], width))
            own = activation if len(slices) == 1 else "none"
            product = self._product(part, one, bias if is_last else None, lanes, own, scale)
            made = product if made is None else self.binary("add", made, product, activation if is_last else "none")
            begin += width
        assert made is not None
        made = self.first(made, len(x.shape) - 2) if is_one else made
        return made if lanes == units else self._channels(made, 0, units)

    def _product(self, x: Ref, weights: int, bias: int | None, lanes: int, activation: str, scale: float) -> Ref:
        units = self._weights(weights).shape[0]
        widen = None if lanes == units and scale == 1.0 else ("lanes", lanes, 1, scale)
        inputs: list[Ref | None] = [x, self.derived(weights, widen, lambda w: widened(w, 1, lanes) * F(scale))]
        inputs.append(None if bias is None else self.derived(bias, widen, lambda b: widened(b, 1, lanes) * F(scale)))
        return self.file.add(
            "FULLY_CONNECTED",
            inputs,
            (*x.shape[:-1], lanes),
            fusedActivationFunction=ACTIVATIONS[activation],
            keepNumDims=len(x.shape) != 2,  # noqa: PLR2004
        )

    def matmul(self, x: Ref, y: Ref, *, transpose_x: bool = False, transpose_y: bool = False) -> Ref:
        """Products of matrices, one pair for each of the leading axes."""
        rows = x.shape[-1] if transpose_x else x.shape[-2]
        columns = y.shape[-2] if transpose_y else y.shape[-1]
        if x.shape[:-2] != y.shape[:-2]:
            raise ModelError(f"a product of {x.shape} and {y.shape}")
        is_one = self._minds_rows and rows == 1
        if is_one:
            x, rows = self.concat([x, x], len(x.shape) - (1 if transpose_x else 2)), 2
        shape = (*x.shape[:-2], rows, columns)
        made = self.file.add("BATCH_MATMUL", [x, y], shape, adjX=transpose_x, adjY=transpose_y)
        return self.first(made, len(shape) - 2) if is_one else made

    def reduce(self, kind: str, x: Ref, axes: Sequence[int], keep: bool) -> Ref:
        """Mean, sum or max over axes."""
        last = len(x.shape) - 1
        if self.everywhere and kind != "max" and last in axes:  # processors sum channels in different orders
            others = [i for i in axes if i != last]
            x = self.reduce(kind, x, others, True) if others else x
            made = self._by_ones(x, 1.0 / x.shape[last] if kind == "mean" else 1.0)
            return made if keep else self.reshape(made, [n for i, n in enumerate(made.shape) if i not in axes])
        shape = tuple(1 if i in axes else size for i, size in enumerate(x.shape) if keep or i not in axes)
        return self.file.add(_REDUCTIONS[kind], [x, self.file.numbers(*axes)], shape, keepDims=keep)

    def softmax(self, x: Ref) -> Ref:
        """Along the last axis."""
        if not self.everywhere:
            return self.file.add("SOFTMAX", [x], x.shape, beta=1.0)
        largest = self.reduce("max", x, (len(x.shape) - 1,), True)
        exponents = self.file.add("EXP", [self.binary("subtract", x, largest)], x.shape)
        return self.binary("divide", exponents, self._by_ones(exponents, 1.0))

    def layer_norm(self, x: Ref, epsilon: float, scale: Ref | None, shift: Ref | None) -> Ref:
        """Along the last axis."""
        last = (len(x.shape) - 1,)
        centred = self.binary("subtract", x, self.reduce("mean", x, last, True))
        variance = self.reduce("mean", self.binary("multiply", centred, centred), last, True)
        variance = self.binary("add", variance, self.scalar(epsilon))
        made = self.binary("multiply", centred, self._rsqrt(variance))
        made = made if scale is None else self.binary("multiply", made, scale)
        return made if shift is None else self.binary("add", made, shift)

    def _by_ones(self, x: Ref, value: float) -> Ref:
        """The sum over the last axis, times a value; in one order on every processor."""
        rows = math.prod(x.shape[:-1])
        is_one = rows == 1 and self._minds_rows
        given = self.concat([x, x], len(x.shape) - 2) if is_one else x
        shape = (_LANES, x.shape[-1])
        ones = self.file.constant(np.full(shape, value, np.float32), ("full", shape, value))
        made = self.file.add(
            "FULLY_CONNECTED",
            [given, ones, None],
            (*given.shape[:-1], _LANES),
            fusedActivationFunction=ACTIVATIONS["none"],
            keepNumDims=len(x.shape) != 2,  # noqa: PLR2004
        )
        made = self.first(made, len(x.shape) - 2) if is_one else made
        return self._channels(made, 0, 1)


def lanes_for(channels: int, *, is_plain: bool) -> int:
    """Output channels for which ARM takes the kernel that sums in order; `is_plain` for products without a window.

    It takes another for less than eight, and in plain products where padding to eight would cost it over a hundredth.
    """
    missing = -channels % _LANES
    if channels >= _LANES and not (is_plain and missing > 1 and missing * 100 > channels):
        return channels
    return channels + missing


def widened(array: Array, groups: int, lanes: int) -> Array:
    """The first axis, group by group, with zeros up to `lanes`."""
    grouped = array.reshape(groups, -1, *array.shape[1:])
    missing = lanes - grouped.shape[1]
    if not missing:
        return array
    wide = np.pad(grouped, ((0, 0), (0, missing), *(((0, 0),) * (array.ndim - 1))))
    return wide.reshape(groups * lanes, *array.shape[1:])
