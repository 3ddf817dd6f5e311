"""What a device had taken and not answered, on disk, for the process after a `kill -9`.

Each record is a length, an XXH3 checksum and msgpack; reading ends at the first that is not whole, which is where a
crash stopped the writing. A record is written before its frame is computed, so that it survives the process; it is
fsynced in batches, so that a power cut may cost the last `SYNC_S` seconds. Of a frame that the broker keeps until it is
acknowledged only the delivery is noted, not the contents, and a little longer than until its answer: an acknowledgement
may be lost, and the broker then delivers the frame again.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgpack
import numpy as np
import xxhash

from broker.session import Delivery
from pipeline.wire import Array

_log = logging.getLogger(__name__)

LIMIT_BYTES = 256 * 1024 * 1024
TIDY_BYTES = 4 * 1024 * 1024
"""A journal with more closed frames than this is written anew without them."""
SYNC_S = 0.5
ANSWERED_KEPT = 256
"""Deliveries whose acknowledgement may have been lost: several times as many as the broker should have under way."""
_HEAD = struct.Struct("<IQ")
_FRAME, _DELIVERED, _ANSWERED, _POSITION = "frame", "delivered", "answered", "position"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A frame that was taken and not answered."""

    sequence: int
    source: str
    payload: bytes | Array


@dataclass(frozen=True, slots=True)
class Earlier:
    """A frame that is delivered again, as an earlier process knew it."""

    sequence: int
    is_answered: bool


class Journal:
    """One stream's file; a context. Thread safe.

    `position` is where the stream's own source goes on; `token` is this process's.
    """

    def __init__(self, path: Path, token: str, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._path, self._token, self._limit_bytes = path, token, limit_bytes
        self._lock = threading.Lock()
        self._open: dict[int, bytes] = {}
        self._answered: OrderedDict[int, bytes] = OrderedDict()
        self._before: dict[tuple[int, int], int] = {}
        self._session = f"{token}-0"
        self._unsynced = self._is_over = False
        self.position = 0
        self._unfinished = self._read()
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
        os.close(self._file)

    def unfinished(self) -> list[Unfinished]:
        """Frames that stand here with their contents from an earlier process and are not answered, oldest first."""
        with self._lock:
            return [frame for frame in self._unfinished if frame.sequence in self._open]

    def entered(self, sequence: int, source: str, position: int, payload: bytes | Array) -> None:
        """Remember a frame before anything is computed of it. One beyond the limit is not remembered, with a warning.

        `position` is where the source goes on after this frame. Raises OSError.
        """
        position = 0 if self._is_over else position
        with self._lock:
            self.position = position
            self._remember(sequence, _record([_FRAME, sequence, source, position, _packed(payload)]))

    def delivered(self, sequence: int, delivery: Delivery) -> None:
        """Remember under which sequence a frame goes that the broker keeps until it is acknowledged. Raises OSError."""
        session = f"{self._token}-{delivery.generation}" if delivery.generation else self._session
        record = _record([_DELIVERED, sequence, session, delivery.packet_id, delivery.fingerprint])
        with self._lock:
            self._remember(sequence, record)

    def earlier(self, delivery: Delivery) -> Earlier | None:
        """What an earlier process knew of this delivery: None when it is new."""
        with self._lock:
            if delivery.generation or not delivery.is_repeat:
                return None
            sequence = self._before.pop((delivery.packet_id, delivery.fingerprint), None)
            return None if sequence is None else Earlier(sequence, sequence not in self._open)

    def answered(self, sequence: int) -> None:
        """The broker has the frame's result; more than once does no harm. Raises OSError."""
        with self._lock:
            record = self._open.pop(sequence, None)
            if record is None:
                return
            if msgpack.unpackb(memoryview(record)[_HEAD.size :])[0] == _DELIVERED:
                self._answered[sequence] = record
                while len(self._answered) > ANSWERED_KEPT:
                    self._answered.popitem(last=False)
            self._append(_record([_ANSWERED, sequence]))
            if self._size - sum(map(len, self._open.values())) > min(TIDY_BYTES, self._limit_bytes):
                self._rewrite()

    def source_ended(self) -> None:
        """The source gave all that it has: the next process begins anew."""
        with self._lock:
            self.position, self._is_over = 0, True
            self._append(_record([_POSITION, 0]))

    def _run(self) -> None:
        while not self._ended.wait(SYNC_S):
            try:
                if self._unsynced:
                    self._unsynced = False
                    with self._lock:
                        file = os.dup(self._file)
                    os.fsync(file)
                    os.close(file)
            except OSError:
                _log.exception("%s cannot be written", self._path)

    def _remember(self, sequence: int, record: bytes) -> None:
        if self._size + len(record) > self._limit_bytes:
            self._rewrite()
        if self._size + len(record) > self._limit_bytes:
            _log.warning("%s: no room for frame %d within %d bytes", self._path, sequence, self._limit_bytes)
            return
        self._open[sequence] = record
        self._append(record)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        self._size += len(data)
        self._unsynced = True

    def _rewrite(self) -> None:
        """Only what is needed yet, in a new file that takes the old one's place when it is whole."""
        new = self._path.with_suffix(".journal.new")
        answered = [record + _record([_ANSWERED, sequence]) for sequence, record in self._answered.items()]
        # unanswered deliveries last: the session of the last one is what the next process goes by
        unanswered = [self._open[sequence] for sequence in sorted(self._open)]
        data = b"".join([_record([_POSITION, self.position]), *answered, *unanswered])
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
        deliveries: dict[int, tuple[str, tuple[int, int]]] = {}
        for record, raw in _whole_records(self._path):
            kind, value = record[0], record[1]
            if kind == _FRAME:
                frames[value] = Unfinished(value, record[2], _unpacked(record[4]))
                self._open[value] = raw
                self.position = record[3]
            elif kind == _DELIVERED:
                self._session = record[2]
                deliveries[value] = (record[2], (record[3], record[4]))
                self._open[value] = raw
            elif kind == _ANSWERED:
                closed = self._open.pop(value, b"")
                if value in deliveries:
                    self._answered[value] = closed
            elif kind == _POSITION:
                self.position = value
        for sequence, (session, delivered) in deliveries.items():
            if session == self._session:
                self._before[delivered] = sequence
            else:  # of a session that the broker has forgotten since
                self._open.pop(sequence, None)
                self._answered.pop(sequence, None)
        while len(self._answered) > ANSWERED_KEPT:
            self._answered.popitem(last=False)
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
