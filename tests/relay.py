"""A TCP relay, as of a router that translates ports: it can swallow what comes, and cut lines in mid-message."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Relay:
    """Relays from `port` to `target` while it `passes`; after `swallows_after` more bytes it cuts all lines."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.target = 0
        self.passes = True
        self.swallows_after: int | None = None
        self._socks: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, for_good: bool = False) -> None:
        self.passes = not for_good
        for sock in self._socks:
            _end(sock)
        self._socks.clear()

    def close(self) -> None:
        self.cut(for_good=True)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._server.accept()
            except OSError:
                return
            there = self._reached() if self.passes else None
            if there is None:
                _end(here)
                continue
            self._socks += [here, there]
            for pair in ((here, there), (there, here)):
                threading.Thread(target=self._pass, args=(*pair, pair[0] is here), daemon=True).start()

    def _reached(self) -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            return None

    def _pass(self, source: socket.socket, sink: socket.socket, inwards: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if inwards and self.swallows_after is not None:
                    self.swallows_after -= len(data)
                    if self.swallows_after < 0:
                        self.cut(for_good=True)
                        return
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for sock in (source, sink):
                _end(sock)


def _end(sock: socket.socket) -> None:
    """Close it, and wake whoever waits for it in another thread."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
