"""The log of a mosquitto of ours: its newest lines in memory, all of them in a file that stays. Starts nothing."""

from __future__ import annotations

import io
import logging
import os
from collections import deque
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)
_LINES: Final = 200
_LONGEST_LINE: Final = 4_000
_FILE_BYTES: Final = 4 << 20
"""Of the file and of the older one beside it: a broker that runs for years must not fill its disk."""


class ServerLog:
    """Lines of one broker, over its restarts. A file that cannot be written costs the file, never the broker."""

    def __init__(self, path: Path | None) -> None:
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._file = _opened(path) if path is not None else None
        self.path = path if self._file is not None else None

    @property
    def tail(self) -> str:
        """The newest lines."""
        return "\n".join(self._lines)

    def begin(self) -> None:
        """A process starts: what an earlier one wrote is no part of its end."""
        self._lines.clear()

    def add(self, line: str) -> None:
        """Keep a line, without what a terminal would obey: client ids are in it as their owners chose them."""
        shown = "".join(char if char.isprintable() else "\ufffd" for char in line.rstrip()[:_LONGEST_LINE])
        self._lines.append(shown)
        _log.debug("mosquitto: %s", shown)
        if self._file is not None:
            self._file.emit(logging.makeLogRecord({"msg": shown}))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class _PrivateFile(RotatingFileHandler):
    """Readable for its owner only; a full disk or a removed folder loses lines and nothing else."""

    def _open(self) -> io.TextIOWrapper:
        number = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        return io.TextIOWrapper(io.FileIO(number, "a"), encoding="utf-8", errors="replace", write_through=True)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Go on."""


def _opened(path: Path) -> _PrivateFile | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _PrivateFile(path, maxBytes=_FILE_BYTES, backupCount=1)
    except OSError as error:
        _log.warning("the broker's log cannot be kept in %s: %s", path, error.strerror or error)
        return None
