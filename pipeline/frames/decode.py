"""Frames: from an encoded image or array to pixels, from pixels to a model's input, from its output to the top classes.

Everything here may come from strangers: bytes in, array or FrameError out; nothing is executed, nothing is allocated
for what a header merely claims, and work is bounded by the pixels of an image and the bytes of an array.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from pipeline.errors import ConfigError, FrameError
from pipeline.frames import packed
from pipeline.frames.bounds import check_jpeg, check_png
from pipeline.graph import Tensor

Array: TypeAlias = npt.NDArray[Any]

# said to standard error for each such picture, in words that it chooses, of which Python keeps every one for good
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

MAX_PIXELS = 24_000_000
"""Of an image, where its stream says nothing else: about a second of work, and 240 MB while it is decoded."""
_RANK_OF_IMAGE = 3
_RGB = 3
_MAX_SIZE = 1 << 40
_CHECKS = {"JPEG": check_jpeg, "PNG": check_png}
_NUMBERS = "biuf"
_ACCEPTED = "accepted are JPEG, PNG, NPY, and a msgpack map of dtype, shape and data"
_MSGPACK_MAPS = tuple(bytes([first]) for first in (*range(0x81, 0x90), 0xDE, 0xDF))
_OTHERS = {
    b"GIF8": "a GIF image",
    b"RIFF": "a RIFF file (WebP, WAV or AVI)",
    b"BM": "a BMP image",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    b"PK\x03\x04": "a ZIP archive (NPZ?)",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
    b"{": "JSON",
    b"[": "JSON",
}


def decode(payload: bytes, *, max_pixels: int = MAX_PIXELS) -> Array:
    """The array in `payload`; an image becomes uint8 of shape (height, width, 3), upright, transparency dropped.

    Raises FrameError for anything else, for broken data, and for images of more than `max_pixels`.
    """
    for magic, read in _READERS.items():
        if payload.startswith(magic):
            return read(payload, max_pixels)
    other = next((text for magic, text in _OTHERS.items() if payload.startswith(magic)), None)
    if other is None and payload.startswith(_MSGPACK_MAPS):
        return _msgpack(payload)
    found = other or (f"{len(payload)} bytes that begin with {payload[:8].hex(' ')}" if payload else "no bytes at all")
    raise FrameError(f"a frame of {found}; {_ACCEPTED}")


def _image(payload: bytes, max_pixels: int, kind: str) -> Array:
    try:
        _CHECKS[kind](payload)
        with Image.open(io.BytesIO(payload), formats=(kind,)) as image:
            if image.width * image.height > max_pixels:
                raise FrameError(
                    f"a {kind} frame of {image.width}x{image.height} is {image.width * image.height:,} pixels, "
                    f"more than the {max_pixels:,} allowed; scale it down before sending it"
                )
            return _upright_rgb(image)
    except FrameError:
        raise
    except Image.DecompressionBombError as error:
        raise FrameError(f"a {kind} frame of far more pixels than the {max_pixels:,} allowed: {error}") from error
    except Exception as error:  # Pillow's readers raise nearly everything on broken files
        raise FrameError(f"a broken {kind} frame of {len(payload):,} bytes: {type(error).__name__}: {error}") from error


def _upright_rgb(image: Image.Image) -> Array:
    image.load()
    with contextlib.suppress(Exception):  # a broken EXIF block is no reason to lose the picture
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # 16 bits of grey: Pillow's own conversion would clip them to white
        return np.repeat(_eight_bits(np.asarray(image))[..., None], _RGB, axis=-1)
    if image.mode == "RGB":
        return np.asarray(image)
    rgb = image.convert("RGB")
    image.close()  # two copies of the picture in memory are one too many
    return np.asarray(rgb)


def _eight_bits(grey: Array) -> Array:
    """The upper of two bytes, row by row: a whole map of wider integers would take several times the picture."""
    made = np.empty(grey.shape, np.uint8)
    for row, given in zip(made, grey, strict=True):
        row[:] = (given.astype(np.int64) >> 8).clip(0, 255)
    return made


def _jpeg(payload: bytes, max_pixels: int) -> Array:
    return _image(payload, max_pixels, "JPEG")


def _png(payload: bytes, max_pixels: int) -> Array:
    return _image(payload, max_pixels, "PNG")


def _npy(payload: bytes, max_pixels: int) -> Array:
    stream = io.BytesIO(payload)
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(stream)
    except Exception as error:  # NumPy parses the header as a Python literal, which fails in many ways
        raise FrameError(f"a broken NPY frame of {len(payload):,} bytes: {type(error).__name__}: {error}") from error
    return _array(dtype, shape, memoryview(payload)[stream.tell() :], "NPY", "F" if fortran else "C")


def _msgpack(payload: bytes) -> Array:
    try:
        name, shape, data = packed.array(payload)
        dtype = np.dtype(name)
    except Exception as error:  # msgpack, NumPy and the lookups each have errors of their own
        raise FrameError(
            f"a broken msgpack frame of {len(payload):,} bytes: {type(error).__name__}: {error}"
        ) from error
    return _array(dtype, shape, memoryview(data), "msgpack", "C")


def _array(dtype: np.dtype[Any], shape: Sequence[Any], data: memoryview, kind: str, order: Literal["C", "F"]) -> Array:
    """An array of its own (aligned, writable) from the bytes that are there, if they are what the header claims."""
    if dtype.kind not in _NUMBERS or dtype.subdtype is not None:
        raise FrameError(f"a {kind} frame of dtype {dtype}: give booleans, integers or floats")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise FrameError(f"a {kind} frame of shape {tuple(shape)}: sizes must be integers of at least 0")
    if len(shape) > packed.MAX_RANK or any(size > _MAX_SIZE for size in shape):
        raise FrameError(
            f"a {kind} frame of {len(shape)} dimensions: at most {packed.MAX_RANK}, each of at most {_MAX_SIZE:,}"
        )
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != data.nbytes:
        raise FrameError(f"a {kind} frame claims {dtype}{tuple(shape)}, {claimed:,} bytes, but brings {data.nbytes:,}")
    try:
        flat = np.frombuffer(data, dtype) if claimed else np.empty(0, dtype)
        return np.array(flat.reshape(shape, order=order), dtype.newbyteorder("="), order="C")
    except ValueError as error:  # more dimensions than NumPy has
        raise FrameError(f"a {kind} frame of shape {tuple(shape)}: {error}") from error


_READERS: dict[bytes, Callable[[bytes, int], Array]] = {
    b"\xff\xd8\xff": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    b"\x93NUMPY": _npy,
}


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Preprocessing of pixels into inputs.

    `size` is (height, width), None for the model's own. `mode` is that of keras.applications (`tf`: -1 to 1, `torch`:
    ImageNet mean and deviation, `caffe`: BGR minus means), `unit` for 0 to 1, `none` for 0 to 255. `crop` cuts the
    middle to the right proportions instead of stretching.
    """

    size: tuple[int, int] | None = None
    mode: Literal["tf", "torch", "caffe", "unit", "none"] = "none"
    crop: bool = False


def to_input(array: Array, tensor: Tensor, preprocess: Preprocess) -> Array:
    """The model's input `tensor` from a decoded frame: `to_picture`, then `to_normalised`. Raises what they raise."""
    return to_normalised(to_picture(array, tensor, preprocess), tensor, preprocess)


def is_picture(tensor: Tensor) -> bool:
    """True for an input of the shape (1, height, width, 1 or 3), which pixels can be resized to."""
    return len(tensor.shape) == _RANK_OF_IMAGE + 1 and tensor.shape[-1] in {1, _RGB}


def to_picture(array: Array, tensor: Tensor, preprocess: Preprocess) -> Array:
    """Pixels in the shape of the model's input `tensor`, as uint8; of a frame that is no picture, the input itself.

    Pixels (uint8, (height, width[, 1, 3 or 4])) are resized for an input of (1, height, width, 1 or 3). An array that
    has the input's shape, with or without the batch, is taken as it is, unless it is pixels for a float input. Raises
    FrameError for any other shape.
    """
    image_input = is_picture(tensor)
    if image_input and array.dtype == np.uint8:
        made = _resized(array[0] if array.shape == tensor.shape else array, tensor, preprocess)[None]
        if made.shape != tensor.shape:
            raise FrameError(f"a frame prepared to {made.shape}, the model's input is {tensor.shape}; check `size`")
        return np.ascontiguousarray(made)
    if tensor.shape not in {array.shape, (1, *array.shape)}:
        raise FrameError(
            f"a frame of {array.dtype}{array.shape} does not fit the model's input {tensor.dtype}{tensor.shape}; "
            + ("send an image, pixels as uint8, or that shape" if image_input else "send that shape")
        )
    if not np.can_cast(array.dtype, tensor.dtype, "same_kind") or (image_input and array.dtype.kind != "f"):
        raise FrameError(f"a frame of {array.dtype}: the model's input is {tensor.dtype}; pixels come as uint8")
    return np.ascontiguousarray(array.reshape(tensor.shape), np.dtype(tensor.dtype))


def to_normalised(picture: Array, tensor: Tensor, preprocess: Preprocess) -> Array:
    """The model's input `tensor` from what `to_picture` made; what is no pixels is returned as it is.

    Raises ConfigError for a mode that needs colours where there are none.
    """
    if not (is_picture(tensor) and picture.dtype == np.uint8):
        return picture
    return _normalised(picture, preprocess.mode).astype(tensor.dtype, copy=False)


def _resized(pixels: Array, tensor: Tensor, preprocess: Preprocess) -> Array:
    image = _as_image(pixels, tensor)
    image = image.convert("L" if tensor.shape[-1] == 1 else "RGB")
    height, width = preprocess.size or tensor.shape[1:3]
    if image.size != (width, height):
        if preprocess.crop:
            image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        else:
            image = image.resize((width, height), Image.Resampling.BILINEAR)
    made = np.asarray(image)
    return made[..., None] if tensor.shape[-1] == 1 else made


def _as_image(pixels: Array, tensor: Tensor) -> Image.Image:
    if pixels.ndim == _RANK_OF_IMAGE and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    colours = pixels.shape[_RANK_OF_IMAGE - 1 :]
    if 0 in pixels.shape or pixels.ndim not in {2, _RANK_OF_IMAGE} or colours not in {(), (3,), (4,)}:
        raise FrameError(
            f"a frame of {pixels.dtype}{pixels.shape} is no picture for the model's input "
            f"{tensor.dtype}{tensor.shape}; pixels are (height, width), with 1, 3 or 4 channels last"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


_MEANS_BGR = np.array([103.939, 116.779, 123.68], np.float32)
_MEANS_RGB = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATIONS_RGB = np.array([0.229, 0.224, 0.225], np.float32)


def _normalised(pixels: Array, mode: str) -> Array:
    """float32, in the order of operations of keras.applications, so that the bits are its own."""
    x = pixels.astype(np.float32)
    if mode in {"torch", "caffe"} and x.shape[-1] != _RGB:
        raise ConfigError(f"preprocess mode {mode!r} needs 3 channels, the model's input has {x.shape[-1]}; use unit")
    if mode == "tf":
        return x / np.float32(127.5) - np.float32(1)
    if mode == "caffe":
        return x[..., ::-1] - _MEANS_BGR
    if mode == "torch":
        return (x / np.float32(255) - _MEANS_RGB) / _DEVIATIONS_RGB
    return x / np.float32(255) if mode == "unit" else x


@dataclass(frozen=True, slots=True)
class Scored:
    """One class of a model's answer; `label` is its index in digits where there are no labels."""

    index: int
    label: str
    score: float


def top_k(output: Array, labels: Sequence[str] | None = None, k: int = 5) -> list[Scored]:
    """The `k` largest elements of an output, largest first; of equals, the lower index first."""
    scores = np.asarray(output).reshape(-1)
    best = np.argsort(-scores.astype(np.float64), kind="stable")[:k]
    return [Scored(int(i), labels[i] if labels and i < len(labels) else str(i), float(scores[i])) for i in best]
