"""Connected sockets that take and give buffers without waiting, with TLS or without."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Protocol


def tune(sock: socket.socket, buffer_bytes: int) -> None:
    """Send at once, and ask for large buffers."""
    # without it Nagle's algorithm meets delayed ACK: 22 ms instead of 0.4 for a small QoS 1 message
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        with contextlib.suppress(OSError):  # the kernel may cap it; some refuse instead
            sock.setsockopt(socket.SOL_SOCKET, option, buffer_bytes)


class Stream(Protocol):
    """A connected socket that never waits. `send` and `recv_into` raise OSError when the connection is gone."""

    @property
    def sock(self) -> socket.socket:
        """The socket itself, to wait for and to close."""

    def send(self, buffers: Sequence[memoryview]) -> int:
        """Take the beginning of what the buffers hold. Returns the bytes, 0 when there is no room now."""

    def recv_into(self, buffer: memoryview) -> int | None:
        """Fill the beginning of a buffer. Returns the bytes, 0 at the end of the stream, None when there are none."""

    def pending(self) -> int:
        """Bytes that have come and that the file descriptor says nothing of."""


class PlainStream:
    """Without TLS."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock

    def send(self, buffers: Sequence[memoryview]) -> int:
        """See `Stream`."""
        try:
            return self.sock.sendmsg(buffers)
        except BlockingIOError:
            return 0

    def recv_into(self, buffer: memoryview) -> int | None:
        """See `Stream`."""
        try:
            return self.sock.recv_into(buffer)
        except BlockingIOError:
            return None

    def pending(self) -> int:
        """See `Stream`."""
        return 0


class TlsStream:
    """With TLS; the handshake is done."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        sock.setblocking(False)
        self.sock = sock

    def send(self, buffers: Sequence[memoryview]) -> int:
        """See `Stream`."""
        total = 0
        try:
            for buffer in buffers:
                begin = 0
                while begin < len(buffer):
                    nbytes = self.sock.send(buffer[begin:])  # one record, 16 KiB at most
                    begin, total = begin + nbytes, total + nbytes
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass  # it goes on with the same bytes, as OpenSSL demands
        return total

    def recv_into(self, buffer: memoryview) -> int | None:
        """See `Stream`."""
        total = 0
        try:
            while total < len(buffer):
                nbytes = self.sock.recv_into(buffer[total:])  # one record
                if not nbytes:
                    return total
                total += nbytes
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return total or None
        return total

    def pending(self) -> int:
        """See `Stream`."""
        return self.sock.pending()


def give_up_untaken(sock: socket.socket, seconds: float) -> None:
    """Have the kernel end the connection when its peer takes none of the bytes on their way for so long."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; elsewhere the keep-alive finds out, later
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))


def connect(
    host: str,
    port: int,
    context: ssl.SSLContext | None,
    *,
    timeout_s: float,
    buffer_bytes: int,
    untaken_s: float | None = None,
    check: Callable[[ssl.SSLSocket], None] = lambda sock: None,
) -> Stream:
    """A connection, encrypted if there is a context, whose other end passes the check. Waits; raises OSError,
    ValueError.
    """
    sock = socket.create_connection((host, port), timeout=timeout_s)
    try:
        tune(sock, buffer_bytes)
        if untaken_s is not None:
            give_up_untaken(sock, untaken_s)
        if context is None:
            return PlainStream(sock)
        wrapped = context.wrap_socket(sock, server_hostname=host)
        sock = wrapped
        check(wrapped)
        return TlsStream(wrapped)
    except BaseException:
        sock.close()
        raise
