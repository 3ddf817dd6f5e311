"""What a codec is, and the views that codecs work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.errors import WireError

Array: TypeAlias = npt.NDArray[Any]
Buffer: TypeAlias = bytes | memoryview


class CodecError(WireError):
    """A peer: the bytes are not what the codec makes of a tensor of the declared dtype and shape."""


@dataclass(frozen=True, slots=True)
class Coded:
    """A tensor's bytes for the wire, in order, and the name of the codec that they are of."""

    codec: str
    buffers: tuple[Buffer, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(map(len, self.buffers))


class Codec(Protocol):
    """A lossless code of arrays. Both ways may be used by several threads at once."""

    def takes(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """True if arrays of this dtype and shape can be coded; it may still save nothing."""
        ...

    def encode(self, array: Array) -> Sequence[Buffer] | None:
        """Buffers that `decode` makes the same bits of; None where it is not worth it. The array is C-contiguous."""
        ...

    def decode(self, data: memoryview, out: Array) -> None:
        """Fill all of `out`. Raises CodecError, having unpacked no more than `out` holds."""
        ...


def bits_of(array: Array) -> Array:
    """The array's memory as unsigned integers of its item size, flat: -0.0 and NaNs keep their bits."""
    return array.reshape(-1).view(f"u{array.dtype.itemsize}")


def bytes_of(array: Array) -> memoryview:
    """The array's memory as bytes, not a copy; the array is C-contiguous."""
    return array.reshape(-1).view(np.uint8).data
