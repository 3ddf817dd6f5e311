"""Windows over maps: their reach, their padding, the places they make, and a large kernel's taps in small groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.errors import ModelError
from pipeline.lite.flatfile import SAME

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]

NO_PADS: Pads = ((0, 0), (0, 0))
_SHORT = 3


class Geometry(NamedTuple):
    """Stride, dilation and padding of a window, along rows and columns."""

    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pads: Pads = NO_PADS


def reach(kernel: int, dilation: int) -> int:
    """From a window's first input to its last, both counted."""
    return dilation * (kernel - 1) + 1


def places(size: int, kernel: int, stride: int, dilation: int, pads: Pair) -> int:
    """The number of places of a window along an axis of `size`, with these pads around it."""
    return (size + sum(pads) - reach(kernel, dilation)) // stride + 1


def same_pads(size: int, kernel: int, stride: int, dilation: int) -> Pair:
    """The padding that SAME stands for."""
    missing = max(0, (-(-size // stride) - 1) * stride + reach(kernel, dilation) - size)
    return missing // 2, missing - missing // 2


def window_places(shape: Sequence[int], kernel: Pair, geometry: Geometry, padding: int) -> Pair:
    """The places of a window over a map of `shape` (1, rows, columns, channels). Raises ModelError for none."""
    if padding == SAME:
        return -(-shape[1] // geometry.stride[0]), -(-shape[2] // geometry.stride[1])
    rows, columns = (places(shape[1 + i], kernel[i], geometry.stride[i], geometry.dilation[i], (0, 0)) for i in (0, 1))
    if min(rows, columns) < 1:
        raise ModelError(f"a window of {kernel} does not fit into a map of {shape}")
    return rows, columns


class Taps(NamedTuple):
    """Some taps of a kernel along one axis: `size` of them, from `first` on, `step` apart."""

    first: int
    step: int
    size: int


def grouped_taps(size: int) -> list[Taps]:
    """The taps of a kernel in groups of up to three.

    Those of five and seven lie evenly around the middle, so that with SAME each piece has the padding of SAME, too.
    """
    if size <= _SHORT:
        return [Taps(0, 1, size)]
    if size == 7:  # noqa: PLR2004
        return [Taps(0, 3, 3), Taps(1, 4, 2), Taps(2, 2, 2)]
    step = -(-size // _SHORT)
    return [Taps(first, step, len(range(first, size, step))) for first in range(step)]
