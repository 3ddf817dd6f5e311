"""The wire format: a tensor as msgpack chunks, and their reassembly. Bytes in, message or WireError out.

A chunk is the msgpack array `[header map, bin]`. Every header names the whole tensor, so chunks may come in any order,
twice, or never. Their bytes are coded (`pipeline.codecs`) as the header says; the checksum is that of the tensor's own
bytes. Nothing is allocated for what a header claims until it equals what this node expects, and coded bytes are fewer
than the tensor's. Nothing is ever executed. Layout constants and the header's keys are part of PROTOCOL_VERSION.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

import msgpack
import numpy as np
import numpy.typing as npt
import xxhash

from pipeline import codecs, wire_fields
from pipeline.codecs import CODECS, NONE, Buffer
from pipeline.errors import WireError
from pipeline.graph import DTYPES, MOST_TENSOR_BYTES, Tensor
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
    "Assembler",
    "Chunk",
    "Encoded",
    "Failed",
    "FrameKey",
    "Hop",
    "Received",
    "Trace",
    "decode_chunk",
    "encode",
    "encode_failure",
]

CHUNK_BYTES = 1 << 20
HEADER_LIMIT_BYTES = 1 << 14
LEAST_CHUNK_BYTES = 4_096
_LEAST_CHUNKS = 1_024
"""A tensor may come in as many chunks, or in twice as many as chunks of LEAST_CHUNK_BYTES would be, if it is sent again
in another size: each costs its reader memory of its own.
"""
PARTS = 2
MARK_WINDOW = 10**9
"""Sequences of a thousand starts of a device: as far as a low-water mark is believed."""
ALIGNMENT = 64
"""Bytes. An engine can read a tensor that begins at a multiple of them where it is."""
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
    """In place of an output: a node could not compute this frame."""

    key: FrameKey
    message: str
    trace: Trace


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
            "checksum": xxhash.xxh3_64_intdigest(_bytes_of(array)),
        }
        self._spent = time.perf_counter() - began

    def __iter__(self) -> Iterator[bytes]:
        header, spent = self._header, self._spent
        began = time.perf_counter()
        for offset, parts in _cut(self._buffers, self._chunk_bytes):
            header["offset"] = offset
            size = sum(map(len, parts))
            if offset + size >= self.nbytes:
                header["trace"] = pack_trace(self._trace, spent + time.perf_counter() - began)
            message = b"".join((b"\x92", msgpack.packb(header), b"\xc6", size.to_bytes(4, "big"), *parts))
            spent += time.perf_counter() - began
            yield message
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


def encode_failure(key: FrameKey, message: str, trace: Trace = ()) -> bytes:
    """One chunk that says why there is no output for this frame."""
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
    }
    return b"".join((b"\x92", msgpack.packb(header), b"\xc6", (0).to_bytes(4, "big")))


def decode_chunk(payload: bytes) -> Chunk:
    """Read one chunk; its data stays a view into `payload`. Raises WireError for anything that is not one."""
    header, begin = _read_header(payload)
    try:
        require_protocol(header["v"], error=WireError, what="a tensor")
        chunk = _chunk(header, memoryview(payload)[begin:])
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"not a tensor chunk: header {type(error).__name__}: {error}") from error
    if chunk.offset + len(chunk.data) > chunk.nbytes or (not chunk.data and chunk.nbytes):
        raise WireError(f"chunk of {len(chunk.data)} bytes at {chunk.offset} is not within {chunk.nbytes} bytes")
    return chunk


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
    )


ChunkKey: TypeAlias = tuple[str, FrameKey, int]


@dataclass(slots=True)
class _Partial:
    """`expected` is the tensor, `held` the memory that its chunks go to: its own where they are not coded."""

    chunk: Chunk
    expected: Tensor
    held: Array
    bytes_at: dict[int, int] = field(default_factory=dict)
    nbytes: int = 0
    decode_seconds: float = 0.0
    trace: Trace = ()

    def note(self, chunk: Chunk) -> None:
        """Count a chunk's bytes, once where it came twice."""
        before, now = self.bytes_at.get(chunk.offset, 0), len(chunk.data)
        if now > before or not before:
            self.bytes_at[chunk.offset] = now
            self.nbytes += now - before

    @property
    def is_whole(self) -> bool:
        """Whether there is no byte that no chunk had. They overlap where a tensor was sent again in other sizes.

        Raises WireError for more of them than two sizes make.
        """
        total, end = self.nbytes, 0
        if total < self.chunk.nbytes:
            return False
        for offset, nbytes in sorted(self.bytes_at.items()):
            if offset > end:
                break
            end = max(end, offset + nbytes)
        if end < self.chunk.nbytes and total > 2 * self.chunk.nbytes:
            raise WireError(f"chunks of {total} bytes overlap and leave a gap at {end} of {self.chunk.nbytes}")
        return end >= self.chunk.nbytes


Expect: TypeAlias = Callable[[FrameKey, int], Tensor | None]
"""(key, tensor) -> what this node expects there, None when it expects nothing."""


class Assembler:
    """Reassembles chunks, for one reader thread. Holds at most `limit_bytes` of tensors that are not yet whole.

    When that is exceeded the oldest goes: its frame is submitted again by the device.
    """

    def __init__(self, expect: Expect, *, limit_bytes: int = 1 << 29) -> None:
        self._expect = expect
        self._limit_bytes = limit_bytes
        self._partial: OrderedDict[ChunkKey, _Partial] = OrderedDict()
        self._low: dict[str, int] = {}
        self.pending_bytes = 0

    def add(self, sender: str, payload: bytes) -> Received | Failed | None:
        """Take one message; returns the tensor once it is whole. Raises WireError and forgets what was wrong."""
        began = time.perf_counter()
        chunk = decode_chunk(payload)
        if chunk.error:
            return Failed(chunk.key, chunk.error, chunk.trace)
        key = (sender, replace(chunk.key, oldest_open=0), chunk.tensor)
        partial = self._partial.get(key) or self._begin(key, chunk)
        self._forget_closed(chunk.key)
        if _content(chunk) != _content(partial.chunk):
            self._drop(key)
            raise WireError(f"tensor {chunk.tensor} of frame {chunk.key.sequence}: chunks of two different tensors")
        target = _bytes_of(partial.held)
        target[chunk.offset : chunk.offset + len(chunk.data)] = chunk.data
        partial.note(chunk)
        partial.trace = chunk.trace or partial.trace
        try:
            if len(partial.bytes_at) > max(_LEAST_CHUNKS, 2 * chunk.nbytes // LEAST_CHUNK_BYTES):
                raise WireError(f"tensor {chunk.tensor} of frame {chunk.key.sequence}: too many chunks for its bytes")
            received = self._finish(key, partial) if partial.is_whole else None
        except WireError:
            self._drop(key)
            raise
        partial.decode_seconds += time.perf_counter() - began
        return replace(received, decode_seconds=partial.decode_seconds) if received else None

    def drop_epoch(self, stream: str, epoch: int) -> None:
        """Forget what is not whole of this epoch."""
        self._drop_where(lambda key: key.stream == stream and key.epoch == epoch)

    def clear(self) -> None:
        """Forget everything that is not whole."""
        self._drop_where(lambda _: True)

    def _begin(self, key: ChunkKey, chunk: Chunk) -> _Partial:
        expected = self._expect(chunk.key, chunk.tensor)
        if expected is None:
            raise WireError(
                f"unexpected tensor {chunk.tensor} of stream {chunk.key.stream!r}, epoch {chunk.key.epoch}: "
                "no plan that this node holds asks for it"
            )
        is_whole = chunk.nbytes == expected.nbytes if chunk.codec == NONE else chunk.nbytes < expected.nbytes
        if (chunk.dtype, chunk.shape) != (expected.dtype, expected.shape) or not is_whole:
            coded = "" if chunk.codec == NONE else f", coded with {chunk.codec}"
            raise WireError(
                f"tensor {chunk.tensor} ({expected.name}): {chunk.dtype}{list(chunk.shape)} of {chunk.nbytes} bytes"
                f"{coded}, expected {expected.dtype}{list(expected.shape)} of {expected.nbytes}"
            )
        held = _aligned(expected) if chunk.codec == NONE else np.empty(chunk.nbytes, np.uint8)
        partial = _Partial(chunk, expected, held)
        self._partial[key] = partial
        self.pending_bytes += chunk.nbytes
        while self.pending_bytes > self._limit_bytes and len(self._partial) > 1:
            self._drop(next(iter(self._partial)))
        return partial

    def _finish(self, key: ChunkKey, partial: _Partial) -> Received:
        self._drop(key)
        chunk, array = partial.chunk, partial.held
        if chunk.codec != NONE:
            array = _aligned(partial.expected)
            codecs.decode(chunk.codec, _bytes_of(partial.held), array)
        seen = xxhash.xxh3_64_intdigest(_bytes_of(array))
        if seen != chunk.checksum:
            raise WireError(
                f"tensor {chunk.tensor} of frame {chunk.key.sequence}: checksum {seen:016x}, "
                f"its sender had {chunk.checksum:016x}"
            )
        return Received(chunk.key, chunk.tensor, array, partial.trace, 0.0, chunk.nbytes)

    def _forget_closed(self, key: FrameKey) -> None:
        # the mark told last, not the highest: a wrong one is mended by the next, and is believed so far only
        if key.oldest_open != self._low.get(key.stream):
            self._low[key.stream] = key.oldest_open
            self._drop_where(
                lambda held: held.stream == key.stream and 0 < key.oldest_open - held.sequence <= MARK_WINDOW
            )

    def _drop_where(self, condition: Callable[[FrameKey], bool]) -> None:
        for key in [key for key in self._partial if condition(key[1])]:
            self._drop(key)

    def _drop(self, key: ChunkKey) -> None:
        partial = self._partial.pop(key, None)
        if partial is not None:
            self.pending_bytes -= partial.chunk.nbytes


def _read_header(payload: bytes) -> tuple[Mapping[str, Any], int]:
    """The header map and where the data begins; the bin's length must be exactly what is left."""
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
    if not width or len(payload) - begin != claimed:
        raise WireError(f"truncated chunk: {max(len(payload) - begin, 0)} bytes of data, its header claims {claimed}")
    return header, begin


def _content(chunk: Chunk) -> tuple[int, int, str]:
    """What all chunks of a tensor agree in."""
    return chunk.checksum, chunk.nbytes, chunk.codec


def _aligned(tensor: Tensor) -> Array:
    """Memory for it; NumPy's own begins anywhere."""
    held = np.empty(tensor.nbytes + ALIGNMENT, np.uint8)
    begin = -held.ctypes.data % ALIGNMENT
    return held[begin : begin + tensor.nbytes].view(tensor.dtype).reshape(tensor.shape)


def _bytes_of(array: Array) -> memoryview:
    """The array's own memory as bytes, not a copy; the array is C-contiguous."""
    return array.reshape(-1).view(np.uint8).data
