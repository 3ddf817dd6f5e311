"""A package that comes in pieces: its file on the disk, as large as the whole and filled where a piece has come.

What was written before the process ended, or the power failed, is held against the manifest when the file is opened:
there is no list of pieces that could be wrong. The file is a package like others in the cache, and is locked while it
is in use (`kept`). Thread safe.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pipeline.errors import ModelError
from pipeline.lite.package import SUFFIX, Package
from pipeline.models import kept
from pipeline.pieces.manifest import PackageManifest

_PUNCH_HOLE: Final = 0x02 | 0x01
"""FALLOC_FL_PUNCH_HOLE with FALLOC_FL_KEEP_SIZE, of linux/falloc.h."""


class WrongPiece(ModelError):
    """Bytes that are not those which the manifest names."""


class PartialPackage:
    """The pieces of one package that are here. Raises ModelError where the file cannot be made."""

    def __init__(self, directory: Path, manifest: PackageManifest) -> None:
        self.manifest, self.digest = manifest, manifest.digest
        self.path = directory / f"{self.digest}{SUFFIX}"
        self._lock = threading.Lock()
        self._held: set[int] = set()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = _opened(self.path)
            try:
                if os.fstat(self._file).st_size != manifest.size:
                    os.ftruncate(self._file, 0)
                    os.ftruncate(self._file, manifest.size)
                with contextlib.suppress(OSError):
                    os.utime(self._file)
                self._held.update(i for i in self._written() if manifest.is_piece(i, self._bytes(i)))
            except BaseException:
                os.close(self._file)
                raise
        except OSError as error:
            raise ModelError(f"package {self.path} cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Let others remove the file."""
        os.close(self._file)

    @property
    def held(self) -> frozenset[int]:
        """Pieces that are here."""
        with self._lock:
            return frozenset(self._held)

    @property
    def is_whole(self) -> bool:
        """True when nothing is missing."""
        return len(self._held) == len(self.manifest.pieces)

    def missing(self, pieces: Iterable[int]) -> frozenset[int]:
        """Those of these pieces that are not here."""
        with self._lock:
            return frozenset(pieces) - self._held

    def put(self, piece: int, data: bytes) -> bool:
        """Take a piece; False for one that is here already. Raises WrongPiece, and ModelError for a full disk."""
        if not self.manifest.is_piece(piece, data):
            raise WrongPiece(self._why_wrong(piece, data))
        with self._lock:
            if piece in self._held:
                return False
        try:
            view, place = memoryview(data), piece * self.manifest.piece_bytes
            while view:
                written = os.pwrite(self._file, view, place)
                view, place = view[written:], place + written
        except OSError as error:
            raise ModelError(
                f"package {self.path}: a piece cannot be written: {error.strerror or error}; free some of the disk, or "
                f"lower {kept.LIMIT_VARIABLE}",
                file=self.path,
            ) from error
        with self._lock:
            self._held.add(piece)
        return True

    def _why_wrong(self, piece: int, data: bytes) -> str:
        pieces = self.manifest.pieces
        if not 0 <= piece < len(pieces):
            return f"index: there are {len(pieces)} pieces, not a piece {piece}"
        if len(data) != (expected := self.manifest.nbytes_of(piece)):
            return f"piece {piece}: {expected:,} bytes expected, not {len(data):,}"
        return f"piece {piece}: its SHA-256 is not the manifest's {pieces[piece][:16]}…"

    def read(self, piece: int) -> bytes | None:
        """A piece's bytes; None where it is not here, or not any more what it was: then it is missing from now on."""
        with self._lock:
            if piece not in self._held:
                return None
        data = self._bytes(piece)
        if self.manifest.is_piece(piece, data):
            return data
        with self._lock:
            self._held.discard(piece)
        return None

    def forget(self, pieces: Iterable[int]) -> int:
        """Give these pieces' room on the disk back, where the file system can; returns the bytes."""
        freed = 0
        for piece in pieces:
            with self._lock:
                if piece not in self._held:
                    continue
                nbytes = self.manifest.nbytes_of(piece)
                if not _punched(self._file, piece * self.manifest.piece_bytes, nbytes):
                    return freed
                self._held.discard(piece)
            freed += nbytes
        return freed

    def open(self, name: str) -> Package:
        """The package under this name; of its blocks those can be read whose pieces are here. Raises ModelError."""
        return Package(self.path, name=name, digest=self.manifest.model)

    def _bytes(self, piece: int) -> bytes:
        return os.pread(self._file, self.manifest.nbytes_of(piece), piece * self.manifest.piece_bytes)

    def _written(self) -> Iterator[int]:
        """Pieces that are not holes: anything was written there once."""
        size, at = self.manifest.piece_bytes, 0
        while at < self.manifest.size:
            try:
                begin = os.lseek(self._file, at, os.SEEK_DATA)
                end = os.lseek(self._file, begin, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole until the end
                    return
                raise
            yield from range(begin // size, min(-(-end // size), len(self.manifest.pieces)))
            at = -(-end // size) * size


def _opened(path: Path) -> int:
    """The file, locked for use; made again if it was removed before it was locked."""
    while True:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):  # a file system without locks: there it is never removed
            fcntl.flock(held, fcntl.LOCK_SH)
        if kept.is_at(path, held):
            return held
        os.close(held)


def _punched(file: int, offset: int, nbytes: int) -> bool:
    """Whether the file has a hole there now; Python has no call for it."""
    try:
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    except (OSError, AttributeError):
        return False
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(fallocate(file, _PUNCH_HOLE, offset, nbytes) == 0)


class WholeFile:
    """A package's file elsewhere, of which all pieces are here: what an operator publishes from."""

    def __init__(self, path: Path, manifest: PackageManifest) -> None:
        self.path, self.manifest = path, manifest
        self.held = manifest.whole

    def read(self, piece: int) -> bytes | None:
        """A piece's bytes; None where the file has changed since its manifest was made."""
        with self.path.open("rb") as file:
            data = os.pread(file.fileno(), self.manifest.nbytes_of(piece), piece * self.manifest.piece_bytes)
        if self.manifest.is_piece(piece, data):
            return data
        self.held -= {piece}
        return None
