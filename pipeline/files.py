"""Files that somebody else may have put where they are: read whole, if they are ordinary files of a bearable size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """The file's bytes. Raises OSError, also for a pipe or device, which may never end, and for more than `most_bytes`.

    The size is looked at before anything is read, and again while it is read: a file may grow.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe nobody writes to would block here
    with os.fdopen(number, "rb") as file:
        held = os.fstat(number)
        if stat.S_ISDIR(held.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(held.st_mode):
            raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
        content = file.read(most_bytes + 1) if held.st_size <= most_bytes else b""
        if max(len(content), held.st_size) > most_bytes:
            nbytes = max(len(content), held.st_size)
            raise OSError(errno.EFBIG, f"it has {nbytes:,} bytes; at most {most_bytes:,} are read", str(path))
        return content
