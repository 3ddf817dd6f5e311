"""Frames become the bytes that a device reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nodes.client.frames import frame_bytes
from pipeline.errors import ConfigError, FrameError
from pipeline.frames import packed
from pipeline.frames.decode import decode


def test_encoded_bytes_and_files_are_sent_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(b"\xff\xd8\xff")
    assert frame_bytes(file) == frame_bytes(memoryview(b"\xff\xd8\xff")) == b"\xff\xd8\xff"


@pytest.mark.parametrize("dtype", ["uint8", ">f4", "bool"])
def test_an_array_comes_out_as_it_went_in(dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype)[:, ::2]
    assert np.array_equal(decode(frame_bytes(array)), array)


def test_several_inputs_are_a_map_of_arrays() -> None:
    left, right = np.ones((2, 3), np.float32), np.arange(4)
    parts = dict(packed.fields(frame_bytes({"left": left, "right": right})))
    assert np.array_equal(decode(parts["left"]), left)
    assert np.array_equal(decode(parts["right"]), right)


def test_what_is_no_number_and_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="dtype object"):
        frame_bytes(np.array([{}]))
    with pytest.raises(FrameError, match="input 'left' of dtype <U1"):
        frame_bytes({"left": np.array(["a"])})
    with pytest.raises(ConfigError, match=r"none\.jpg: No such file"):
        frame_bytes(tmp_path / "none.jpg")
    with pytest.raises(FrameError, match="more than 67,371,008 bytes"):
        frame_bytes(Path("/dev/zero"))
