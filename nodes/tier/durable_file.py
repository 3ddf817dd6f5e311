"""Files that survive a power cut whole: the old contents or the new ones, and the folder knows which."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

OWN = 0o600
"""Frames of a camera are nobody else's."""


def write_whole(path: Path, data: bytes, *, mode: int = OWN) -> int:
    """Write a new file and wait until the disk holds it; returns its bytes. Raises OSError."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return len(data)


def sync_folder(folder: Path) -> None:
    """Wait until the disk knows the folder's names, where the file system can: not all can."""
    with contextlib.suppress(OSError):
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


@contextlib.contextmanager
def removed_on_error(path: Path) -> Iterator[None]:
    """Leave no half of a new file behind when writing it raises OSError."""
    try:
        yield
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise
