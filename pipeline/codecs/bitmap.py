"""Zeros left out: a bit for each item, and the items that are not zero. For the maps behind a ReLU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.codecs.base import Array, Buffer, CodecError, bits_of, bytes_of
from pipeline.codecs.shuffle import ShuffleZstd

_LEAST_ITEMS = 64


class Bitmap:
    """Layout: ceil(n / 8) bytes, the first item in the highest bit, then the non-zero items, coded by `rest` if given.

    Zero means all bits 0, so -0.0 is an item like others. Indices of set bits are several times faster in NumPy than
    indexing by the mask.
    """

    def __init__(self, rest: ShuffleZstd | None = None) -> None:
        self._rest = rest

    def takes(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """Anything but a few items."""
        return math.prod(shape) >= _LEAST_ITEMS

    def encode(self, array: Array) -> Sequence[Buffer] | None:
        """Bitmap and items; None where there are too few zeros to pay for the bitmap."""
        bits = bits_of(array)
        mask = bits != 0
        count = int(np.count_nonzero(mask))
        bitmap_bytes = -(-bits.size // 8)
        if self._rest is None and bitmap_bytes + count * bits.itemsize >= array.nbytes:
            return None
        items = bits.take(np.flatnonzero(mask))
        bitmap = np.packbits(mask).data
        return [bitmap, *(self._rest.encode(items) if self._rest and count else [bytes_of(items)])]

    def decode(self, data: memoryview, out: Array) -> None:
        """Zeros everywhere, and the items in their places. Raises CodecError for another number of items."""
        bits = bits_of(out)
        bitmap_bytes = -(-bits.size // 8)
        if len(data) < bitmap_bytes:
            raise CodecError(f"codec bitmap: {len(data)} bytes, a bitmap of {bits.size} items has {bitmap_bytes}")
        mask = np.unpackbits(np.frombuffer(data[:bitmap_bytes], np.uint8), count=bits.size)
        places, rest = np.flatnonzero(mask.view(bool)), data[bitmap_bytes:]
        if self._rest is not None and places.size:
            items = np.empty(places.size, bits.dtype)
            self._rest.decode(rest, items)
        elif len(rest) == places.size * bits.itemsize:
            items = np.frombuffer(rest, bits.dtype)
        else:
            raise CodecError(f"codec bitmap: {len(rest)} bytes for {places.size} items of {bits.itemsize}")
        bits[:] = 0
        bits[places] = items
