"""A log that never stops the process: lines wait for a thread of their own, and are dropped when nobody reads them.

A pipe whose reader is gone or slow would otherwise stop whoever logs, in the middle of a decision.
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import queue
import sys
import threading
import time

WAITING_LINES = 2_000
LEAVE_S = 1.0
"""How long a process that ends waits until its last lines are read."""
_STANDARD_ERROR = 2


class NonBlockingLog(logging.Handler):
    """Writes to standard error from a thread; what does not fit into its queue is counted and said later."""

    def __init__(self, file: int = _STANDARD_ERROR) -> None:
        super().__init__()
        self._file = file
        self._lines: queue.Queue[bytes] = queue.Queue(WAITING_LINES)
        self._dropped = 0
        self._is_idle = threading.Event()
        self._is_idle.set()
        threading.Thread(target=self._run, name="log", daemon=True).start()
        atexit.register(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line over."""
        line = self.format(record)
        if self._dropped:
            line = f"{line}\n({self._dropped:,} lines before this one were dropped: nobody read them)"
        try:
            self._is_idle.clear()
            self._lines.put_nowait(f"{line}\n".encode(errors="replace"))
            self._dropped = 0
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait a moment until all lines are written."""
        self._is_idle.wait(LEAVE_S)

    def _run(self) -> None:
        while True:
            view = memoryview(self._lines.get())
            try:
                while view:
                    view = view[os.write(self._file, view) :]
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:
                pass  # the reader is gone: there is nobody to tell
            if self._lines.empty():
                self._is_idle.set()


def open_standard_files() -> None:
    """Give a process that was started without them its standard files (`2>&-`): else the next that it opens is one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale without arrows shows a question mark, and no traceback
