"""A broker that does what a test tells it to: accepts, refuses, says its limits, keeps silent, cuts lines."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from queue import Empty, Queue

from tests.mqtt_bytes import CONNACK, PUBACK, SUBACK, framed, listed

PATIENCE_S = 30.0
CONNECT, PUBLISH, SUBSCRIBE, PINGREQ, GOODBYE = 1, 3, 8, 12, 14


@dataclass(frozen=True, slots=True)
class Packet:
    """A client's packet: the type, the first byte's flags, and all behind the remaining length."""

    kind: int
    flags: int
    body: bytes

    @property
    def packet_id(self) -> bytes:
        """Of a PUBLISH with QoS 1 or of a SUBSCRIBE."""
        if self.kind == SUBSCRIBE:
            return self.body[:2]
        topic = int.from_bytes(self.body[:2], "big")
        return self.body[2 + topic : 4 + topic]

    @property
    def payload(self) -> bytes:
        """Of a PUBLISH with QoS 1."""
        return self.body[self._properties[1] :]

    @property
    def properties(self) -> bytes:
        """Of a PUBLISH with QoS 1, without their length."""
        begin, end = self._properties
        return self.body[begin:end]

    @property
    def _properties(self) -> tuple[int, int]:
        """Where they begin and end; section 1.5.5 of the standard."""
        at = 4 + int.from_bytes(self.body[:2], "big")
        nbytes = shift = 0
        while True:
            byte, at = self.body[at], at + 1
            nbytes |= (byte & 0x7F) << shift
            if byte < 0x80:
                return at, at + nbytes
            shift += 7


class Client:
    """One accepted connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.settimeout(PATIENCE_S)

    def next(self) -> Packet | None:
        """The next packet, None at the end of the stream or of the test's patience."""
        try:
            first = self._exactly(1)[0]
            shift = nbytes = 0
            while True:
                byte = self._exactly(1)[0]
                nbytes |= (byte & 0x7F) << shift
                if byte < 0x80:
                    return Packet(first >> 4, first & 15, self._exactly(nbytes))
                shift += 7
        except (EOFError, OSError):
            return None

    def expect(self, kind: int) -> Packet:
        """The next packet, which is of this type."""
        packet = self.next()
        assert packet is not None, f"the client went away instead of sending {kind}"
        assert packet.kind == kind, packet
        return packet

    def accept(self, properties: bytes = b"", *, session_present: bool = False) -> bytes:
        """Answer CONNECT; returns its body."""
        hello = self.expect(CONNECT).body
        self.send(framed(CONNACK, bytes([session_present, 0]) + listed(properties)))
        return hello

    def acknowledge(self, packet: Packet) -> None:
        """PUBACK or SUBACK."""
        if packet.kind == SUBSCRIBE:
            self.send(framed(SUBACK, packet.packet_id + listed(b"") + b"\1"))
        else:
            self.send(framed(PUBACK, packet.packet_id))

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def read(self, nbytes: int) -> bytes:
        """So many bytes, whatever they are."""
        return self._exactly(nbytes)

    def cut(self) -> None:
        """The line breaks."""
        self._sock.close()

    def _exactly(self, nbytes: int) -> bytes:
        data = bytearray()
        while len(data) < nbytes:
            more = self._sock.recv(nbytes - len(data))
            if not more:
                raise EOFError
            data += more
        return bytes(data)


class ScriptedBroker:
    """Its `next` is the newest connection of a client whose id ends as given; others are served by `serve_simply`."""

    def __init__(self, suffix: str = ".bulk") -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._suffix = suffix.encode()
        self._clients: Queue[Client] = Queue()
        self._all: list[Client] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def next(self) -> Client:
        """The next connection."""
        try:
            return self._clients.get(timeout=PATIENCE_S)
        except Empty:
            raise AssertionError("nobody connected") from None

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # which ends accept(); close() alone does not
        self._listener.close()
        for client in self._all:
            client.cut()
        self._thread.join(PATIENCE_S)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._all.append(Client(sock))
            if self._suffix in sock.recv(4096, socket.MSG_PEEK):
                self._clients.put(self._all[-1])
            else:
                threading.Thread(target=serve_simply, args=(self._all[-1],), daemon=True).start()


def serve_simply(client: Client) -> None:
    """Accept and acknowledge everything."""
    try:
        client.accept()
        while (packet := client.next()) is not None:
            if packet.kind in (PUBLISH, SUBSCRIBE):
                client.acknowledge(packet)
            elif packet.kind == PINGREQ:
                client.send(b"\xd0\0")
    except (OSError, AssertionError):
        pass
