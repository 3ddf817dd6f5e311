"""Byte shuffle and Zstandard: the first bytes of all items, then the second ones, each such plane compressed by itself.

Of float32 only the plane with sign and exponent shrinks, three bits in four to one; mantissas are as good as noise. So
a plane of which a sample does not shrink goes as it is, and costs no compressor's time on either side.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.codecs.base import Array, Buffer, CodecError, bytes_of

if TYPE_CHECKING:
    import zstandard

LEVEL = 1
"""Zstandard's fastest level with an entropy stage for literals, which is all that there is to gain here."""
_SAMPLE_BYTES = 4096
_WORTH = 0.95
"""The part of a plane's bytes that its compressed form must stay below."""
_LEAST_ITEMS = 64


class ShuffleZstd:
    """Layout: the planes' lengths (uint32, little-endian), then the planes; one of full length is not compressed."""

    def takes(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """Anything but a few items."""
        return math.prod(shape) >= _LEAST_ITEMS

    def encode(self, array: Array) -> Sequence[Buffer]:
        """All planes, shrunk or as they are."""
        items = array.reshape(-1)
        planes = np.ascontiguousarray(items.view(np.uint8).reshape(items.size, items.itemsize).T)
        parts = [_shrunk(plane.data) for plane in planes]
        return [struct.pack(f"<{len(parts)}I", *map(len, parts)), *parts]

    def decode(self, data: memoryview, out: Array) -> None:
        """Raises CodecError unless there is a plane for each byte of an item, each of as many bytes as items."""
        items = bytes_of(out)
        columns = np.frombuffer(items, np.uint8).reshape(out.size, out.itemsize)
        for number, plane in enumerate(_planes(data, out.itemsize)):
            columns[:, number] = np.frombuffer(_restored(plane, out.size), np.uint8)


def _planes(data: memoryview, count: int) -> Iterator[memoryview]:
    header = struct.Struct(f"<{count}I")
    if len(data) < header.size:
        raise CodecError(f"codec shuffle-zstd: {len(data)} bytes, its header has {header.size}")
    lengths = header.unpack_from(data)
    if header.size + sum(lengths) != len(data):
        raise CodecError(f"codec shuffle-zstd: planes of {sum(lengths)} bytes in {len(data) - header.size}")
    begin = header.size
    for length in lengths:
        yield data[begin : begin + length]
        begin += length


def _shrunk(plane: memoryview) -> Buffer:
    compressor = _tools().compressor
    middle = max(0, (len(plane) - _SAMPLE_BYTES) // 2)
    sample = plane[middle : middle + _SAMPLE_BYTES]
    if len(compressor.compress(sample)) >= _WORTH * len(sample):
        return plane
    frame = compressor.compress(plane)
    return frame if len(frame) < _WORTH * len(plane) else plane


def _restored(plane: memoryview, size: int) -> Buffer:
    """`size` bytes. The frame says how many it makes, which is checked before any memory is taken for them."""
    if len(plane) == size:
        return plane
    import zstandard

    try:
        claimed = zstandard.frame_content_size(plane)
        if claimed != size:
            raise CodecError(f"codec shuffle-zstd: a plane that would be {claimed} bytes, not {size}")
        made = _tools().decompressor.decompress(plane, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodecError(f"codec shuffle-zstd: {error!s:.100}") from error
    if len(made) != size:
        raise CodecError(f"codec shuffle-zstd: a plane of {len(made)} bytes, not {size}")
    return made


class _Tools(threading.local):
    """A thread's own compressor and decompressor: neither may be shared, and making one takes as long as using it."""

    compressor: zstandard.ZstdCompressor
    decompressor: zstandard.ZstdDecompressor

    def __init__(self) -> None:
        import zstandard  # in a process that codes nothing never loaded

        self.compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)
        self.decompressor = zstandard.ZstdDecompressor()


_made: list[_Tools] = []


def _tools() -> _Tools:
    if not _made:
        _made.append(_Tools())
    return _made[0]
