"""A fingerprint of what a machine makes of pictures: two nodes with equal ones decode, resize and normalise alike.

Decoders and resizing differ between versions of their libraries, and a network's answer with them. So two pictures that
come with trisect go through all three steps, and the hash of the bits is compared.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

import numpy as np
import PIL
from PIL import features

from pipeline.frames.decode import Array, Preprocess, to_normalised
from pipeline.frames.input_blocks import as_given, decoded
from pipeline.graph import Tensor

_PICTURES = ("test_picture.jpg", "test_picture_progressive.jpg")
"""640x480 with its colours at half the size, lying on its side as EXIF says; and a small one, progressive."""
_DIGITS = 32


@cache
def sample_frame() -> Array:
    """A photo of 641x481, about 50 kB as JPEG: a frame to measure with."""
    return as_given(_read(_PICTURES[0]))


def libraries() -> str:
    """The libraries that decide, with their versions, for people."""
    return f"Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}, NumPy {np.__version__}"


def fingerprint(tensor: Tensor, preprocess: Preprocess) -> str:
    """Hash of the test pictures as the network's input `tensor`: hexadecimal digits of a SHA-256.

    Raises ConfigError for a mode that needs colours where there are none.
    """
    found = hashlib.sha256()
    for name in _PICTURES:
        picture = decoded(as_given(_read(name)), tensor, preprocess)
        found.update(picture.tobytes())
        found.update(to_normalised(picture, tensor, preprocess).tobytes())
    return found.hexdigest()[:_DIGITS]


def _read(name: str) -> bytes:
    return files("pipeline.frames").joinpath(name).read_bytes()
