from __future__ import annotations

import io
import struct
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import zstandard
from PIL import Image

from pipeline import codecs
from pipeline.codecs import CODECS, NONE, Array, CodecError

SHAPE = (1, 32, 40, 3)
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def photo(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Array:
    """Smooth, with some noise, as photos are."""
    rng = np.random.default_rng(seed)
    slopes = np.linspace(0, 200, shape[1])[:, None, None] + np.linspace(0, 40, shape[2])[None, :, None]
    return (slopes + rng.integers(0, 8, shape)).astype(np.uint8)


def relu(seed: int = 0, shape: tuple[int, ...] = (1, 14, 14, 32)) -> Array:
    return np.maximum(np.random.default_rng(seed).normal(size=shape), 0).astype(np.float32)


def decoded(coded: codecs.Coded, like: Array) -> Array:
    out = np.full(like.shape, 1, like.dtype)
    codecs.decode(coded.codec, memoryview(b"".join(coded.buffers)), out)
    return out


@pytest.mark.parametrize("name", ["bitmap", "bitmap-zstd"])
def test_a_map_with_zeros_shrinks_and_comes_back_bit_by_bit(name: str) -> None:
    array = relu()
    array[0, 0, 0, :4] = [-0.0, np.nan, np.inf, 1e-45]
    array.view(np.uint32)[0, 0, 1, 0] = 0x7FC00123  # a NaN with a payload
    coded = codecs.encode(name, array)
    assert coded.codec == name
    assert array.nbytes / coded.nbytes > 1.8
    assert decoded(coded, array).tobytes() == array.tobytes()


def test_exponents_shrink_where_there_are_no_zeros() -> None:
    array = np.random.default_rng(1).normal(size=(1, 28, 28, 64)).astype(np.float32)
    coded = codecs.encode("shuffle-zstd", array)
    assert 1.1 < array.nbytes / coded.nbytes < 1.4
    assert decoded(coded, array).tobytes() == array.tobytes()


def test_the_picture_of_bytes_that_a_photo_was_resized_to_shrinks() -> None:
    array = photo()
    coded = codecs.encode("webp", array)
    assert coded.codec == "webp"
    assert decoded(coded, array).tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "array",
    [
        photo() / np.float32(127.5) - np.float32(1),
        (photo() / np.float32(255) - MEAN) / DEVIATION,
        photo().astype(np.float32)[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32),
        photo() / np.float32(255),
        np.full(SHAPE, -0.25, np.float32),
    ],
    ids=["tf", "torch", "caffe", "to one", "one value"],
)
def test_a_preprocessed_photo_is_sent_as_the_bytes_that_it_was(array: Array) -> None:
    array = np.ascontiguousarray(array, np.float32)
    coded = codecs.encode("palette-webp", array)
    assert coded.codec == "palette-webp"
    assert decoded(coded, array).tobytes() == array.tobytes()
    assert array.nbytes / coded.nbytes > 2


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
@pytest.mark.parametrize("name", list(CODECS))
def test_whatever_the_bits_they_come_back(name: str, dtype: str) -> None:
    rng = np.random.default_rng(2)
    for share in (0.0, 0.3, 0.9, 1.0):
        data = rng.integers(0, 2 if dtype == "bool" else 256, int(np.prod(SHAPE)) * np.dtype(dtype).itemsize, np.uint8)
        array = data.view(dtype).reshape(SHAPE).copy()
        array[rng.random(SHAPE) < share] = 0
        coded = codecs.encode(name, array)
        assert coded.nbytes <= array.nbytes
        if coded.codec != NONE:
            assert decoded(coded, array).tobytes() == array.tobytes()


def test_what_saves_nothing_goes_as_it_is() -> None:
    array = np.random.default_rng(0).integers(1, 255, (1, 1000), np.uint8)
    for name in (*CODECS, NONE, "of another version"):
        coded = codecs.encode(name, array)
        assert coded.codec == NONE
        assert b"".join(coded.buffers) == array.tobytes()


def test_codecs_are_offered_by_dtype_and_shape() -> None:
    assert codecs.candidates("uint8", SHAPE) == ("bitmap", "bitmap-zstd", "shuffle-zstd", "webp")
    assert codecs.candidates("float32", SHAPE)[-1] == "palette-webp"
    assert "palette-webp" not in codecs.candidates("float32", (1, 32, 32, 4))
    assert codecs.candidates("float32", (1, 4)) == ()


def refuses(name: str, data: bytes, out: Array, why: str) -> None:
    with pytest.raises(CodecError, match=why):
        codecs.decode(name, memoryview(data), out)


def test_foreign_bytes_are_refused_by_name() -> None:
    out = np.empty((1, 256), np.float32)
    refuses("lzma", b"", out, "lzma")
    refuses("webp", b"", out, "takes no float32")
    refuses("bitmap", b"\xff" * 31, out, "31 bytes, a bitmap of 256 items has 32")
    refuses("bitmap", b"\xff" * 33, out, "1 bytes for 256 items")
    refuses("bitmap", bytes(33), out, "1 bytes for 0 items")
    refuses("bitmap-zstd", b"\xff" * 40, out, "header has 16")
    refuses("shuffle-zstd", struct.pack("<4I", 256, 256, 256, 255) + bytes(1024), out, "1023 bytes in 1024")
    refuses("shuffle-zstd", struct.pack("<4I", 256, 256, 256, 4) + bytes(772), out, "shuffle-zstd")


def test_a_plane_that_would_be_more_than_declared_is_refused_before_it_is_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 28))
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 20))
    out = np.empty((1, 1 << 20), np.uint8)
    with mock.patch.object(zstandard, "ZstdDecompressor", side_effect=AssertionError("unpacked")):
        for frame in (bomb, silent):
            refuses("shuffle-zstd", struct.pack("<I", len(frame)) + frame, out, "a plane that would be")
    trailing = zstandard.ZstdCompressor().compress(bytes(out.size)) + b"more"
    refuses("shuffle-zstd", struct.pack("<I", len(trailing)) + trailing, out, "shuffle-zstd")


def test_a_picture_of_another_size_or_kind_is_refused_before_it_is_unpacked() -> None:
    def file(picture: Array, **options: bool) -> bytes:
        held = io.BytesIO()
        Image.fromarray(picture).save(held, "WEBP", **options)
        return held.getvalue()

    out = np.empty(SHAPE, np.uint8)
    with mock.patch.object(Image, "open", side_effect=AssertionError("opened")):
        refuses("webp", file(photo((1, 33, 40, 3))[0], lossless=True), out, "33x40, not 32x40")
        refuses("webp", file(photo()[0], lossless=False), out, "not a lossless WebP")
        refuses("webp", b"RIFF", out, "no file")
    good = file(photo()[0], lossless=True)
    refuses("webp", good[: len(good) // 2], out, "webp")


@pytest.mark.parametrize("name", list(CODECS))
def test_changed_bytes_are_other_items_or_an_error_and_nothing_else(name: str) -> None:
    array = photo() if name == "webp" else relu() if "palette" not in name else photo() / np.float32(255)
    data = b"".join(codecs.encode(name, np.ascontiguousarray(array)).buffers)
    rng = np.random.default_rng(0)
    for _ in range(100):
        changed = bytearray(data[: int(rng.integers(len(data) + 1))] if rng.random() < 0.3 else data)
        for at in rng.integers(0, max(len(changed), 1), int(rng.integers(0, 4))) if changed else ():
            changed[at] = int(rng.integers(256))
        out = np.empty(array.shape, array.dtype)
        try:
            codecs.decode(name, memoryview(bytes(changed)), out)
        except CodecError:
            pass


def test_libraries_are_loaded_when_they_are_needed() -> None:
    script = "import sys, pipeline.codecs; print(sorted({'zstandard', 'PIL'} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
