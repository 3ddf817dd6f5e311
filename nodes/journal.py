"""What a device had taken from its own source and not answered, on disk, for the process after a `kill -9`.

Each record is a length, an XXH3 checksum and msgpack; reading ends at the first that is not whole, which is where a
crash stopped the writing. A record is written before its frame is computed, so that it survives the process; it is
fsynced in batches, so that a power cut may cost the last `SYNC_S` seconds. A frame is closed here only after the broker
has taken its result: killed in between, the device answers it again, under the same sequence.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgpack
import numpy as np
import xxhash

from pipeline.wire import Array

_log = logging.getLogger(__name__)

LIMIT_BYTES = 256 * 1024 * 1024
TIDY_BYTES = 4 * 1024 * 1024
"""A journal with more closed frames than this is written anew without them."""
SYNC_S = 0.5
POLL_S = 0.005
_HEAD = struct.Struct("<IQ")
_FRAME, _CLOSED, _POSITION = "frame", "closed", "position"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A frame that was taken and not answered."""

    sequence: int
    source: str
    payload: bytes | Array


class Journal:
    """One stream's file. `delivered` says whether the broker has everything that was published; a context.

    `unfinished` are the frames of the process before, oldest first; `position` is where its source goes on.
    """

    def __init__(self, path: Path, delivered: Callable[[], bool], *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._path, self._delivered, self._limit_bytes = path, delivered, limit_bytes
        self._lock = threading.Lock()
        self._open: dict[int, bytes] = {}
        self._answered: list[int] = []
        self._unsynced = self._is_over = False
        self.position = 0
        self.unfinished = self._read()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rewrite()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{path.stem}.journal", daemon=True)

    def __enter__(self) -> Journal:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(5.0)
        self._settle()
        os.close(self._file)

    def entered(self, sequence: int, source: str, position: int, payload: bytes | Array) -> None:
        """Remember a frame before anything is computed of it. One beyond the limit is not remembered, with a warning.

        `position` is where the source goes on after this frame. Raises OSError.
        """
        position = 0 if self._is_over else position
        record = _record([_FRAME, sequence, source, position, _packed(payload)])
        with self._lock:
            self.position = position
            if self._size + len(record) > self._limit_bytes:
                self._rewrite()
            if self._size + len(record) > self._limit_bytes:
                _log.warning("%s: no room for frame %d within %d bytes", self._path, sequence, self._limit_bytes)
                return
            self._open[sequence] = record
            self._append(record)

    def answered(self, sequence: int) -> None:
        """The frame's result is published; it is closed as soon as the broker has it."""
        with self._lock:
            self._answered.append(sequence)

    def source_ended(self) -> None:
        """The source gave all that it has: the next process begins anew."""
        with self._lock:
            self.position, self._is_over = 0, True
            self._append(_record([_POSITION, 0]))

    def _run(self) -> None:
        synced_at = 0.0
        while not self._ended.wait(POLL_S):
            try:
                self._settle()
                if self._unsynced and time.monotonic() - synced_at > SYNC_S:
                    self._unsynced, synced_at = False, time.monotonic()
                    os.fsync(self._file)
            except OSError:
                _log.exception("%s cannot be written", self._path)

    def _settle(self) -> None:
        with self._lock:
            answered = list(self._answered)
        if not answered or not self._delivered():
            return
        with self._lock:
            del self._answered[: len(answered)]
            self._append(b"".join(_record([_CLOSED, sequence]) for sequence in answered))
            for sequence in answered:
                self._open.pop(sequence, None)
            if self._size - sum(map(len, self._open.values())) > min(TIDY_BYTES, self._limit_bytes):
                self._rewrite()

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        self._size += len(data)
        self._unsynced = True

    def _rewrite(self) -> None:
        """Only what is open, in a new file that takes the old one's place when it is whole."""
        new = self._path.with_suffix(".journal.new")
        data = _record([_POSITION, self.position]) + b"".join(self._open[sequence] for sequence in sorted(self._open))
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        old, self._file = getattr(self, "_file", None), os.open(self._path, os.O_WRONLY | os.O_APPEND)
        if old is not None:
            os.close(old)
        self._size = len(data)

    def _read(self) -> list[Unfinished]:
        frames: dict[int, Unfinished] = {}
        for record, raw in _whole_records(self._path):
            kind, value = record[0], record[1]
            if kind == _FRAME:
                frames[value] = Unfinished(value, record[2], _unpacked(record[4]))
                self._open[value] = raw
                self.position = record[3]
            elif kind == _CLOSED:
                frames.pop(value, None)
                self._open.pop(value, None)
            elif kind == _POSITION:
                self.position = value
        return [frames[sequence] for sequence in sorted(frames)]


def _record(value: list[Any]) -> bytes:
    body: bytes = msgpack.packb(value)
    return _HEAD.pack(len(body), xxhash.xxh3_64_intdigest(body)) + body


def _whole_records(path: Path) -> list[tuple[list[Any], bytes]]:
    """The values and bytes of all records up to the first that is damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    found, at = [], 0
    while at + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        body = data[at + _HEAD.size : end]
        if len(body) < length or xxhash.xxh3_64_intdigest(body) != checksum:
            break
        found.append((msgpack.unpackb(body), data[at:end]))
        at = end
    if at < len(data):
        _log.warning("%s: left out the last %d bytes, which are damaged", path, len(data) - at)
    return found


def _packed(payload: bytes | Array) -> Any:
    return payload if isinstance(payload, bytes) else [payload.dtype.str, list(payload.shape), payload.tobytes()]


def _unpacked(value: Any) -> bytes | Array:
    if isinstance(value, bytes):
        return value
    dtype, shape, data = value
    return np.frombuffer(data, np.dtype(dtype)).reshape(shape)
