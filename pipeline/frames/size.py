"""How large a frame's picture is, from its header alone, and where a place of the network's input lies in it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pipeline.frames import packed
from pipeline.frames.decode import Array, Preprocess

_ORIENTATION = 0x0112
_TURNED = frozenset({5, 6, 7, 8})
_RANK_OF_IMAGE = 3


@dataclass(frozen=True, slots=True)
class Placing:
    """Where shares of the network's input lie in the frame: `left + share * width`, in its pixels, and so upright."""

    left: float
    top: float
    width: float
    height: float

    def x(self, share: float) -> float:
        """Pixels from the frame's left side."""
        return self.left + share * self.width

    def y(self, share: float) -> float:
        """Pixels from the frame's upper side."""
        return self.top + share * self.height


def placing(frame: bytes | Array, input_size: tuple[int, int], preprocess: Preprocess) -> Placing:
    """Placing of an input of (height, width) in a frame that was stretched, or cropped in the middle, to it.

    For a frame whose size cannot be told, in the input itself.
    """
    height, width = input_size
    frame_height, frame_width = frame_size(frame) or input_size
    if not preprocess.crop:
        return Placing(0.0, 0.0, float(frame_width), float(frame_height))
    scale = min(frame_width / width, frame_height / height)
    seen_width, seen_height = width * scale, height * scale
    return Placing((frame_width - seen_width) / 2, (frame_height - seen_height) / 2, seen_width, seen_height)


def frame_size(frame: bytes | Array) -> tuple[int, int] | None:
    """(height, width) of an encoded image, upright, or of an array of pixels; None for anything else."""
    if not isinstance(frame, bytes):
        return _of_shape(frame.shape)
    try:
        if frame.startswith(b"\x93NUMPY"):
            return _of_shape(_npy_shape(frame))
        if frame.startswith((b"\xff\xd8\xff", b"\x89PNG")):
            return _of_image(frame)
        return _of_shape(packed.array(frame)[1])
    except Exception:  # whoever decodes the frame says what is wrong with it
        return None


def _of_image(frame: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(frame), formats=("JPEG", "PNG")) as image:
        is_turned = image.getexif().get(_ORIENTATION) in _TURNED
        return (image.width, image.height) if is_turned else (image.height, image.width)


def _npy_shape(frame: bytes) -> tuple[int, ...]:
    file = io.BytesIO(frame)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape: tuple[int, ...] = read(file)[0]
    return shape


def _of_shape(shape: tuple[Any, ...]) -> tuple[int, int] | None:
    if len(shape) == _RANK_OF_IMAGE + 1:
        shape = shape[1:]
    return (int(shape[0]), int(shape[1])) if len(shape) in {2, _RANK_OF_IMAGE} else None
