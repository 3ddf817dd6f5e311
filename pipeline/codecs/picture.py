"""Lossless WebP: for pictures of bytes, and for float pictures of which each channel has at most 256 different values.

Those are what preprocessing makes of a photo: each value of a byte became one float. The floats themselves are sent as
a palette, so that no arithmetic has to be repeated with the same bits.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.codecs.base import Array, Buffer, CodecError, bits_of

CHANNELS = 3
LEVELS = 256
_MOST_SIDE = 1 << 14
"""WebP has 14 bits for a side."""
_HEADER = struct.Struct("<4sI4s4sIBI")
_SIGNATURE = 0x2F
_LEAST_SIDE = 8
_RANK = 4
_SAMPLES = 1024

Bytes = npt.NDArray[np.uint8]


class WebP:
    """For uint8 of shape (1, rows, columns, 3)."""

    def takes(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """Pictures of three channels."""
        return dtype == "uint8" and _is_picture(shape)

    def encode(self, array: Array) -> Sequence[Buffer]:
        """One WebP file."""
        return [_compressed(array[0])]

    def decode(self, data: memoryview, out: Array) -> None:
        """Raises CodecError for a file of another kind or size, before it is unpacked."""
        out[0] = _picture(data, out.shape[1:3])


class PaletteWebP:
    """For float32 of shape (1, rows, columns, 3). Layout: 3 x 256 float32 of the palette, then a WebP file of levels.

    Levels are found without sorting: preprocessing spaces them evenly, so the smallest gap in a sample of a channel is
    their step, and rounding gives each item's level. Items that this does not hold for are found by comparing bits.
    """

    def takes(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """Float pictures of three channels."""
        return dtype == "float32" and _is_picture(shape)

    def encode(self, array: Array) -> Sequence[Buffer] | None:
        """Palette and levels; None for a map that is no preprocessed picture."""
        found = _levels(array[0])
        if found is None:
            return None
        palette, levels = found
        return [palette.tobytes(), _compressed(levels)]

    def decode(self, data: memoryview, out: Array) -> None:
        """Look each level up. Raises CodecError as WebP does, and for a palette that is cut short."""
        palette_bytes = CHANNELS * LEVELS * out.itemsize
        if len(data) < palette_bytes:
            raise CodecError(f"codec palette-webp: {len(data)} bytes, its palette has {palette_bytes}")
        palette = np.frombuffer(data[:palette_bytes], np.uint32).reshape(CHANNELS, LEVELS)
        levels = _picture(data[palette_bytes:], out.shape[1:3])
        items = bits_of(out).reshape(out.shape[1:])
        for channel in range(CHANNELS):
            items[:, :, channel] = palette[channel].take(levels[:, :, channel])


def _levels(picture: Array) -> tuple[npt.NDArray[np.uint32], Bytes] | None:
    """The palette's bits, (3, 256), and a level for each item; None where a channel has no such levels."""
    levels = np.zeros(picture.shape, np.uint8)
    palette = np.zeros((CHANNELS, LEVELS), np.uint32)
    bits = picture.view(np.uint32)
    for channel in range(CHANNELS):
        if not _quantised(picture[:, :, channel], levels[:, :, channel]):
            return None
        palette[channel][levels[:, :, channel]] = bits[:, :, channel]
        if not np.array_equal(palette[channel].take(levels[:, :, channel]), bits[:, :, channel]):
            return None
    return palette, levels


def _quantised(values: Array, levels: Bytes) -> bool:
    """Write the level of each value into `levels`, which is all zeros; False where there are more than fit."""
    with np.errstate(all="ignore"):  # what is no picture may overflow
        lowest, highest = values.min(), values.max()
        if lowest == highest:
            return True
        span, gaps = highest - lowest, np.diff(np.unique(values.reshape(-1)[:: max(1, values.size // _SAMPLES)]))
        step = gaps.min() if gaps.size else span
        if not (np.isfinite(span) and step > 0 and span < (LEVELS - 0.5) * step):
            return False
        levels[:] = np.rint((values - lowest) * (round(float(span / step)) / span))
    return True


def _is_picture(shape: tuple[int, ...]) -> bool:
    is_map = len(shape) == _RANK and shape[0] == 1 and shape[3] == CHANNELS
    return is_map and all(_LEAST_SIDE <= side < _MOST_SIDE for side in shape[1:3])


def _compressed(picture: Bytes) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", lossless=True, exact=True, quality=0, method=0)
    return file.getvalue()


def _picture(data: memoryview, sides: tuple[int, ...]) -> Bytes:
    """The file's pixels, (rows, columns, 3); the header's size is checked before the decoder may allocate for it."""
    from PIL import Image

    rows, columns = sides
    if len(data) < _HEADER.size:
        raise CodecError(f"codec webp: {len(data)} bytes are no file")
    riff, _, webp, kind, _, signature, packed = _HEADER.unpack_from(data)
    size = (packed & (_MOST_SIDE - 1)) + 1, (packed >> 14 & (_MOST_SIDE - 1)) + 1
    if (riff, webp, kind, signature) != (b"RIFF", b"WEBP", b"VP8L", _SIGNATURE):
        raise CodecError("codec webp: not a lossless WebP file")
    if size != (columns, rows):
        raise CodecError(f"codec webp: a picture of {size[1]}x{size[0]}, not {rows}x{columns}")
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            if image.size != size or getattr(image, "n_frames", 1) != 1:
                raise CodecError(f"codec webp: not one picture of {rows}x{columns}")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise CodecError(f"codec webp: {error!s:.100}") from error
