"""A way to wake a thread that sleeps in poll(), and to give it work."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections import deque
from collections.abc import Callable

_here = threading.local()


def enter_network_thread() -> None:
    """The caller's thread is some connection's from now on."""
    _here.network = True


def in_network_thread() -> bool:
    """True in any connection's thread, where nothing may wait: it would wait for itself."""
    return getattr(_here, "network", False)


class Wake:
    """A socket pair and a queue of calls. `post` and `nudge` from any thread; the rest from the sleeping one."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._calls: deque[Callable[[], None]] = deque()
        self._is_nudged = False
        self._poller = select.poll()  # select() cannot watch file descriptors above 1023, which a big process has
        self._poller.register(self._reader, select.POLLIN)
        self._watched: tuple[int, int] | None = None

    def post(self, call: Callable[[], None]) -> None:
        """Have the sleeping thread make a call."""
        self._calls.append(call)
        self.nudge()

    def nudge(self) -> None:
        """Wake the sleeping thread."""
        if self._is_nudged:
            return  # one byte is enough; it is in the pipe until the thread looks for its work
        self._is_nudged = True
        # a closed pipe has nobody left to wake
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
        self._watch(None if other_fd is None else (other_fd, select.POLLIN | (select.POLLOUT if write else 0)))
        readable = False
        for fd, event in self._poller.poll(timeout_s * 1000):
            if fd == other_fd:
                readable = event & ~select.POLLOUT != 0
            else:
                with contextlib.suppress(BlockingIOError):
                    self._reader.recv(4096)
                self._is_nudged = False  # in this order: who nudges now has queued its work before
        return readable

    def _watch(self, wanted: tuple[int, int] | None) -> None:
        if wanted == self._watched:
            return
        if self._watched is not None:
            self._poller.unregister(self._watched[0])
        if wanted is not None:
            self._poller.register(*wanted)
        self._watched = wanted

    def close(self) -> None:
        """Give the sockets back."""
        self._reader.close()
        self._writer.close()
