"""Whatever bytes arrive as a frame: an array or a FrameError, nothing else."""

from __future__ import annotations

import io

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import FrameError
from pipeline.frames.decode import Preprocess, decode, to_input
from pipeline.graph import Tensor
from tests.effort import examples

INPUT = Tensor(0, "image", (1, 5, 7, 3), "float32")


def _seeds() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    made = []
    for kind, mode in [("PNG", "RGB"), ("PNG", "P"), ("PNG", "LA"), ("JPEG", "RGB"), ("JPEG", "L")]:
        stream, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = 3
        Image.fromarray(pixels).convert(mode).save(stream, kind, exif=exif)
        made.append(stream.getvalue())
    stream = io.BytesIO()
    np.save(stream, pixels)
    fields = {"dtype": "uint8", "shape": list(pixels.shape), "data": pixels.tobytes()}
    return [*made, stream.getvalue(), bytes(msgpack.packb(fields))]


SEEDS = _seeds()
_prefixes = st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY\x01\x00", b"\x83", b"\xdf"])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning", "ignore:Truncated File Read:UserWarning")
@settings(max_examples=examples(150))
@given(prefix=_prefixes, rest=st.binary(max_size=400))
def test_any_bytes_are_an_array_or_a_frame_error(prefix: bytes, rest: bytes) -> None:
    _check(prefix + rest)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning", "ignore:Truncated File Read:UserWarning")
@settings(max_examples=examples(150))
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    end=st.none() | st.integers(0, 2000),
)
def test_a_damaged_frame_is_an_array_or_a_frame_error(
    seed: bytes, changes: list[tuple[int, int]], end: int | None
) -> None:
    damaged = bytearray(seed)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    _check(bytes(damaged[:end]))


def _check(payload: bytes) -> None:
    try:
        array = decode(payload, max_pixels=100_000)
        made = to_input(array, INPUT, Preprocess(mode="torch"))
    except FrameError:
        return
    assert made.shape == INPUT.shape
    assert made.dtype == np.float32
