"""A TCP line that can break, stand still or lose what it carries, for what no broker does when it is asked to."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

from broker.session import Address


class Line:
    """Listens at `address`, and connects each client to `host`:`port`. A context.

    While `loses_up`, what clients send disappears, while `loses_down`, what they would receive; TCP is content.
    Threads and sockets are two for each connection.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(port=self._listener.getsockname()[1])
        self.loses_up = self.loses_down = False
        self._flows = threading.Event()
        self._flows.set()
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
        self.release()

    def cut(self) -> None:
        """Break all connections; new ones are carried, and lose nothing."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
            for sock in sockets:
                with contextlib.suppress(OSError):  # the peer was faster
                    sock.shutdown(socket.SHUT_RDWR)
            self.loses_up = self.loses_down = False

    def hold(self) -> None:
        """Carry nothing until `release`, as a cable does that is pulled: nobody is told, and TCP sends it all later."""
        self._flows.clear()

    def release(self) -> None:
        """Carry again, first of all what was held."""
        self._flows.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(self._target)
            except OSError:  # nobody is there at present
                client.close()
                continue
            with self._lock:
                self._sockets += [client, broker]
            for source, sink, up in ((client, broker, True), (broker, client, False)):
                threading.Thread(target=self._carry, args=(source, sink, up), name="line", daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        try:
            while data := source.recv(65536):
                self._flows.wait()
                if not (self.loses_up if up else self.loses_down):
                    sink.sendall(data)
        except OSError:
            pass  # cut
        finally:
            for sock in (source, sink):
                with contextlib.suppress(OSError):  # the other direction was faster
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
