"""Frames: what is accepted, what it becomes, and that whatever else arrives is a FrameError."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import msgpack
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError, FrameError
from pipeline.frames.decode import Preprocess, decode, to_input, top_k
from pipeline.graph import Tensor

INPUT = Tensor(0, "image", (1, 8, 6, 3), "float32")
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)


def _encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _npy(array: np.ndarray[Any, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def _packed(**fields: Any) -> bytes:
    return bytes(msgpack.packb(fields))


def test_a_png_comes_back_as_it_was() -> None:
    assert np.array_equal(decode(_encoded(Image.fromarray(PIXELS))), PIXELS)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_png_becomes_rgb(mode: str) -> None:
    grey = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257) if mode == "I;16" else None
    array = decode(_encoded(grey or Image.fromarray(PIXELS).convert(mode)))
    assert array.shape == (8, 6, 3)
    assert array.dtype == np.uint8
    if mode == "I;16":
        assert np.array_equal(array[..., 1], PIXELS[..., 0])


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_kind_of_jpeg_becomes_rgb(mode: str) -> None:
    assert decode(_encoded(Image.new(mode, (6, 8), 100 if mode == "L" else None), "JPEG")).shape == (8, 6, 3)


def test_a_photograph_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    flat = Image.fromarray(np.repeat(PIXELS[:1], 4, axis=0))
    assert decode(_encoded(flat, "JPEG", exif=exif)).shape == (6, 4, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # Pillow's way to say so
def test_a_broken_exif_block_does_not_lose_the_picture() -> None:
    assert decode(_encoded(Image.fromarray(PIXELS), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")).shape


def test_an_image_of_too_many_pixels_is_refused_unread_with_both_numbers() -> None:
    with pytest.raises(FrameError, match="6x8 is 48 pixels, more than the 47 allowed"):
        decode(_encoded(Image.fromarray(PIXELS)), max_pixels=47)
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(FrameError, match="pixels"):
        decode(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + bytes(4))


@pytest.mark.parametrize("dtype", ["float32", ">f4", "uint8", "bool", "int64", "float16"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_comes_back_as_it_was(dtype: str, order: str) -> None:
    array = np.asarray(PIXELS.astype(dtype), order=order)  # type: ignore[call-overload]
    back = decode(_npy(array))
    assert np.array_equal(back, array)
    assert back.flags.c_contiguous
    assert back.dtype.isnative
    assert np.array_equal(decode(_packed(dtype=dtype, shape=array.shape, data=array.tobytes())), array)


def test_empty_arrays_and_scalars_are_arrays() -> None:
    assert decode(_npy(np.asarray(3, np.float32))) == 3
    assert decode(_npy(np.zeros((0, 4)))).shape == (0, 4)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "no bytes at all; accepted are JPEG, PNG, NPY"),
        (b"hello world", "11 bytes that begin with 68 65 6c"),
        (b"GIF89a....", "a GIF image"),
        (b"PK\x03\x04", "ZIP archive"),
        (b"\x80\x04\x95abc", "Python pickle"),
        (b'{"a": 1}', "JSON"),
        (_npy(np.array([object()]), allow_pickle=True), "dtype object"),
        (_npy(np.zeros(3, "f4,i4")), "give booleans, integers or floats"),
        (_npy(np.zeros(3))[:-1], "claims float64.3,., 24 bytes, but brings 23"),
        (_npy(np.zeros(3)) + b"x", "but brings 25"),
        (_npy(np.zeros(3)).replace(b"(3,), }", b"(3333333333333333,), }"), "at most 32, each"),
        (_packed(dtype="float32", shape=[1 << 40, 1 << 40], data=b"1234"), "claims"),
        (_packed(dtype="float32", shape=[-1], data=b"1234"), "at least 0"),
        (_packed(dtype="float32", shape=[True], data=b"1234"), "at least 0"),
        (_packed(dtype="float32", shape=[1] * 80, data=b"1234"), "shape"),
        (_packed(dtype="O", shape=[1], data=b"12345678"), "dtype object"),
        (_packed(dtype="(2,2)f4", shape=[1], data=bytes(16)), "dtype"),
        (_packed(dtype="no", shape=[1], data=b""), "broken msgpack"),
        (_packed(dtype="float32", shape=3, data=b""), "broken msgpack"),
        (_packed(dtype="float32", shape=[1], data="text"), "broken msgpack"),
        (_packed(shape=[1]), "broken msgpack"),
        (_encoded(Image.fromarray(PIXELS))[:60], "broken PNG"),
        (_encoded(Image.fromarray(PIXELS), "JPEG")[:300], "broken JPEG"),
        (b"\xff\xd8\xff", "broken JPEG"),
    ],
)
def test_anything_else_says_what_it_is_and_what_is_accepted(payload: bytes, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        decode(payload)


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_pixels_are_normalised_to_the_bits_of_keras_applications(mode: Any) -> None:
    from pipeline.tensorflow_runtime import keras

    expected = keras.applications.imagenet_utils.preprocess_input(PIXELS.astype(np.float32), mode=mode)
    assert np.array_equal(to_input(PIXELS, INPUT, Preprocess(mode=mode)), expected[None])


def test_unit_and_none_keep_the_proportions() -> None:
    assert to_input(PIXELS, INPUT, Preprocess(mode="unit")).max() <= 1
    assert np.array_equal(to_input(PIXELS, INPUT, Preprocess())[0], PIXELS)
    whole = Tensor(0, "image", (1, 8, 6, 3), "uint8")
    assert np.array_equal(to_input(PIXELS, whole, Preprocess())[0], PIXELS)


@pytest.mark.parametrize("shape", [(20, 30, 3), (20, 30), (20, 30, 1), (20, 30, 4), (1, 1, 3)])
@pytest.mark.parametrize("crop", [True, False])
def test_pictures_of_any_size_fit(shape: tuple[int, ...], crop: bool) -> None:
    for channels in (1, 3):
        tensor = Tensor(0, "image", (1, 8, 6, channels), "float32")
        made = to_input(np.full(shape, 7, np.uint8), tensor, Preprocess(mode="unit", crop=crop))
        assert made.shape == tensor.shape
        assert made.dtype == np.float32


def test_a_crop_keeps_the_middle() -> None:
    wide = np.zeros((8, 60, 3), np.uint8)
    wide[:, 27:33] = 255
    assert to_input(wide, INPUT, Preprocess(crop=True)).min() == 255


def test_a_float_array_of_the_inputs_shape_passes_unprocessed() -> None:
    array = np.random.default_rng(1).standard_normal((8, 6, 3))
    for given in (array, array[None], array.astype(np.float32)):
        made = to_input(given, INPUT, Preprocess(mode="caffe"))
        assert np.array_equal(made, array.astype(np.float32)[None])
        assert made.flags.c_contiguous


def test_numbers_for_an_input_that_is_no_picture_pass() -> None:
    words = Tensor(0, "words", (1, 5), "int32")
    assert np.array_equal(to_input(np.arange(5), words, Preprocess()), np.arange(5)[None])
    with pytest.raises(FrameError, match="float64"):
        to_input(np.zeros(5), words, Preprocess())


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((8, 7, 3)), r"float64\(8, 7, 3\) does not fit the model's input float32\(1, 8, 6, 3\)"),
        (np.zeros((8, 6, 3), np.int32), "pixels come as uint8"),
        (np.zeros((8, 6, 2), np.uint8), "no picture"),
        (np.zeros((0, 6, 3), np.uint8), "no picture"),
        (np.zeros((2, 8, 6, 3), np.uint8), "no picture"),
        (np.zeros((), np.uint8), "no picture"),
    ],
)
def test_a_wrong_shape_is_refused_with_both_shapes(array: np.ndarray[Any, Any], reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        to_input(array, INPUT, Preprocess())
    with pytest.raises(FrameError, match=r"prepared to \(1, 4, 4, 3\)"):
        to_input(PIXELS, INPUT, Preprocess(size=(4, 4)))


def test_a_mode_for_colours_is_refused_for_a_grey_input() -> None:
    with pytest.raises(ConfigError, match="needs 3 channels"):
        to_input(PIXELS, Tensor(0, "image", (1, 8, 6, 1), "float32"), Preprocess(mode="torch"))


def test_the_best_classes_come_first_and_ties_by_index() -> None:
    output = np.array([[0.1, 0.4, 0.4, 0.05, 0.05]], np.float32)
    best = top_k(output, ["cat", "dog"], k=3)
    assert [(b.index, b.label) for b in best] == [(1, "dog"), (2, "2"), (0, "cat")]
    assert best[0].score == pytest.approx(0.4)
    assert len(top_k(output, k=99)) == 5
