"""The wire format: a tensor as msgpack chunks. Bytes in, chunk or WireError out; `reassembly` puts chunks together.

A chunk is the msgpack array `[header map, bin]`. Every header names the whole tensor, so chunks may come in any order,
twice, or never. Nothing is allocated for what a header claims until it equals what this node expects, and nothing is
ever executed. Layout constants and the header's keys are part of PROTOCOL_VERSION.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import msgpack
import numpy as np
import numpy.typing as npt
import xxhash

from pipeline import wire_fields
from pipeline.errors import WireError
from pipeline.graph import DTYPES, MOST_TENSOR_BYTES
from pipeline.protocol_version import PROTOCOL_VERSION, require_protocol
from pipeline.ranges import (
    ID,
    MOST_ATTEMPT,
    MOST_BLOCKS,
    MOST_EPOCH,
    MOST_RANK,
    MOST_REASON,
    MOST_SECONDS,
    MOST_SEQUENCE,
)

CHUNK_BYTES = 1 << 20
HEADER_LIMIT_BYTES = 1 << 14
MAX_HOPS = 16
PARTS = 2
MARK_WINDOW = 10**9
"""Sequences of a thousand starts of a device: as far as a low-water mark is believed."""
_ID = re.compile(ID)
_MOST_TILES = 256
_MOST_TS = 1e11
_BIN_SIZES = {0xC4: 1, 0xC5: 2, 0xC6: 4}

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Hop:
    """One node's work on a frame, in seconds on its own clock; `*_ts` are seconds since 1970.

    `arrived_ts` is when the last input was whole, `sent_ts` when the first chunk of the output was made. While a node
    was compiling (`is_compiling`), what it took is not what it usually takes.
    """

    node: str
    tier: str
    arrived_ts: float
    decode_seconds: float = 0.0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    encode_seconds: float = 0.0
    sent_ts: float = 0.0
    is_compiling: bool = False


Trace: TypeAlias = tuple[Hop, ...]


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
    """A decoded chunk: `data` is the part of the tensor's bytes from `offset` on."""

    key: FrameKey
    tensor: int
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    offset: int
    checksum: int
    trace: Trace
    error: str
    data: memoryview


@dataclass(frozen=True, slots=True)
class Received:
    """A whole tensor, its trace, and the seconds spent putting it together."""

    key: FrameKey
    tensor: int
    array: Array
    trace: Trace
    decode_seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """In place of an output: a node could not compute this frame."""

    key: FrameKey
    message: str
    trace: Trace


def encode(
    key: FrameKey, tensor: int, array: Array, *, trace: Trace = (), chunk_bytes: int = CHUNK_BYTES
) -> Iterator[bytes]:
    """The chunks of `array`, in order, each at most `chunk_bytes` of data; the last carries the trace."""
    for parts in encode_parts(key, tensor, array, trace=trace, chunk_bytes=chunk_bytes):
        yield b"".join(parts)


def encode_parts(
    key: FrameKey, tensor: int, array: Array, *, trace: Trace = (), chunk_bytes: int = CHUNK_BYTES
) -> Iterator[tuple[bytes, memoryview]]:
    """The same chunks, each as its header and a part of the array's own memory, which is not copied.

    The encode seconds of the last hop are what this generator itself took, the reader's time between chunks excluded.
    """
    began = time.perf_counter()
    array = np.asarray(array, array.dtype.newbyteorder("="), order="C")  # np.ascontiguousarray makes rank 0 rank 1
    data = bytes_of(array)
    header = {
        "v": PROTOCOL_VERSION,
        **asdict(key),
        "tensor": tensor,
        "dtype": array.dtype.name,
        "shape": array.shape,
        "nbytes": array.nbytes,
        "checksum": xxhash.xxh3_64_intdigest(data),
    }
    spent = 0.0
    for offset in range(0, max(array.nbytes, 1), chunk_bytes):
        part = data[offset : offset + chunk_bytes]
        header["offset"] = offset
        if offset + chunk_bytes >= array.nbytes:
            header["trace"] = _pack_trace(trace, spent + time.perf_counter() - began)
        head = b"".join((b"\x92", msgpack.packb(header), b"\xc6", len(part).to_bytes(4, "big")))
        spent += time.perf_counter() - began
        yield head, part
        began = time.perf_counter()


def encode_failure(key: FrameKey, message: str, trace: Trace = ()) -> bytes:
    """One chunk that says why there is no output for this frame."""
    header = {
        "v": PROTOCOL_VERSION,
        **asdict(key),
        "tensor": 0,
        "dtype": "uint8",
        "shape": (0,),
        "nbytes": 0,
        "checksum": xxhash.xxh3_64_intdigest(b""),
        "offset": 0,
        "trace": _pack_trace(trace, 0.0),
        "error": message[:MOST_REASON] or "no reason given",
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
    return Chunk(
        key=key,
        tensor=count("tensor", 10 * MOST_BLOCKS),
        dtype=dtype,
        shape=tuple(wire_fields.count("shape", size, 1 << 31) for size in shape),
        nbytes=count("nbytes", MOST_TENSOR_BYTES),
        offset=count("offset", MOST_TENSOR_BYTES),
        checksum=count("checksum", (1 << 64) - 1),
        trace=_read_trace(header.get("trace", ())),
        error=wire_fields.text("error", header.get("error", ""), MOST_REASON),
        data=data,
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


def bytes_of(array: Array) -> memoryview:
    """The array's own memory as bytes, not a copy; the array is C-contiguous."""
    return array.reshape(-1).view(np.uint8).data


def _pack_trace(trace: Trace, encode_seconds: float) -> list[list[Any]]:
    if trace:
        trace = (*trace[:-1], replace(trace[-1], encode_seconds=encode_seconds))
    return [list(asdict(hop).values()) for hop in trace]


def _read_trace(value: Any) -> Trace:
    if len(value) > MAX_HOPS:
        raise ValueError(f"a trace of {len(value)} hops, at most {MAX_HOPS}")
    return tuple(_read_hop(*hop) for hop in value)


def _read_hop(node: Any, tier: Any, *numbers: Any) -> Hop:
    *timestamps, is_compiling = numbers
    arrived, decode, queue, compute, encode, sent = timestamps
    arrived_ts, sent_ts = (
        wire_fields.number("arrived_ts", arrived, _MOST_TS),
        wire_fields.number("sent_ts", sent, _MOST_TS),
    )
    took = [wire_fields.number("seconds of a hop", number, MOST_SECONDS) for number in (decode, queue, compute, encode)]
    name = wire_fields.identifier("node of a hop", node)
    return Hop(
        name,
        wire_fields.text("tier", tier),
        arrived_ts,
        took[0],
        took[1],
        took[2],
        took[3],
        sent_ts,
        is_compiling is True,
    )
