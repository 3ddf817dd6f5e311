"""A stream's journal: frames that a device took and did not answer, on disk, for the process after a `kill -9`.

Each record is a length, an XXH3 checksum and msgpack; reading ends at the first that is not whole, which is where a
crash stopped the writing. A record is written before its frame is computed, so that it survives the process; it is
fsynced in batches, so that a power cut may cost the last `SYNC_S` seconds. Of a frame that the broker keeps until it is
acknowledged only the delivery is noted, not the contents, and a little longer than until its answer: an acknowledgement
may be lost, and the broker then delivers the frame again.

Where the disk is full or read-only, frames have no record: that is said once, and again when they have. A record that
was written in part is cut off, so that it hides none of the following.

SQLite in WAL mode takes 1.4 to 21 times as long, since contents go to its log and then to its pages, and needs room
on the disk to start: `benchmarks/journal.py` compares them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgpack

from broker.session import Delivery
from nodes.tier.durable_file import OWN, removed_on_error, sync_folder, write_whole
from nodes.tier.journal_records import (
    ANSWERED,
    DELIVERED,
    DELIVERED_HEAD,
    FRAME,
    HEAD,
    POSITION,
    Contents,
    Unfinished,
    encoded,
    packed,
    whole_records,
)
from pipeline.wire import Array

_log = logging.getLogger(__name__)

LIMIT_BYTES = 256 * 1024 * 1024
TIDY_BYTES = 4 * 1024 * 1024
"""A journal with more bytes of closed frames is rewritten without them, by its own thread; from twice as many on by the
caller, who is then held back.
"""
SYNC_S = 0.5
ANSWERED_KEPT = 256
"""Deliveries whose acknowledgement may have been lost: several times as many as the broker should have under way."""
_PIECE = 1 << 20


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
        self._aside = path.with_suffix(".journal.tidy")
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
        self._meanwhile: list[bytes] | None = None
        """Records of the time since a rewriting began, while one goes on."""
        self._begin()
        self._is_ended = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{path.stem}.journal", daemon=True)

    def __enter__(self) -> Journal:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_ended = True
        self._wake.set()
        self._thread.join(5.0)
        if self._file is not None:
            os.close(self._file)

    def unfinished(self) -> list[Unfinished]:
        """Frames that stand here with their contents from an earlier process and are not answered, oldest first."""
        with self._lock:
            return [frame for frame in self._unfinished if frame.sequence in self._open]

    def entered(self, sequence: int, source: str, position: int, payload: bytes | Array) -> bool:
        """Record a frame before anything is computed of it; False where there is no room for it.

        `position` is where the source goes on after this frame.
        """
        position = 0 if self._is_over else position
        with self._lock:
            self.position = position
            return self._remember(sequence, encoded([FRAME, sequence, source, position, packed(payload)]))

    def delivered(self, sequence: int, delivery: Delivery) -> bool:
        """Record the sequence of a frame that the broker keeps until it is acknowledged; False without room."""
        session = f"{self._token}-{delivery.generation}" if delivery.generation else self._session
        record = encoded([DELIVERED, sequence, session, delivery.packet_id, delivery.fingerprint])
        with self._lock:
            return self._remember(sequence, record)

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
            if record.startswith(DELIVERED_HEAD, HEAD.size):
                self._answered[sequence] = record
                while len(self._answered) > ANSWERED_KEPT:
                    self._answered.popitem(last=False)
            self._append(encoded([ANSWERED, sequence]))
            closed_bytes, most = self._closed_bytes(), min(TIDY_BYTES, self._limit_bytes)
            if closed_bytes > 2 * most:
                self._tidy()
            elif closed_bytes > most:
                self._wake.set()

    def source_ended(self) -> None:
        """The source gave all that it has: the next process begins again."""
        with self._lock:
            self.position, self._is_over = 0, True
            self._append(encoded([POSITION, 0]))

    def _closed_bytes(self) -> int:
        return self._size - sum(map(len, self._open.values()))

    def _run(self) -> None:
        while not self._is_ended:
            self._wake.wait(SYNC_S)
            self._wake.clear()
            if self._closed_bytes_now() > min(TIDY_BYTES, self._limit_bytes):
                with contextlib.suppress(OSError):
                    self._rewrite_aside()
            try:
                self._sync()
            except OSError as error:
                with self._lock:
                    self._note(error)

    def _closed_bytes_now(self) -> int:
        with self._lock:
            return self._closed_bytes()

    def _sync(self) -> None:
        """Have the disk hold what is written. Raises OSError."""
        with self._lock:
            if not self._unsynced or self._file is None:
                return
            self._unsynced = False
            file = os.dup(self._file)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def _remember(self, sequence: int, record: bytes) -> bool:
        if self._size + len(record) > self._limit_bytes:
            self._tidy()
        if self._size + len(record) > self._limit_bytes:
            _log.warning("%s: no room for frame %d within %d bytes", self._path, sequence, self._limit_bytes)
            return False
        if not self._append(record):
            return False
        self._open[sequence] = record
        return True

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
        if self._meanwhile is not None:
            self._meanwhile.append(data)
        return None

    def _note(self, error: OSError | None) -> None:
        """Say once that frames are not kept, and once that they are again."""
        if error is not None and not self._lacks:
            _log.warning(
                "%s cannot be written: %s; frames are answered all the same unless `unrecorded: refuse` is set, "
                "but those that are open are lost if this process is killed: free space, or give a folder that can be "
                "written with --state-dir",
                *(self._path, error.strerror or error),
            )
        elif error is None and self._lacks:
            _log.info("%s is written again", self._path)
        self._lacks = error is not None

    def _begin(self) -> None:
        """A tidy file of this process's; where there is no room for one, the old one, without what is damaged."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._aside.unlink(missing_ok=True)
            self._rewrite()
        except OSError as error:
            try:
                self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, OWN)
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
        self._meanwhile = None  # the other thread's is out of date
        new = self._path.with_suffix(".journal.new")
        with removed_on_error(new):
            self._take_place(new, write_whole(new, self._needed()))
        sync_folder(self._path.parent)

    def _rewrite_aside(self) -> None:
        """The same without holding up who writes records: those of the meantime are added last. Raises OSError."""
        with self._lock:
            data, self._meanwhile = self._needed(), []
        try:
            with removed_on_error(self._aside):
                size = write_whole(self._aside, data)
                with self._lock:
                    if self._meanwhile is None:
                        raise OSError("it was rewritten meanwhile")
                    with self._aside.open("ab") as file:
                        size += file.write(b"".join(self._meanwhile))
                    self._take_place(self._aside, size)
                    self._unsynced = True
        finally:
            with self._lock:
                self._meanwhile = None
        sync_folder(self._path.parent)

    def _take_place(self, new: Path, size: int) -> None:
        file = os.open(new, os.O_WRONLY | os.O_APPEND)
        try:
            new.replace(self._path)
        except OSError:
            os.close(file)
            raise
        old, self._file = self._file, file
        if old is not None:
            os.close(old)
        self._size = size

    def _needed(self) -> bytes:
        answered = [record + encoded([ANSWERED, sequence]) for sequence, record in self._answered.items()]
        # unanswered deliveries last: the session of the last one is what the next process goes by
        unanswered = [self._open[sequence] for sequence in sorted(self._open)]
        return b"".join([encoded([POSITION, self.position]), *answered, *unanswered])

    def _read(self) -> list[Unfinished]:
        earlier = Contents(self._open, self._answered)
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
        found, self._whole_bytes = whole_records(data)
        if self._whole_bytes < len(data):
            _log.warning("%s: left out the last %d bytes, which are damaged", self._path, len(data) - self._whole_bytes)
        return found
