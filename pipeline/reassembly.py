"""Chunks of tensors put together, in memory where an engine can read them. Bytes in, tensor or WireError out.

A chunk can be added when it has come, or a place be asked for it when it begins to come, so that the network writes its
data where it belongs.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import xxhash

from pipeline import codecs
from pipeline.codecs import NONE
from pipeline.codecs.base import bytes_of
from pipeline.errors import WireError
from pipeline.graph import Tensor
from pipeline.wire import (
    LEAST_CHUNK_BYTES,
    MARK_WINDOW,
    Array,
    Chunk,
    Failed,
    FrameKey,
    Received,
    Trace,
    decode_chunk,
    decode_head,
)

ALIGNMENT = 64
"""Bytes. An engine can read a tensor that begins at a multiple of them where it is."""

_LEAST_CHUNKS = 1_024
"""A tensor may come in as many chunks, or in twice as many as chunks of LEAST_CHUNK_BYTES would be, if it is sent again
in another size: each costs its reader memory of its own.
"""

ChunkKey: TypeAlias = tuple[str, FrameKey, int]


@dataclass(slots=True, eq=False)
class _Partial:
    """`expected` is the tensor, `held` the memory that its chunks go to: its own where they are not coded."""

    chunk: Chunk
    expected: Tensor
    held: Array
    bytes_at: dict[int, int] = field(default_factory=dict)
    nbytes: int = 0
    decode_seconds: float = 0.0
    trace: Trace = ()
    open_places: int = 0

    def note(self, offset: int, nbytes: int) -> None:
        """Count a chunk's bytes, once where it came twice."""
        before = self.bytes_at.get(offset, 0)
        if nbytes > before or not before:
            self.bytes_at[offset] = nbytes
            self.nbytes += nbytes - before

    @property
    def is_whole(self) -> bool:
        """True when each byte was in some chunk. They overlap where a tensor was sent again in other sizes.

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

    def is_of(self, chunk: Chunk) -> bool:
        """True for a chunk of the same coded bytes, as far as its header says."""
        return _content(chunk) == _content(self.chunk)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a chunk's data goes: behind its first `kept` bytes, straight `into` the tensor's memory."""

    kept: int
    into: memoryview
    sender: str
    chunk: Chunk
    partial: _Partial


Expect: TypeAlias = Callable[[FrameKey, int], Tensor | None]
"""(key, tensor) -> what this node expects there, None when it expects nothing."""


class Assembler:
    """Puts chunks together. Holds at most `limit_bytes` of tensors that are not yet whole.

    When that is exceeded the oldest goes: its frame is submitted again by the device. One thread adds chunks. Others
    may ask for places, so that a chunk is received where it belongs; the one thread adds the filled places.
    """

    def __init__(self, expect: Expect, *, limit_bytes: int = 1 << 29) -> None:
        self._expect = expect
        self._limit_bytes = limit_bytes
        self._partial: OrderedDict[ChunkKey, _Partial] = OrderedDict()
        self._low: dict[str, int] = {}
        self._lock = threading.Lock()
        self.pending_bytes = 0

    def add(self, sender: str, piece: bytes | Place) -> Received | Failed | None:
        """Take one message, or the place that it has filled; returns the tensor once it is whole.

        Raises WireError and forgets what was wrong.
        """
        if isinstance(piece, Place):
            return self._add_placed(piece)
        began = time.perf_counter()
        chunk = decode_chunk(piece)
        if chunk.error:
            return Failed(chunk.key, chunk.error, chunk.trace, chunk.of_frame)
        key = _key(sender, chunk)
        with self._lock:
            partial = self._partial_of(key, chunk)
        bytes_of(partial.held)[chunk.offset : chunk.offset + len(chunk.data)] = chunk.data
        return self._added(key, partial, chunk, len(chunk.data), began)

    def place(self, sender: str, first: memoryview, nbytes: int) -> Place | None:
        """Where the data of a chunk of `nbytes` goes that begins with `first`. In any thread.

        None for what has no place here: failures, and all for which `add` would raise WireError, once it is whole.
        """
        try:
            chunk, begin = decode_head(first, nbytes)
            if chunk.error:
                return None
            with self._lock:
                partial = self._held(_key(sender, chunk), chunk)
                if not partial.is_of(chunk):
                    return None  # `add` forgets the tensor, and says why
                partial.open_places += 1
        except WireError:
            return None
        into = bytes_of(partial.held)[chunk.offset : chunk.offset + nbytes - begin]
        return Place(begin, into, sender, replace(chunk, data=into), partial)

    def drop_epoch(self, stream: str, epoch: int) -> None:
        """Forget what is not whole of this epoch."""
        with self._lock:
            self._drop_where(lambda key: key.stream == stream and key.epoch == epoch)

    def clear(self) -> None:
        """Forget everything that is not whole."""
        with self._lock:
            self._drop_where(lambda _: True)

    def _add_placed(self, place: Place) -> Received | None:
        began = time.perf_counter()
        key, partial = _key(place.sender, place.chunk), place.partial
        with self._lock:
            partial.open_places -= 1
            if self._partial.get(key) is not partial:
                return None  # it came whole some other way, or was dropped
        return self._added(key, partial, place.chunk, len(place.into), began)

    def _partial_of(self, key: ChunkKey, chunk: Chunk) -> _Partial:
        """What the chunk is a part of. Raises WireError and forgets it if it cannot be."""
        partial = self._held(key, chunk)
        if not partial.is_of(chunk):
            self._drop(key)
            raise WireError(f"tensor {chunk.tensor} of frame {chunk.key.sequence}: chunks of two different tensors")
        return partial

    def _held(self, key: ChunkKey, chunk: Chunk) -> _Partial:
        partial = self._partial.get(key) or self._begin(key, chunk)
        self._forget_closed(chunk.key)
        return partial

    def _added(self, key: ChunkKey, partial: _Partial, chunk: Chunk, nbytes: int, began: float) -> Received | None:
        """Count a chunk whose data is in its place; returns the tensor if that was the last. Raises WireError."""
        partial.note(chunk.offset, nbytes)
        partial.trace = chunk.trace or partial.trace
        try:
            if len(partial.bytes_at) > max(_LEAST_CHUNKS, 2 * chunk.nbytes // LEAST_CHUNK_BYTES):
                raise WireError(f"tensor {chunk.tensor} of frame {chunk.key.sequence}: too many chunks for its bytes")
            is_whole = partial.is_whole
        except WireError:
            with self._lock:
                if self._partial.get(key) is partial:
                    self._drop(key)
            raise
        if not is_whole:
            partial.decode_seconds += time.perf_counter() - began
            return None
        with self._lock:
            self._drop(key)
            has_writers = bool(partial.open_places)
        # a chunk that comes twice, or overlaps with others, may be under way into this memory still; nobody can begin
        # another one any more
        received = _decoded(partial, _copied(partial.held) if has_writers else partial.held)
        return replace(received, decode_seconds=partial.decode_seconds + time.perf_counter() - began)

    def _begin(self, key: ChunkKey, chunk: Chunk) -> _Partial:
        expected = self._expect(chunk.key, chunk.tensor)
        if expected is None:
            raise WireError(
                f"unexpected tensor {chunk.tensor} of stream {chunk.key.stream!r}, epoch {chunk.key.epoch}: "
                "no plan that this node holds asks for it"
            )
        admitted = expected.admitted(chunk.dtype, chunk.shape)
        if admitted is None or not _is_size_of(admitted, chunk):
            coded = "" if chunk.codec == NONE else f", coded with {chunk.codec}"
            raise WireError(
                f"tensor {chunk.tensor} ({expected.name}): {chunk.dtype}{list(chunk.shape)} of {chunk.nbytes} bytes"
                f"{coded}, expected {expected.describe()}"
            )
        held = _aligned_to(admitted) if chunk.codec == NONE else np.empty(chunk.nbytes, np.uint8)
        partial = _Partial(chunk, admitted, held)
        self._partial[key] = partial
        self.pending_bytes += chunk.nbytes
        while self.pending_bytes > self._limit_bytes and len(self._partial) > 1:
            self._drop(next(iter(self._partial)))
        return partial

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


def _key(sender: str, chunk: Chunk) -> ChunkKey:
    return sender, replace(chunk.key, oldest_open=0), chunk.tensor


def _is_size_of(tensor: Tensor, chunk: Chunk) -> bool:
    return chunk.nbytes == tensor.nbytes if chunk.codec == NONE else chunk.nbytes < tensor.nbytes


def _content(chunk: Chunk) -> tuple[int, int, str]:
    """What all chunks of a tensor agree in."""
    return chunk.checksum, chunk.nbytes, chunk.codec


def _decoded(partial: _Partial, held: Array) -> Received:
    """The whole tensor, of all its coded bytes. Raises WireError where its checksum is not its sender's."""
    chunk, array = partial.chunk, held
    if chunk.codec != NONE:
        array = _aligned_to(partial.expected)
        codecs.decode(chunk.codec, bytes_of(held), array)
    seen = xxhash.xxh3_64_intdigest(bytes_of(array))
    if seen != chunk.checksum:
        raise WireError(
            f"tensor {chunk.tensor} of frame {chunk.key.sequence}: checksum {seen:016x}, "
            f"its sender had {chunk.checksum:016x}"
        )
    return Received(chunk.key, chunk.tensor, array, partial.trace, 0.0, chunk.nbytes)


def _aligned(shape: tuple[int, ...], dtype: str, nbytes: int) -> Array:
    """Memory for a tensor; NumPy's own begins anywhere."""
    held = np.empty(nbytes + ALIGNMENT, np.uint8)
    begin = -held.ctypes.data % ALIGNMENT
    return held[begin : begin + nbytes].view(dtype).reshape(shape)


def _aligned_to(tensor: Tensor) -> Array:
    return _aligned(tensor.shape, tensor.dtype, tensor.nbytes)


def _copied(array: Array) -> Array:
    copy = _aligned(array.shape, array.dtype.name, array.nbytes)
    copy[...] = array
    return copy
