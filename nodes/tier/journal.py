"""A stream's journal: frames that a device took and did not answer, on disk, for the process after a `kill -9`.

Each record is a length, an XXH3 checksum and msgpack; reading ends at the first that is not whole, which is where a
crash stopped the writing. A record is written before its frame is computed, so that it survives the process; it is
fsynced in batches, so that a power cut may cost the last `SYNC_S` seconds. Of a frame that the broker keeps until it is
acknowledged only the delivery is noted, not the contents, and a little longer than until its answer: an acknowledgement
may be lost, and the broker then delivers the frame again.

Where the disk is full or read-only, frames are answered all the same: that they have no record is said once, and again
when they have. A record that was written in part is cut off, so that it hides none of the following.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable
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
"""A journal with more closed frames than this is written again without them."""
SYNC_S = 0.5
ANSWERED_KEPT = 256
"""Deliveries whose acknowledgement may have been lost: several times as many as the broker should have under way."""
_OWN = 0o600
"""Frames of a camera are nobody else's."""
_PIECE = 1 << 20
_DTYPE_CHARACTERS = 16
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
        self._unsynced = self._is_over = self._lacks = False
        self._file: int | None = None
        self._size = self._whole_bytes = 0
        self.position = 0
        self._unfinished = self._read()
        self._begin()
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
        if self._file is not None:
            os.close(self._file)

    def unfinished(self) -> list[Unfinished]:
        """Frames that stand here with their contents from an earlier process and are not answered, oldest first."""
        with self._lock:
            return [frame for frame in self._unfinished if frame.sequence in self._open]

    def entered(self, sequence: int, source: str, position: int, payload: bytes | Array) -> None:
        """Remember a frame before anything is computed of it. One for which there is no room is not remembered.

        `position` is where the source goes on after this frame.
        """
        position = 0 if self._is_over else position
        with self._lock:
            self.position = position
            self._remember(sequence, _record([_FRAME, sequence, source, position, _packed(payload)]))

    def delivered(self, sequence: int, delivery: Delivery) -> None:
        """Remember under which sequence a frame goes that the broker keeps until it is acknowledged."""
        session = f"{self._token}-{delivery.generation}" if delivery.generation else self._session
        record = _record([_DELIVERED, sequence, session, delivery.packet_id, delivery.fingerprint])
        with self._lock:
            self._remember(sequence, record)

    def earlier(self, delivery: Delivery) -> Earlier | None:
        """An earlier process's record of this delivery, None when it is new."""
        with self._lock:
            if delivery.generation or not delivery.is_repeat:
                return None
            sequence = self._before.pop((delivery.packet_id, delivery.fingerprint), None)
            return None if sequence is None else Earlier(sequence, sequence not in self._open)

    def answered(self, sequence: int) -> None:
        """The broker has the frame's result; more than once does no harm."""
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
                self._tidy()

    def source_ended(self) -> None:
        """The source gave all that it has: the next process begins again."""
        with self._lock:
            self.position, self._is_over = 0, True
            self._append(_record([_POSITION, 0]))

    def _run(self) -> None:
        while not self._ended.wait(SYNC_S):
            try:
                if self._unsynced and self._file is not None:
                    self._unsynced = False
                    with self._lock:
                        file = os.dup(self._file)
                    try:
                        os.fsync(file)
                    finally:
                        os.close(file)
            except OSError as error:
                self._note(error)

    def _remember(self, sequence: int, record: bytes) -> None:
        if self._size + len(record) > self._limit_bytes:
            self._tidy()
        if self._size + len(record) > self._limit_bytes:
            _log.warning("%s: no room for frame %d within %d bytes", self._path, sequence, self._limit_bytes)
            return
        if self._append(record):
            self._open[sequence] = record

    def _append(self, data: bytes) -> bool:
        """Write it whole, or not at all; on a full disk what is not needed any more makes room."""
        if self._written(data) is None:
            self._note(None)
            return True
        with contextlib.suppress(OSError):
            self._tidy_in_place()
        error = self._written(data)
        self._note(error)
        return error is None

    def _written(self, data: bytes) -> OSError | None:
        """None when it is; else why not, with nothing of it left in the file."""
        if self._file is None:
            return OSError("no file could be opened")
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            return error
        self._size += len(data)
        self._unsynced = True
        return None

    def _note(self, error: OSError | None) -> None:
        """Say once that frames are not kept, and once that they are again."""
        if error is not None and not self._lacks:
            _log.warning(
                "%s cannot be written: %s; frames are answered all the same, but those that are open are lost if this "
                "process is killed: free space, or give a folder that can be written with --state-dir",
                *(self._path, error.strerror or error),
            )
        elif error is None and self._lacks:
            _log.info("%s is written again", self._path)
        self._lacks = error is not None

    def _begin(self) -> None:
        """A tidy file of this process's; where there is no room for one, the old one, without what is damaged."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._rewrite()
        except OSError as error:
            try:
                self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, _OWN)
                os.ftruncate(self._file, self._whole_bytes)
                self._size = self._whole_bytes
            except OSError:
                self._note(error)

    def _tidy(self) -> None:
        try:
            self._rewrite()
        except OSError:
            with contextlib.suppress(OSError):
                self._tidy_in_place()

    def _tidy_in_place(self) -> None:
        """The same where there is no room for a second file: a crash meanwhile loses what stands behind it."""
        data = self._needed()
        if self._file is None or len(data) >= self._size:
            return
        file = os.open(self._path, os.O_WRONLY)  # another: what is opened to append always does
        try:
            for at in range(0, len(data), _PIECE):
                os.pwrite(file, data[at : at + _PIECE], at)
            os.ftruncate(file, len(data))
        finally:
            os.close(file)
        self._size = len(data)

    def _rewrite(self) -> None:
        """Only what is needed yet, in a new file that takes the old one's place when it is whole. Raises OSError."""
        new, data = self._path.with_suffix(".journal.new"), self._needed()
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWN), "wb") as file:
                os.fchmod(file.fileno(), _OWN)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise
        old, self._file = self._file, os.open(self._path, os.O_WRONLY | os.O_APPEND)
        if old is not None:
            os.close(old)
        self._size = len(data)

    def _needed(self) -> bytes:
        answered = [record + _record([_ANSWERED, sequence]) for sequence, record in self._answered.items()]
        # unanswered deliveries last: the session of the last one is what the next process goes by
        unanswered = [self._open[sequence] for sequence in sorted(self._open)]
        return b"".join([_record([_POSITION, self.position]), *answered, *unanswered])

    def _read(self) -> list[Unfinished]:
        earlier = _Earlier(self._open, self._answered)
        for body, raw in self._whole_records():
            try:
                earlier.take(body, raw)
            except (ValueError, TypeError, IndexError, KeyError, msgpack.UnpackException) as error:
                _log.warning("%s: left out a record that is none: %s: %s", self._path, type(error).__name__, error)
        self.position, self._session = earlier.position, earlier.session or self._session
        for sequence, (session, delivered) in earlier.deliveries.items():
            if session == self._session:
                self._before[delivered] = sequence
            else:  # of a session that the broker has forgotten since
                self._open.pop(sequence, None)
                self._answered.pop(sequence, None)
        while len(self._answered) > ANSWERED_KEPT:
            self._answered.popitem(last=False)
        return [earlier.frames[sequence] for sequence in sorted(earlier.frames)]

    def _whole_records(self) -> list[tuple[bytes, bytes]]:
        """The contents and bytes of all records up to the first that is damaged."""
        try:
            with self._path.open("rb") as file:
                data = file.read(2 * self._limit_bytes)
        except FileNotFoundError:
            return []
        except OSError as error:
            _log.warning("%s cannot be read: %s", self._path, error.strerror or error)
            return []
        found, at = [], 0
        while at + _HEAD.size <= len(data):
            length, checksum = _HEAD.unpack_from(data, at)
            end = at + _HEAD.size + length
            body = data[at + _HEAD.size : end]
            if len(body) < length or xxhash.xxh3_64_intdigest(body) != checksum:
                break
            found.append((body, data[at:end]))
            at = end
        self._whole_bytes = at
        if at < len(data):
            _log.warning("%s: left out the last %d bytes, which are damaged", self._path, len(data) - at)
        return found


class _Earlier:
    """The state that the records of an earlier process add up to; an invalid record changes nothing."""

    def __init__(self, entered: dict[int, bytes], answered: OrderedDict[int, bytes]) -> None:
        self.frames: dict[int, Unfinished] = {}
        self.deliveries: dict[int, tuple[str, tuple[int, int]]] = {}
        self.position = 0
        self.session = ""
        self._open, self._answered = entered, answered

    def take(self, body: bytes, raw: bytes) -> None:
        """One record more. Raises ValueError, TypeError, IndexError, KeyError, UnpackException."""
        kind, value, *rest = msgpack.unpackb(body)
        value = _number(value)
        _TAKES[kind](self, value, rest, raw)

    def _frame(self, sequence: int, rest: list[Any], raw: bytes) -> None:
        source, position, payload = rest
        self.frames[sequence] = Unfinished(sequence, str(source), _unpacked(payload))
        self.position = _number(position)
        self._open[sequence] = raw

    def _delivery(self, sequence: int, rest: list[Any], raw: bytes) -> None:
        session, packet, fingerprint = rest
        self.deliveries[sequence] = str(session), (_number(packet), _number(fingerprint))
        self.session = str(session)
        self._open[sequence] = raw

    def _close(self, sequence: int, rest: list[Any], raw: bytes) -> None:
        closed = self._open.pop(sequence, b"")
        if sequence in self.deliveries and closed:
            self._answered[sequence] = closed

    def _move(self, position: int, rest: list[Any], raw: bytes) -> None:
        self.position = position


_TAKES: dict[str, Callable[[_Earlier, int, list[Any], bytes], None]] = {
    _FRAME: _Earlier._frame,
    _DELIVERED: _Earlier._delivery,
    _ANSWERED: _Earlier._close,
    _POSITION: _Earlier._move,
}


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ValueError("a number that is none, or is not from 0 to 2^64")
    return value


def _record(value: list[Any]) -> bytes:
    body: bytes = msgpack.packb(value)
    return _HEAD.pack(len(body), xxhash.xxh3_64_intdigest(body)) + body


def _packed(payload: bytes | Array) -> Any:
    return payload if isinstance(payload, bytes) else [payload.dtype.str, list(payload.shape), payload.tobytes()]


def _unpacked(value: Any) -> bytes | Array:
    if isinstance(value, bytes):
        return value
    dtype, shape, data = value
    found: Array = np.frombuffer(data, np.dtype(str(dtype)[:_DTYPE_CHARACTERS])).reshape(shape)
    return found
