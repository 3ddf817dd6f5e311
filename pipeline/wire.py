"""The wire format: a tensor as msgpack chunks. Bytes in, chunk or WireError out; `reassembly` puts chunks together.

A chunk is the msgpack array `[header map, bin]`. Every header names the whole tensor, so chunks may come in any order,
twice, or never. Their bytes are coded (`pipeline.codecs`) as the header says; the checksum is that of the tensor's own
bytes. Nothing is allocated for what a header claims until it equals what this node expects, and coded bytes are fewer
than the tensor's. Nothing is ever executed. Layout constants and the header's keys are part of PROTOCOL_VERSION.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import msgpack
import numpy as np
import numpy.typing as npt
import xxhash

from pipeline import codecs, wire_fields
from pipeline.codecs import CODECS, NONE, Buffer
from pipeline.codecs.base import bytes_of
from pipeline.errors import WireError
from pipeline.graph import DTYPES, MOST_TENSOR_BYTES
from pipeline.protocol_version import PROTOCOL_VERSION, require_protocol
from pipeline.ranges import (
    MOST_ATTEMPT,
    MOST_BLOCKS,
    MOST_EPOCH,
    MOST_RANK,
    MOST_REASON,
    MOST_SEQUENCE,
)
from pipeline.trace import MAX_HOPS, Hop, Trace, pack_trace, read_trace

__all__ = [
    "MAX_HOPS",
    "Array",
    "Chunk",
    "Encoded",
    "Failed",
    "FrameKey",
    "Hop",
    "Received",
    "Trace",
    "decode_chunk",
    "decode_head",
    "encode",
    "encode_failure",
]

CHUNK_BYTES = 1 << 20
HEADER_LIMIT_BYTES = 1 << 14
LEAST_CHUNK_BYTES = 4_096
"""Of what a node sends, but for a tensor's last chunk."""
PARTS = 2
MARK_WINDOW = 10**9
"""Sequences of a thousand starts of a device: as far as a low-water mark is believed."""
_MOST_TILES = 256
_BIN_SIZES = {0xC4: 1, 0xC5: 2, 0xC6: 4}

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class FrameKey:
    """The computation that a tensor belongs to; `attempt` counts from 1, `oldest_open` is the device's low-water mark.

    Whatever a node holds of this stream for sequences below `oldest_open` will never be asked for again. `tile` counts
    the plan's tiles from 1, row by row; 0 is the whole map.
    """

    stream: str
    epoch: int
    sequence: int
    attempt: int
    oldest_open: int
    tile: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk that was read: `data` is the part from `offset` on of the `nbytes` that `codec` made of the tensor."""

    key: FrameKey
    tensor: int
    dtype: str
    shape: tuple[int, ...]
    codec: str
    nbytes: int
    offset: int
    checksum: int
    trace: Trace
    error: str
    data: memoryview
    of_frame: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """A whole tensor, its trace, and the seconds spent putting it together. `nbytes` came for it, coded."""

    key: FrameKey
    tensor: int
    array: Array
    trace: Trace
    decode_seconds: float
    nbytes: int


@dataclass(frozen=True, slots=True)
class Failed:
    """In place of an output: a node could not compute this frame; `of_frame` if nobody can, since it is no input."""

    key: FrameKey
    message: str
    trace: Trace
    of_frame: bool = False


class Encoded:
    """A coded tensor: iterate once for its chunks. `codec` is what coded it, `nbytes` what that made of it.

    The encode seconds of the trace's last hop are what coding and making the chunks took, the reader's time between
    chunks excluded.
    """

    def __init__(
        self, key: FrameKey, tensor: int, array: Array, codec: str, trace: Trace, chunk_bytes: int, began: float
    ) -> None:
        coded = codecs.encode(codec, array)
        self.codec, self.nbytes = coded.codec, coded.nbytes
        self._buffers, self._trace, self._chunk_bytes, self._began = coded.buffers, trace, chunk_bytes, began
        self._header = {
            "v": PROTOCOL_VERSION,
            **asdict(key),
            "tensor": tensor,
            "dtype": array.dtype.name,
            "shape": array.shape,
            "codec": coded.codec,
            "nbytes": coded.nbytes,
            "checksum": xxhash.xxh3_64_intdigest(bytes_of(array)),
        }
        self._spent = time.perf_counter() - began

    def __iter__(self) -> Iterator[bytes]:
        return map(b"".join, self.parts())

    def parts(self) -> Iterator[tuple[Buffer, ...]]:
        """The same chunks, each as its header and parts of the coded tensor's own memory, which is not copied."""
        header, spent = self._header, self._spent
        began = time.perf_counter()
        for offset, parts in _cut(self._buffers, self._chunk_bytes):
            header["offset"] = offset
            size = sum(map(len, parts))
            if offset + size >= self.nbytes:
                header["trace"] = pack_trace(self._trace, spent + time.perf_counter() - began)
            head = b"".join((b"\x92", msgpack.packb(header), b"\xc6", size.to_bytes(4, "big")))
            spent += time.perf_counter() - began
            yield (head, *parts)
            began = time.perf_counter()


def encode(
    key: FrameKey,
    tensor: int,
    array: Array,
    *,
    codec: str = NONE,
    trace: Trace = (),
    chunk_bytes: int = CHUNK_BYTES,
) -> Encoded:
    """The chunks of `array`, in order, each at most `chunk_bytes` of data; the last carries the trace.

    Where `codec` saves nothing, the array is sent as it is.
    """
    began = time.perf_counter()
    array = np.asarray(array, array.dtype.newbyteorder("="), order="C")  # np.ascontiguousarray makes rank 0 rank 1
    return Encoded(key, tensor, array, codec, trace, chunk_bytes, began)


def _cut(buffers: Sequence[Buffer], chunk_bytes: int) -> Iterator[tuple[int, list[memoryview]]]:
    """Where a chunk begins, and the parts of the buffers that are in it; one empty chunk where there is nothing."""
    begin, parts, room = 0, [], chunk_bytes
    for buffer in buffers:
        rest = memoryview(buffer)
        while len(rest) >= room:
            parts.append(rest[:room])
            yield begin, parts
            begin, rest, parts, room = begin + chunk_bytes, rest[room:], [], chunk_bytes
        if rest:
            parts.append(rest)
            room -= len(rest)
    if parts or not begin:
        yield begin, parts


def encode_failure(key: FrameKey, message: str, trace: Trace = (), *, of_frame: bool = False) -> bytes:
    """One chunk that says why there is no output for this frame; `of_frame` if it will have none anywhere."""
    header = {
        "v": PROTOCOL_VERSION,
        **asdict(key),
        "tensor": 0,
        "dtype": "uint8",
        "shape": (0,),
        "codec": NONE,
        "nbytes": 0,
        "checksum": xxhash.xxh3_64_intdigest(b""),
        "offset": 0,
        "trace": pack_trace(trace, 0.0),
        "error": message[:MOST_REASON] or "no reason given",
        "of_frame": of_frame,
    }
    return b"".join((b"\x92", msgpack.packb(header), b"\xc6", (0).to_bytes(4, "big")))


def decode_chunk(payload: bytes) -> Chunk:
    """Read one chunk; its data stays a view into `payload`. Raises WireError for anything that is not one."""
    chunk, _ = decode_head(payload, len(payload))
    return chunk


def decode_head(first: bytes | memoryview, nbytes: int) -> tuple[Chunk, int]:
    """Read a chunk of `nbytes` of which the first ones are here, its header among them.

    Returns the chunk with as much of its data as is here, and where that begins. Raises WireError.
    """
    header, begin = _read_header(first, nbytes)
    try:
        require_protocol(header["v"], error=WireError, what="a tensor")
        chunk = _chunk(header, memoryview(first)[begin:])
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"not a tensor chunk: header {type(error).__name__}: {error}") from error
    size = nbytes - begin
    if chunk.offset + size > chunk.nbytes or (not size and chunk.nbytes):
        raise WireError(f"chunk of {size} bytes at {chunk.offset} is not within {chunk.nbytes} bytes")
    return chunk, begin


def _chunk(header: Mapping[str, Any], data: memoryview) -> Chunk:
    """Each field within its range. Raises KeyError, TypeError or ValueError, which names the field and the limit."""

    def count(name: str, most: int) -> int:
        return wire_fields.count(name, header[name], most)

    key = FrameKey(
        stream=wire_fields.identifier("stream", header["stream"]),
        epoch=count("epoch", MOST_EPOCH),
        sequence=count("sequence", MOST_SEQUENCE),
        attempt=count("attempt", MOST_ATTEMPT),
        oldest_open=count("oldest_open", MOST_SEQUENCE),
        tile=count("tile", _MOST_TILES),
    )
    if key.oldest_open > key.sequence:
        raise ValueError(f"oldest_open {key.oldest_open} is above the frame's own sequence {key.sequence}")
    dtype, shape = wire_fields.text("dtype", header["dtype"]), header["shape"]
    if dtype not in DTYPES or not isinstance(shape, list | tuple) or len(shape) > MOST_RANK:
        raise ValueError(f"a tensor of up to {MOST_RANK} axes of a dtype known here, not {dtype!r:.40}")
    codec = wire_fields.text("codec", header["codec"])
    if codec != NONE and codec not in CODECS:
        raise ValueError(f"codec: one of {', '.join((NONE, *CODECS))} expected, not {codec!r:.40}")
    return Chunk(
        key=key,
        tensor=count("tensor", 10 * MOST_BLOCKS),
        dtype=dtype,
        shape=tuple(wire_fields.count("shape", size, 1 << 31) for size in shape),
        codec=codec,
        nbytes=count("nbytes", MOST_TENSOR_BYTES),
        offset=count("offset", MOST_TENSOR_BYTES),
        checksum=count("checksum", (1 << 64) - 1),
        trace=read_trace(header.get("trace", ())),
        error=wire_fields.text("error", header.get("error", ""), MOST_REASON),
        data=data,
        of_frame=wire_fields.flag("of_frame", header.get("of_frame", False)),
    )


def _read_header(payload: bytes | memoryview, nbytes: int) -> tuple[Mapping[str, Any], int]:
    """The header map and where the data begins; the bin's length must be exactly what is left of `nbytes`."""
    unpacker = msgpack.Unpacker(strict_map_key=True, max_buffer_size=HEADER_LIMIT_BYTES)
    try:
        unpacker.feed(memoryview(payload)[:HEADER_LIMIT_BYTES])
        if unpacker.read_array_header() != PARTS:
            raise WireError("not a tensor chunk: not an array of header and data")
        header = unpacker.unpack()
        position = unpacker.tell()
    except (msgpack.exceptions.UnpackException, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise WireError(f"not a tensor chunk: {type(error).__name__} {error}".rstrip()) from error
    if not isinstance(header, dict):
        raise WireError("not a tensor chunk: the header is not a map")
    width = _BIN_SIZES.get(payload[position], 0) if position < len(payload) else 0
    begin = position + 1 + width
    claimed = int.from_bytes(payload[position + 1 : begin], "big")
    if not width or begin > len(payload) or nbytes - begin != claimed:
        raise WireError(f"truncated chunk: {max(nbytes - begin, 0)} bytes of data, its header claims {claimed}")
    return header, begin
