"""Small pictures of frames: of what is a picture, with the frame's own size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import FrameError
from pipeline.frames.preview import SIDE, preview


def test_a_preview_is_a_small_jpeg_that_says_how_large_the_frame_is() -> None:
    frame = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (4, 500, 3))
    made = preview(frame)
    assert made is not None
    assert (made.width, made.height) == (500, 1024)
    with Image.open(io.BytesIO(made.jpeg)) as image:
        assert image.format == "JPEG"
        assert max(image.size) == SIDE
        assert abs(image.width / image.height - 500 / 1024) < 0.01


def test_an_encoded_frame_has_one_and_a_small_frame_is_not_enlarged() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(buffer, "PNG")
    made = preview(buffer.getvalue())
    assert made is not None
    with Image.open(io.BytesIO(made.jpeg)) as image:
        assert image.size == (made.width, made.height) == (20, 10)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_picture_has_none(frame: np.ndarray) -> None:
    assert preview(frame) is None


def test_what_cannot_be_decoded_is_refused() -> None:
    with pytest.raises(FrameError):
        preview(b"\xff\xd8 no picture")
