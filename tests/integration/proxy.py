"""A TCP line that can lose what it carries and break, for what no broker does when it is asked to."""

from __future__ import annotations

import socket
import threading
from types import TracebackType

from broker.session import Address


class Line:
    """Listens, and connects each client to `target`. A context.

    While `loses_up`, what clients send disappears, while `loses_down`, what they would receive; TCP is content.
    """

    def __init__(self, target: Address) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(port=self._listener.getsockname()[1])
        self.loses_up = self.loses_down = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, name="line", daemon=True)

    def __enter__(self) -> Line:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Break all connections; new ones are carried, and lose nothing."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
            for sock in sockets:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the peer was faster
            self.loses_up = self.loses_down = False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                broker = socket.create_connection((self._target.host, self._target.port))
            except OSError:
                return
            with self._lock:
                self._sockets += [client, broker]
            for source, sink, up in ((client, broker, True), (broker, client, False)):
                threading.Thread(target=self._carry, args=(source, sink, up), name="line", daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        try:
            while data := source.recv(65536):
                if not (self.loses_up if up else self.loses_down):
                    sink.sendall(data)
        except OSError:
            pass  # cut
        finally:
            for sock in (source, sink):
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the other direction was faster
                sock.close()
