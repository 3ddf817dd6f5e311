"""Each operation as LiteRT kernels: in their plain forms, or in forms that give the same bits on every processor.

XNNPACK sums every element of a convolution over kernel and channels in one order, whatever the size of the map, so that
tiles are exact by construction. Between x86 with FMA and ARM some kernels differ, though: approximations of sigmoid,
softmax, roots; depthwise kernels of 25 taps; convolutions of few channels; products of a single row. `everywhere`
builds these from kernels that were found identical (docs/exactness.md). Knows shapes and kernels; nothing of blocks.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import ModelError
from pipeline.lite.flatfile import ACTIVATIONS, SAME, VALID, Array, FlatFile, Ref

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]

NO_PADS: Pads = ((0, 0), (0, 0))
_MAP_RANK = 4
_LANES = 8
"""Output channels from which on every processor takes the kernel that sums in order."""
_TAPS = 9
"""A depthwise kernel of up to so many taps is summed with one accumulator everywhere..."""
_MOST_TAPS = 25
"""...and XNNPACK has none of its own for more than these: it computes channel after channel, 45 times as slow."""
_SHORT = 3
_LEAST_ROOT = 1e-19
"""Less than the root of any normal number, and no zero: what zero is divided by."""
_IN_ORDER = frozenset({"x86_64", "AMD64"})
"""Here single rows and few channels are summed like all others: what ARM needs for them would change no bit."""
_LONGEST_APART = 9


class Geometry(NamedTuple):
    """Stride, dilation and padding of a window, along rows and columns."""

    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pads: Pads = NO_PADS


def reach(kernel: int, dilation: int) -> int:
    """From a window's first input to its last, both counted."""
    return dilation * (kernel - 1) + 1


def _made(size: int, kernel: int, stride: int, dilation: int, pads: Pair) -> int:
    return (size + sum(pads) - reach(kernel, dilation)) // stride + 1


def _same_pads(size: int, kernel: int, stride: int, dilation: int) -> Pair:
    missing = max(0, (-(-size // stride) - 1) * stride + reach(kernel, dilation) - size)
    return missing // 2, missing - missing // 2


class Forms:
    """Appends operations to a file. `weights` gives a package's array by its id."""

    def __init__(self, file: FlatFile, weights: Callable[[int], Array], *, everywhere: bool) -> None:
        self.file, self._weights, self.everywhere = file, weights, everywhere
        self._minds_rows = everywhere and platform.machine() not in _IN_ORDER

    def array(self, index: int) -> Ref:
        """A package's array as it is."""
        return self.file.constant(self._weights(index), ("array", index))

    def derived(self, index: int, how: object, make: Callable[[Array], Array]) -> Ref:
        """A constant that `make` derives from a package's array, once for each key `how`; None leaves it as it is."""
        if how is None:
            return self.array(index)
        key = ("array", index, how)
        known = self.file.known(key)
        return known if known is not None else self.file.constant(make(self._weights(index)), key)

    def scalar(self, value: float) -> Ref:
        """A constant number."""
        return self.file.constant(np.array(value, np.float32), ("scalar", float(value)))

    # Windows.

    def is_pointwise(self, arrays: Sequence[int]) -> bool:
        """Return whether a convolution of these arrays looks at one place only."""
        return bool(arrays) and self._weights(arrays[0]).shape[1:3] == (1, 1)

    def conv(self, x: Ref, arrays: Sequence[int], geometry: Geometry, activation: str, *, scale: float = 1.0) -> Ref:
        """Convolution; arrays: kernel (channels out, rows, columns, channels in of a group), bias.

        `scale`, a power of two, multiplies the result without a change of any other bit.
        """
        out, *sizes, within = self._weights(arrays[0]).shape
        rank(x, _MAP_RANK)
        groups = x.shape[3] // within
        if within * groups != x.shape[3] or out % groups or self._weights(arrays[1]).shape != (out,):
            raise ModelError(f"a convolution of kernel {(out, *sizes, within)} does not fit a map of {x.shape}")
        is_plain = groups == 1 and sizes == [1, 1]
        lanes = _lanes(out // groups, is_plain=is_plain) if self._minds_rows else out // groups
        how = None if lanes * groups == out and scale == 1.0 else ("lanes", lanes, groups, scale)
        kernel, bias = (self.derived(one, how, lambda w: _widened(w, groups, lanes) * F(scale)) for one in arrays)
        x, geometry, is_one = self._placed(x, (sizes[0], sizes[1]), geometry)
        padding, x = self._padding(x, (sizes[0], sizes[1]), geometry)
        shape = (1, *_sizes(x, (sizes[0], sizes[1]), geometry, padding), lanes * groups)
        made = self.file.add(
            "CONV_2D",
            [x, kernel, bias],
            shape,
            padding=padding,
            strideH=geometry.stride[0],
            strideW=geometry.stride[1],
            dilationHFactor=geometry.dilation[0],
            dilationWFactor=geometry.dilation[1],
            fusedActivationFunction=ACTIVATIONS[activation],
        )
        made = self.first(made, 1) if is_one else made
        return made if lanes * groups == out else self._narrowed(made, groups, lanes, out // groups)

    def depthwise(
        self, x: Ref, arrays: Sequence[int], geometry: Geometry, activation: str, *, scale: float = 1.0
    ) -> Ref:
        """Depthwise convolution; arrays: kernel (1, rows, columns, channels x multiplier), bias. `scale` as above.

        A kernel of 10 to 25 taps is summed in two ways, one of more takes a slow way everywhere: such a kernel becomes
        the sum of several of up to nine taps, each with the others' places between its own.
        """
        rank(x, _MAP_RANK)
        one, rows, columns, out = self._weights(arrays[0]).shape
        if one != 1 or out % x.shape[3] or self._weights(arrays[1]).shape != (out,):
            raise ModelError(f"a depthwise convolution of kernel {(one, rows, columns, out)} does not fit {x.shape}")
        taps = rows * columns
        is_apart = (taps > _TAPS if self.everywhere else taps > _MOST_TAPS) and max(rows, columns) <= _LONGEST_APART
        pieces = [(r, c) for r in _apart(rows) for c in _apart(columns)] if is_apart else [(None, None)]
        parts = []
        for number, piece in enumerate(pieces):
            bias = self._bias(arrays[1], scale) if number == 0 else self._zeros(out)
            own = activation if len(pieces) == 1 else "none"
            parts.append(self._depthwise_piece(x, arrays[0], bias, piece, geometry, own, scale))
        made = parts[0]
        for number, part in enumerate(parts[1:], start=2):
            made = self.binary("add", made, part, activation if number == len(parts) else "none")
        return made

    def _bias(self, index: int, scale: float) -> Ref:
        return self.derived(index, None if scale == 1.0 else ("scale", scale), lambda b: b * F(scale))

    def _zeros(self, size: int) -> Ref:
        return self.file.constant(np.zeros(size, np.float32), ("zeros", size))

    def _depthwise_piece(
        self,
        x: Ref,
        kernel: int,
        bias: Ref,
        piece: tuple[Taps | None, Taps | None],
        geometry: Geometry,
        activation: str,
        scale: float,
    ) -> Ref:
        """Some taps of a depthwise kernel, as a kernel of their own over the places that they read."""
        _, rows, columns, out = self._weights(kernel).shape
        r, c = piece[0] or Taps(0, 1, rows), piece[1] or Taps(0, 1, columns)
        how = None if piece == (None, None) and scale == 1.0 else ("taps", r, c, scale)
        taps = self.derived(kernel, how, lambda w: _taken(w, r, c) * F(scale))
        pads, dilation = [], []
        for axis, (piece_taps, whole) in enumerate(((r, rows), (c, columns))):
            step, stride = geometry.dilation[axis], geometry.stride[axis]
            made = _made(x.shape[1 + axis], whole, stride, step, geometry.pads[axis])
            begin = piece_taps.first * step - geometry.pads[axis][0]
            end = begin + (made - 1) * stride + reach(piece_taps.size, piece_taps.step * step)
            # a piece of one tap has no dilation
            dilation.append(piece_taps.step * step if piece_taps.size > 1 else 1)
            pads.append((-begin, end - x.shape[1 + axis]))
        geometry = Geometry(geometry.stride, (dilation[0], dilation[1]), (pads[0], pads[1]))
        padding, x = self._padding(x, (r.size, c.size), geometry)
        return self.file.add(
            "DEPTHWISE_CONV_2D",
            [x, taps, bias],
            (1, *_sizes(x, (r.size, c.size), geometry, padding), out),
            padding=padding,
            strideH=geometry.stride[0],
            strideW=geometry.stride[1],
            dilationHFactor=geometry.dilation[0],
            dilationWFactor=geometry.dilation[1],
            depthMultiplier=out // x.shape[3],
            fusedActivationFunction=ACTIVATIONS[activation],
        )

    def pool(self, x: Ref, kind: str, size: Pair, geometry: Geometry) -> Ref:
        """Max or average pooling; `kind` is max_pool or average_pool, the latter without pads or with those of SAME."""
        rank(x, _MAP_RANK)
        if kind == "max_pool":
            padding, x = self._padding(x, size, geometry, lowest=True)
        else:
            padding = SAME if any(map(any, geometry.pads)) else VALID
        return self.file.add(
            "MAX_POOL_2D" if kind == "max_pool" else "AVERAGE_POOL_2D",
            [x],
            (1, *_sizes(x, size, geometry, padding), x.shape[3]),
            padding=padding,
            strideH=geometry.stride[0],
            strideW=geometry.stride[1],
            filterHeight=size[0],
            filterWidth=size[1],
            fusedActivationFunction=ACTIVATIONS["none"],
        )

    def same_average(self, x: Ref, size: Pair, stride: Pair) -> Ref:
        """Average pooling as SAME has it: only real inputs count."""
        return self.pool(x, "average_pool", size, Geometry(stride, pads=((1, 1), (1, 1))))

    def _placed(self, x: Ref, kernel: Pair, geometry: Geometry) -> tuple[Ref, Geometry, bool]:
        """A map of two places where the result would be one: some processors have another kernel for a single row."""
        made = [
            _made(x.shape[1 + i], kernel[i], geometry.stride[i], geometry.dilation[i], geometry.pads[i]) for i in (0, 1)
        ]
        if not self._minds_rows or made != [1, 1]:
            return x, geometry, False
        x = self.padded(x, geometry.pads, 0.0)
        x = self.cut(x, (0, reach(kernel[0], geometry.dilation[0])), (0, reach(kernel[1], geometry.dilation[1])))
        return self.concat([x, x], 1), Geometry((x.shape[1], 1), geometry.dilation), True

    def _padding(self, x: Ref, kernel: Pair, geometry: Geometry, *, lowest: bool = False) -> tuple[int, Ref]:
        if not any(map(any, geometry.pads)):
            return VALID, x
        same = tuple(_same_pads(x.shape[1 + i], kernel[i], geometry.stride[i], geometry.dilation[i]) for i in (0, 1))
        if same == geometry.pads:
            return SAME, x
        spans = [
            (max(0, -before), size - max(0, -after))
            for (before, after), size in zip(geometry.pads, x.shape[1:3], strict=True)
        ]
        pads = [(max(0, before), max(0, after)) for before, after in geometry.pads]
        x = self.cut(x, *spans)
        return VALID, self.padded(x, (pads[0], pads[1]), -math.inf if lowest else 0.0)

    def padded(self, x: Ref, pads: Pads, value: float) -> Ref:
        """A map with rows and columns of a value around it."""
        if not any(map(any, pads)):
            return x
        table = self.file.constant(np.array([(0, 0), *pads, (0, 0)], np.int32), ("pads", pads))
        shape = (1, x.shape[1] + sum(pads[0]), x.shape[2] + sum(pads[1]), x.shape[3])
        if value == 0.0:
            return self.file.add("PAD", [x, table], shape)
        return self.file.add("PADV2", [x, table, self.scalar(value)], shape)

    def filled(self, x: Ref, value: float) -> Ref:
        """A map of one value everywhere."""
        same = self.scalar(value)
        return self.binary("minimum", self.binary("maximum", x, same), same)

    def cut(self, x: Ref, rows: Pair, columns: Pair) -> Ref:
        """Rows and columns of a map, half-open."""
        if (rows, columns) == ((0, x.shape[1]), (0, x.shape[2])):
            return x
        return self.slice(x, (0, rows[0], columns[0], 0), (1, rows[1] - rows[0], columns[1] - columns[0], x.shape[3]))

    def repeated(self, x: Ref, times: Pair) -> Ref:
        """Each row and column of a map several times."""
        if times == (1, 1):
            return x
        sizes = (x.shape[1] * times[0], x.shape[2] * times[1])
        return self.file.add("RESIZE_NEAREST_NEIGHBOR", [x, self.file.numbers(*sizes)], (1, *sizes, x.shape[3]))

    # Products.

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
        lanes = _lanes(units, is_plain=True) if self._minds_rows else units
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
        inputs: list[Ref | None] = [x, self.derived(weights, widen, lambda w: _widened(w, 1, lanes) * F(scale))]
        inputs.append(None if bias is None else self.derived(bias, widen, lambda b: _widened(b, 1, lanes) * F(scale)))
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

    # Element by element.

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
        above = self.binary("divide", x, self.binary("maximum", near, self.scalar(_LEAST_ROOT)))
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

    # Over axes, and shapes.

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

    def reshape(self, x: Ref, shape: Sequence[int]) -> Ref:
        """The same numbers in another shape."""
        if math.prod(shape) != math.prod(x.shape):
            raise ModelError(f"{x.shape} cannot become {tuple(shape)}")
        if tuple(shape) == x.shape:
            return x
        return self.file.add("RESHAPE", [x, self.file.numbers(*shape)], shape, newShape=list(shape))

    def transpose(self, x: Ref, order: Sequence[int]) -> Ref:
        """The axes in another order."""
        return self.file.add("TRANSPOSE", [x, self.file.numbers(*order)], [x.shape[i] for i in order])

    def concat(self, parts: Sequence[Ref], axis: int) -> Ref:
        """Tensors one after the other along an axis."""
        if len(parts) == 1:
            return parts[0]
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        none = ACTIVATIONS["none"]
        return self.file.add("CONCATENATION", parts, shape, axis=axis, fusedActivationFunction=none)

    def cast(self, x: Ref, dtype: str) -> Ref:
        """The same numbers in another dtype."""
        return x if x.dtype == dtype else self.file.add("CAST", [x], x.shape, dtype=dtype)

    def gather(self, places: Ref, table: Ref) -> Ref:
        """Rows of a table, one for each integer."""
        shape = (*places.shape, *table.shape[1:])
        return self.file.add("GATHER", [table, places], shape, dtype=table.dtype, axis=0)

    def slice(self, x: Ref, begin: Sequence[int], sizes: Sequence[int]) -> Ref:
        """A part of each axis."""
        if any(b < 0 or n < 1 or b + n > whole for b, n, whole in zip(begin, sizes, x.shape, strict=True)):
            raise ModelError(f"a slice of {tuple(sizes)} from {tuple(begin)} on does not lie in {x.shape}")
        return self.file.add("SLICE", [x, self.file.numbers(*begin), self.file.numbers(*sizes)], sizes)

    def first(self, x: Ref, axis: int) -> Ref:
        """The first of an axis, which stays."""
        return self.slice(x, [0] * len(x.shape), [1 if i == axis else n for i, n in enumerate(x.shape)])

    def _channels(self, x: Ref, begin: int, size: int) -> Ref:
        last = len(x.shape) - 1
        return self.slice(x, [0] * last + [begin], [*x.shape[:last], size])

    def _narrowed(self, x: Ref, groups: int, lanes: int, kept: int) -> Ref:
        """The first channels of each group."""
        parts = [self._channels(x, group * lanes, kept) for group in range(groups)]
        return self.concat(parts, len(x.shape) - 1)


F = np.float32


def rank(x: Ref, wanted: int) -> None:
    """Raise ModelError for a tensor of another rank."""
    if len(x.shape) != wanted:
        raise ModelError(f"an operation on maps was given {x.shape}")


def _lanes(channels: int, *, is_plain: bool) -> int:
    """Output channels for which ARM takes the kernel that sums in order; `is_plain` for products without a window.

    It takes another for less than eight, and in plain products where padding to eight would cost it over a hundredth.
    """
    missing = -channels % _LANES
    if channels >= _LANES and not (is_plain and missing > 1 and missing * 100 > channels):
        return channels
    return channels + missing


def _widened(array: Array, groups: int, lanes: int) -> Array:
    """The first axis, group by group, with zeros up to `lanes`."""
    grouped = array.reshape(groups, -1, *array.shape[1:])
    missing = lanes - grouped.shape[1]
    if not missing:
        return array
    wide = np.pad(grouped, ((0, 0), (0, missing), *(((0, 0),) * (array.ndim - 1))))
    return wide.reshape(groups * lanes, *array.shape[1:])


class Taps(NamedTuple):
    """Some taps of a kernel along one axis: `size` of them, from `first` on, `step` apart."""

    first: int
    step: int
    size: int


def _taken(kernel: Array, rows: Taps, columns: Taps) -> Array:
    part = kernel[:, rows.first :: rows.step][:, : rows.size]
    return part[:, :, columns.first :: columns.step][:, :, : columns.size]


def _apart(size: int) -> list[Taps]:
    """The taps of a kernel in groups of up to three.

    Those of five and seven lie evenly around the middle, so that with SAME each piece has the padding of SAME, too.
    """
    if size <= _SHORT:
        return [Taps(0, 1, size)]
    if size == 7:  # noqa: PLR2004
        return [Taps(0, 3, 3), Taps(1, 4, 2), Taps(2, 2, 2)]
    step = -(-size // _SHORT)
    return [Taps(first, step, len(range(first, size, step))) for first in range(step)]


def _sizes(x: Ref, kernel: Pair, geometry: Geometry, padding: int) -> Pair:
    if padding == SAME:
        return -(-x.shape[1] // geometry.stride[0]), -(-x.shape[2] // geometry.stride[1])
    rows, columns = (_made(x.shape[1 + i], kernel[i], geometry.stride[i], geometry.dilation[i], (0, 0)) for i in (0, 1))
    if min(rows, columns) < 1:
        raise ModelError(f"a window of {kernel} does not fit into a map of {x.shape}")
    return rows, columns


def _broadcast(x: Sequence[int], y: Sequence[int]) -> tuple[int, ...]:
    try:
        return tuple(int(n) for n in np.broadcast_shapes(tuple(x), tuple(y)))
    except ValueError:
        raise ModelError(f"shapes {tuple(x)} and {tuple(y)} do not go together") from None


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
_REDUCTIONS = {"mean": "MEAN", "sum": "SUM", "max": "REDUCE_MAX"}
