"""Frames as a program has them become the bytes that a stream's device reads."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgpack
import numpy as np
import numpy.typing as npt

from broker import topics
from pipeline.errors import ConfigError, FrameError

Pixels: TypeAlias = npt.NDArray[Any]
Frame: TypeAlias = bytes | bytearray | memoryview | Path | Pixels | Mapping[str, Pixels]
"""An encoded image or NPY file, or the path of one; an array; arrays by input for a model with several inputs."""

_NUMBERS = frozenset("biuf")


def frame_bytes(frame: Frame) -> bytes:
    """The bytes to publish: encoded ones as they are, an array as NPY, a mapping as a msgpack map of arrays.

    Raises ConfigError for a file that cannot be read, FrameError for one that is too large and for arrays of other than
    numbers.
    """
    if isinstance(frame, bytes | bytearray | memoryview):
        return bytes(frame)
    if isinstance(frame, Path):
        return _content(frame)
    if isinstance(frame, Mapping):
        packed: bytes = msgpack.packb({name: _fields(name, array) for name, array in frame.items()})
        return packed
    array = _numbers("a frame", np.asarray(frame))
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def _content(path: Path) -> bytes:
    """A file's bytes; a pipe's as well, and of what never ends no more than a message may have."""
    most = topics.LARGEST_PACKET
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if len(content) > most:
        raise FrameError(f"{path}: more than {most:,} bytes, the most that a message may have; send a smaller one")
    return content


def _fields(name: str, array: Pixels) -> dict[str, Any]:
    array = _numbers(f"input {name!r:.80}", np.asarray(array))
    return {"dtype": array.dtype.name, "shape": array.shape, "data": array.tobytes()}


def _numbers(what: str, array: Pixels) -> Pixels:
    if array.dtype.kind not in _NUMBERS:
        raise FrameError(f"{what} of dtype {array.dtype}: give booleans, integers or floats")
    return array.astype(array.dtype.newbyteorder("="), copy=False)
