"""A small picture of a frame, for people who look at what a stream sees."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from pipeline.frames.decode import MAX_PIXELS, Array, decode

SIDE: Final = 320
"""Pixels of the longer side, at most."""
QUALITY: Final = 70
_RGB: Final = 3


@dataclass(frozen=True, slots=True)
class Preview:
    """A JPEG of at most SIDE pixels a side; `width` and `height` are the frame's own, in pixels."""

    jpeg: bytes
    width: int
    height: int


def preview(frame: bytes | Array, *, max_pixels: int = MAX_PIXELS) -> Preview | None:
    """The preview of an encoded frame or an image array; None for what is no picture in 8 bits a channel.

    Raises FrameError for what cannot be decoded.
    """
    array = decode(frame, max_pixels=max_pixels) if isinstance(frame, bytes) else frame
    if array.dtype != np.uint8 or array.ndim != _RGB or array.shape[2] != _RGB or not array.size:
        return None
    height, width = array.shape[:2]
    image = Image.fromarray(array)
    image.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return Preview(buffer.getvalue(), width, height)
