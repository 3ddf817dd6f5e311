"""Photos for demos and tests, cut out of those that come with trisect: no download, different each time."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOS = Path(__file__).parents[1] / "photos"
"""Four photos that may be copied freely; see the file README.md there."""


def bundled_photos() -> list[Image.Image]:
    """The photos themselves, RGB."""
    return [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]


def put_photos(folder: Path) -> None:
    """Copy the photos into a new folder."""
    folder.mkdir()
    for photo in sorted(PHOTOS.glob("*.jpg")):
        shutil.copy(photo, folder)


def frames(count: int, *, seed: int = 0) -> list[bytes]:
    """`count` different JPEG frames: parts of the photos, at least half of their width and height, some mirrored."""
    photos = bundled_photos()
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        photo = photos[number % len(photos)]
        width, height = (int(side * rng.uniform(0.5, 1.0)) for side in photo.size)
        left, top = rng.integers(0, photo.width - width + 1), rng.integers(0, photo.height - height + 1)
        part = photo.crop((int(left), int(top), int(left) + width, int(top) + height))
        if rng.integers(2):
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        file = io.BytesIO()
        part.save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made
