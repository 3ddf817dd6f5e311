"""A way to wake a thread that sleeps in poll(), and to give it work."""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable


class Wake:
    """A socket pair and a queue of calls. `post` and `nudge` from any thread; the rest from the sleeping one."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._calls: deque[Callable[[], None]] = deque()

    def post(self, call: Callable[[], None]) -> None:
        """Have the sleeping thread make a call."""
        self._calls.append(call)
        self.nudge()

    def nudge(self) -> None:
        """Wake the sleeping thread."""
        # a full pipe is as good a wake-up as one byte more; a closed one has nobody left to wake
        with contextlib.suppress(BlockingIOError, OSError):
            self._writer.send(b"\0")

    def run_posted(self) -> None:
        """Make the calls that were posted. What one raises is raised here, and the rest is made the next time."""
        while self._calls:
            self._calls.popleft()()

    def sleep(self, timeout_s: float, *, other_fd: int | None = None, write: bool = False) -> bool:
        """Sleep until nudged, until `other_fd` can be read (or written, if asked), or for `timeout_s`.

        Returns whether `other_fd` can be read, or has failed, which reading it then shows.
        """
        poller = select.poll()  # select() cannot watch file descriptors above 1023, which a big process has
        poller.register(self._reader, select.POLLIN)
        if other_fd is not None:
            poller.register(other_fd, select.POLLIN | (select.POLLOUT if write else 0))
        readable = False
        for fd, event in poller.poll(timeout_s * 1000):
            if fd == other_fd:
                readable = event & ~select.POLLOUT != 0
            else:
                with contextlib.suppress(BlockingIOError):
                    self._reader.recv(4096)
        return readable

    def close(self) -> None:
        """Give the sockets back."""
        self._reader.close()
        self._writer.close()
