"""The port of a node that others send tensors to. One thread serves all who connect, and none can hold it up.

Whoever connects is a stranger until its CONNECT is accepted: strangers are few, have little time, and are given no
memory. The other nodes have one connection each, of which the newest counts, and write on their own topics only.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from broker.bulk_line import incoming_of
from broker.complaints import Complaints
from broker.direct.guest import Guest
from broker.errors import ProtocolViolation, SettingsError
from broker.inbox import Inbox
from broker.messages import Limits
from broker.mqtt.client import Silent
from broker.mqtt.packets import Connect, Disconnect, Packet, Publish
from broker.mqtt.reader import Placement
from broker.mqtt.reasons import NO_SUBSCRIBERS, NOT_AUTHORIZED, TAKEN_OVER
from broker.sockets import tune
from broker.tls import Tls, explained, receiving_context_of
from broker.wake import enter_network_thread

_log = logging.getLogger(__name__)

MOST_STRANGERS: Final = 16
"""Above it the oldest goes."""
MOST_GUESTS: Final = 256
ACCEPTS_PER_S: Final = 20.0
"""On average; a TLS handshake takes a millisecond of a processor, and strangers may not have all of one."""
ACCEPTS_AT_ONCE: Final = 40
BACKLOG: Final = 64
_MOST_READ_BYTES: Final = 1 << 22
"""In one turn of a guest, so that others have theirs, too."""
_TICK_S: Final = 1.0

Admit = Callable[[Connect, str], str | None]
"""(CONNECT, common name of the certificate or "") -> the node that this is, None for nobody who may come."""


class DirectListener:
    """Listens from `start` to `stop`; what comes goes to the inbox, in the listener's thread.

    Args:
        inbox: has the routes of the bulk connection.
        admit: decides who may come.
        may_write: (node, topic) -> whether that node may write there.
        most_bytes: the largest packet.

    """

    def __init__(
        self,
        name: str,
        inbox: Inbox,
        *,
        tls: Tls | None,
        admit: Admit,
        may_write: Callable[[str, str], bool],
        limits: Limits,
        most_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inbox, self._admit, self._may_write = inbox, admit, may_write
        self._limits, self._most_bytes, self._clock = limits, most_bytes, clock
        self._context = None if tls is None else receiving_context_of(tls)
        self._guests: dict[socket.socket, Guest] = {}
        self._unread: deque[Guest] = deque()
        self._dismissed: deque[str] = deque()
        self._accepts, self._accepts_at = float(ACCEPTS_AT_ONCE), clock()
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        self._socket: socket.socket | None = None
        self._is_listening = self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.complaints = Complaints(_log)

    @property
    def received_bytes_total(self) -> int:
        """Bytes of all payloads received."""
        return self._inbox.received_bytes_total

    @property
    def guests(self) -> list[str]:
        """Nodes that are connected."""
        return sorted(guest.name for guest in tuple(self._guests.values()) if guest.name)

    def start(self, host: str | None, port: int) -> int:
        """Listen there: on all addresses without a host, on any free port for 0. Returns the port.

        Raises SettingsError when that cannot be.
        """
        both = host is None and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both or (host and ":" in host) else socket.AF_INET
        try:
            sock = socket.create_server((host or "", port), family=family, dualstack_ipv6=both, backlog=BACKLOG)
        except OSError as error:
            raise SettingsError(
                f"cannot listen for tensors on {host or 'any address'}, port {port}: {error}"
            ) from error
        sock.setblocking(False)
        self._socket = sock
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread.start()
        return int(sock.getsockname()[1])

    def dismiss(self, node: str) -> None:
        """End the connection of a node, if it has one. From any thread."""
        self._dismissed.append(node)
        self._wake()

    def stop(self) -> None:
        """End all connections and the thread."""
        self._is_stopping = True
        self._wake()
        if self._thread.ident is not None:
            self._thread.join()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    # The rest runs in the thread.

    def _run(self) -> None:
        enter_network_thread()
        while not self._is_stopping:
            try:
                self._turn()
            except Exception as error:
                self.complaints.add(type(error).__name__, "the direct way: unexpected", error=error)
                time.sleep(_TICK_S)  # should it come again at once
        for guest in [*self._guests.values()]:
            self._end(guest)
        self._selector.close()
        for sock in (self._socket, self._waker, self._woken):
            if sock is not None:
                sock.close()

    def _turn(self) -> None:
        self._listen_if_due()
        timeout_s = 0.0 if self._unread else _TICK_S if self._is_listening else 1 / ACCEPTS_PER_S
        for key, events in self._selector.select(timeout_s):
            if key.fileobj is self._socket:
                self._accept()
            elif key.fileobj is self._woken:
                self._woken.recv(4096)
            elif (guest := self._guests.get(key.data)) is not None:
                self._serve(guest, events)
        for _ in range(len(self._unread)):
            if (guest := self._unread.popleft()).stream.sock in self._guests:
                self._serve(guest, selectors.EVENT_READ)
        while self._dismissed:
            node = self._dismissed.popleft()
            for guest in [guest for guest in self._guests.values() if guest.name == node]:
                self._end(guest)
        self._tick(self._clock())

    def _listen_if_due(self) -> None:
        """Take no more strangers than their rate allows; the others wait in the kernel's queue, or are refused."""
        now = self._clock()
        self._accepts = min(self._accepts + (now - self._accepts_at) * ACCEPTS_PER_S, ACCEPTS_AT_ONCE)
        self._accepts_at = now
        if self._socket is not None and self._is_listening != (wanted := self._accepts >= 1):
            self._is_listening = wanted
            if wanted:
                self._selector.register(self._socket, selectors.EVENT_READ)
            else:
                self._selector.unregister(self._socket)

    def _accept(self) -> None:
        assert self._socket is not None
        try:
            sock, origin = self._socket.accept()
        except OSError:
            self._accepts = 0.0  # gone already; or no file descriptors are left, and there may be some later
            return
        self._accepts -= 1
        host = str(origin[0]).removeprefix("::ffff:")
        strangers = [guest for guest in self._guests.values() if not guest.name]
        if len(strangers) >= MOST_STRANGERS:
            self._end(strangers[0])
        if len(self._guests) >= MOST_GUESTS:
            sock.close()
            return
        try:
            tune(sock, self._limits.socket_buffer_bytes)
            sock.setblocking(False)
            guest = Guest(
                sock,
                host,
                self._context,
                self._place,
                self._clock(),
                most_bytes=self._most_bytes,
                receive_maximum=self._limits.receive_maximum,
            )
        except (OSError, ValueError) as error:
            self._complain(host, error)
            sock.close()
            return
        self._guests[guest.stream.sock] = guest
        self._selector.register(guest.stream.sock, guest.events, guest.stream.sock)

    def _serve(self, guest: Guest, events: int) -> None:
        watched = guest.events
        try:
            if guest.is_shaking:
                guest.shake()
            else:
                guest.write()
            if events & selectors.EVENT_READ and not guest.is_shaking and not guest.receiver.outgoing:
                self._read(guest)
        except ProtocolViolation as error:
            self._violated(guest, error)
        except OSError as error:
            self._end(guest, error)
        if guest.events != watched and guest.stream.sock in self._guests:
            self._selector.modify(guest.stream.sock, guest.events, guest.stream.sock)

    def _read(self, guest: Guest) -> None:
        total, receiver = 0, guest.receiver
        while total < _MOST_READ_BYTES:
            buffer = receiver.buffer()
            nbytes = guest.stream.recv_into(buffer)
            if nbytes is None:
                return
            if nbytes == 0:
                self._end(guest)
                return
            total += nbytes
            for packet in receiver.received(nbytes, self._clock()):
                self._on_packet(guest, packet)
                if guest.stream.sock not in self._guests:
                    return
            guest.write()
            if nbytes < len(buffer) or receiver.outgoing:
                return
        if guest.stream.pending():
            self._unread.append(guest)

    def _on_packet(self, guest: Guest, packet: Packet) -> None:
        if isinstance(packet, Publish):
            code = self._arrived(guest, packet)
            if packet.qos:
                guest.receiver.acknowledge(packet.packet_id, code)
        elif isinstance(packet, Connect):
            self._connected(guest, packet)
        elif isinstance(packet, Disconnect):
            self._end(guest)

    def _connected(self, guest: Guest, hello: Connect) -> None:
        name = self._admit(hello, guest.common_name)
        if name is None:
            guest.receiver.refuse(NOT_AUTHORIZED)
            guest.write()
            self._end(guest)
            return
        for other in [other for other in self._guests.values() if other.name == name]:
            other.receiver.disconnect(TAKEN_OVER)
            with contextlib.suppress(OSError):
                other.write()
            self._end(other)
        guest.name = name
        guest.receiver.accept()
        _log.info("%s sends tensors directly, from %s", name, guest.origin)

    def _arrived(self, guest: Guest, packet: Publish) -> int:
        """Hand a message over. Returns the reason code of its acknowledgement."""
        if not self._may_write(guest.name, packet.topic):
            self._inbox.refused.add(guest.name, f"{packet.topic}: refused: {guest.name} may not write there")
            return NOT_AUTHORIZED
        self._inbox.arrived(incoming_of(packet))
        return 0 if self._inbox.routes.handlers(packet.topic) else NO_SUBSCRIBERS

    def _place(self, guest: Guest, head: Publish, first: memoryview) -> Placement | None:
        if not self._may_write(guest.name, head.topic):
            return Placement(kept=0, into=None, token=None)
        return self._inbox.place(incoming_of(head), first)

    def _tick(self, now: float) -> None:
        for guest in [*self._guests.values()]:
            try:
                guest.receiver.tick(now)
            except Silent as error:
                self._end(guest, error)

    def _violated(self, guest: Guest, error: ProtocolViolation) -> None:
        self._complain(guest.name or guest.origin, error)
        with contextlib.suppress(OSError):
            guest.receiver.disconnect(error.code)
            guest.write()
        self._end(guest)

    def _complain(self, who: str, error: Exception) -> None:
        self.complaints.add(who, f"the direct way: {who}: {explained(error)}")

    def _end(self, guest: Guest, error: Exception | None = None) -> None:
        if self._guests.pop(guest.stream.sock, None) is None:
            return
        if guest.name:
            _log.info("%s sends tensors directly no more%s", guest.name, f": {explained(error)}" if error else "")
        elif error is not None:
            self._complain(guest.origin, error)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(guest.stream.sock)
        guest.stream.sock.close()
