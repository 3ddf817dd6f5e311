"""Each operation as LiteRT kernels: in their plain forms, or in forms that give the same bits on every processor.

XNNPACK sums every element of a convolution over kernel and channels in one order, whatever the size of the map, so that
tiles are exact by construction. Between x86 with FMA and ARM some kernels differ, though: approximations of sigmoid,
softmax, roots; depthwise kernels of 25 taps; convolutions of few channels; products of a single row. `everywhere`
builds these from kernels that were found identical (docs/exactness.md). Knows shapes and kernels; nothing of blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.errors import ModelError
from pipeline.lite.flatfile import ACTIVATIONS, SAME, VALID, Array, Ref
from pipeline.lite.products import F, Products, lanes_for, widened
from pipeline.lite.windows import Geometry, Pair, Taps, grouped_taps, places, reach, same_pads, window_places

_MAP_RANK = 4
_TAPS = 9
"""A depthwise kernel of up to so many taps is summed with one accumulator everywhere..."""
_MOST_TAPS = 25
"""...and XNNPACK has none of its own for more than these: it computes channel after channel, 45 times as slow."""
_LONGEST_APART = 9


class Forms(Products):
    """All operations of a program: windows over maps here, the rest inherited."""

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
        lanes = lanes_for(out // groups, is_plain=is_plain) if self._minds_rows else out // groups
        how = None if lanes * groups == out and scale == 1.0 else ("lanes", lanes, groups, scale)
        kernel, bias = (self.derived(one, how, lambda w: widened(w, groups, lanes) * F(scale)) for one in arrays)
        x, geometry, is_one = self._placed(x, (sizes[0], sizes[1]), geometry)
        padding, x = self._padding(x, (sizes[0], sizes[1]), geometry)
        shape = (1, *window_places(x.shape, (sizes[0], sizes[1]), geometry, padding), lanes * groups)
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
        pieces = [(r, c) for r in grouped_taps(rows) for c in grouped_taps(columns)] if is_apart else [(None, None)]
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
            made = places(x.shape[1 + axis], whole, stride, step, geometry.pads[axis])
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
            (1, *window_places(x.shape, (r.size, c.size), geometry, padding), out),
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
            (1, *window_places(x.shape, size, geometry, padding), x.shape[3]),
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
            places(x.shape[1 + i], kernel[i], geometry.stride[i], geometry.dilation[i], geometry.pads[i])
            for i in (0, 1)
        ]
        if not self._minds_rows or made != [1, 1]:
            return x, geometry, False
        x = self.padded(x, geometry.pads, 0.0)
        x = self.cut(x, (0, reach(kernel[0], geometry.dilation[0])), (0, reach(kernel[1], geometry.dilation[1])))
        return self.concat([x, x], 1), Geometry((x.shape[1], 1), geometry.dilation), True

    def _padding(self, x: Ref, kernel: Pair, geometry: Geometry, *, lowest: bool = False) -> tuple[int, Ref]:
        if not any(map(any, geometry.pads)):
            return VALID, x
        same = tuple(same_pads(x.shape[1 + i], kernel[i], geometry.stride[i], geometry.dilation[i]) for i in (0, 1))
        if same == geometry.pads:
            return SAME, x
        spans = [
            (max(0, -before), size - max(0, -after))
            for (before, after), size in zip(geometry.pads, x.shape[1:3], strict=True)
        ]
        pads = [(max(0, before), max(0, after)) for before, after in geometry.pads]
        x = self.cut(x, *spans)
        return VALID, self.padded(x, (pads[0], pads[1]), -math.inf if lowest else 0.0)

    def _narrowed(self, x: Ref, groups: int, lanes: int, kept: int) -> Ref:
        """The first channels of each group."""
        parts = [self._channels(x, group * lanes, kept) for group in range(groups)]
        return self.concat(parts, len(x.shape) - 1)


def rank(x: Ref, wanted: int) -> None:
    """Raise ModelError for a tensor of another rank."""
    if len(x.shape) != wanted:
        raise ModelError(f"an operation on maps was given {x.shape}")


def _taken(kernel: Array, rows: Taps, columns: Taps) -> Array:
    part = kernel[:, rows.first :: rows.step][:, : rows.size]
    return part[:, :, columns.first :: columns.step][:, :, : columns.size]
