"""Lossless codecs of tensors: an array to fewer bytes, and back to the same bits. Knows no message and no link.

A codec gives buffers that together are smaller than the array, or the array goes as it is: so whoever receives a coded
tensor never holds more than the tensor's own bytes before it is decoded. Decoding writes into memory of the declared
size; a codec checks what the bytes claim before it unpacks any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.codecs.base import Array, Buffer, Codec, CodecError, Coded, bytes_of
from pipeline.codecs.bitmap import Bitmap
from pipeline.codecs.picture import PaletteWebP, WebP
from pipeline.codecs.shuffle import ShuffleZstd

__all__ = [
    "CODECS",
    "NONE",
    "Array",
    "Buffer",
    "Codec",
    "CodecError",
    "Coded",
    "candidates",
    "decode",
    "encode",
    "ratios",
]

NONE = "none"
CODECS: Mapping[str, Codec] = MappingProxyType(
    {
        "bitmap": Bitmap(),
        "bitmap-zstd": Bitmap(ShuffleZstd()),
        "shuffle-zstd": ShuffleZstd(),
        "webp": WebP(),
        "palette-webp": PaletteWebP(),
    }
)
"""By the name that plans and messages use; `NONE` sends an array as it is."""
PICTURES = frozenset({"webp", "palette-webp"})
TRIED_BYTES = 1 << 16


def candidates(dtype: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """The names of the codecs that can take arrays of this dtype and shape, `NONE` not among them."""
    return tuple(name for name, codec in CODECS.items() if codec.takes(dtype, shape))


def encode(name: str, array: Array) -> Coded:
    """Code a C-contiguous array; as it is where the codec is unknown here, does not take it or saves nothing."""
    codec = CODECS.get(name)
    if codec is not None and codec.takes(array.dtype.name, array.shape):
        buffers = codec.encode(array)
        if buffers is not None and sum(map(len, buffers)) < array.nbytes:
            return Coded(name, tuple(buffers))
    return Coded(NONE, (bytes_of(array),))


def ratios(array: Array) -> dict[str, float]:
    """How many times smaller each codec that takes the array makes it, 1.0 if it does not.

    Of a large map a part from its middle is tried; a picture's codecs need all of it.
    """
    found = {}
    for name in candidates(array.dtype.name, array.shape):
        tried = array if name in PICTURES else _middle(array)
        coded = encode(name, tried)
        found[name] = tried.nbytes / coded.nbytes if coded.nbytes else 1.0
    return found


def _middle(array: Array) -> Array:
    items, count = array.reshape(-1), max(1, TRIED_BYTES // array.dtype.itemsize)
    begin = max(0, (items.size - count) // 2)
    return items[begin : begin + count]


def decode(name: str, data: memoryview, out: Array) -> None:
    """Fill `out`, C-contiguous and writable, with what was coded. Raises CodecError for anything else."""
    codec = CODECS.get(name)
    if codec is None:
        raise CodecError(f"codec {name!r:.40} is unknown here; this trisect has {', '.join((NONE, *CODECS))}")
    if not codec.takes(out.dtype.name, out.shape):
        raise CodecError(f"codec {name}: takes no {out.dtype.name}{list(out.shape)}")
    codec.decode(data, out)
