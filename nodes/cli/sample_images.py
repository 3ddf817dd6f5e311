"""Photos for demos and tests, cut out of those that scikit-image brings along: no download, different each time."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.errors import ConfigError

BUNDLED = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg", "motorcycle_left.png")


def bundled_photos() -> list[Image.Image]:
    """The photos themselves, RGB. Raises ConfigError when scikit-image is not installed."""
    try:
        import skimage
    except ImportError:
        raise ConfigError("the photos come with scikit-image: pip install 'trisect[demo]'") from None
    folder = Path(skimage.__file__).parent / "data"
    return [Image.open(folder / name).convert("RGB") for name in BUNDLED if (folder / name).exists()]


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
