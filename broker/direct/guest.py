"""One connection that somebody has opened to a node's port: its socket, its protocol, and who it is."""

from __future__ import annotations

import selectors
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.mqtt.receiver import MqttReceiver
from broker.sockets import PlainStream, Stream, TlsStream
from broker.tls import common_name_of

if TYPE_CHECKING:
    import socket

    from broker.mqtt.packets import Publish
    from broker.mqtt.reader import Placement


class Guest:
    """`name` is the node's once it is accepted, `common_name` of its certificate, where there is TLS.

    `place` is asked where a large payload of a guest goes.
    """

    def __init__(
        self,
        sock: socket.socket,
        origin: str,
        context: ssl.SSLContext | None,
        place: Callable[[Guest, Publish, memoryview], Placement | None],
        now: float,
        *,
        most_bytes: int,
        receive_maximum: int,
    ) -> None:
        self.origin, self.name, self.common_name = origin, "", ""
        self.receiver = MqttReceiver(
            lambda head, first: place(self, head, first), now, most_bytes=most_bytes, receive_maximum=receive_maximum
        )
        self._shaking: ssl.SSLSocket | None = None
        self.stream: Stream = PlainStream(sock)
        if context is not None:
            self._shaking = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            self.stream = TlsStream(self._shaking)
        self.events = selectors.EVENT_READ

    @property
    def is_shaking(self) -> bool:
        """The TLS handshake is not done."""
        return self._shaking is not None

    def shake(self) -> None:
        """Go on with the handshake. Raises OSError when it fails."""
        assert self._shaking is not None
        try:
            self._shaking.do_handshake()
        except ssl.SSLWantReadError:
            self.events = selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            self.events = selectors.EVENT_WRITE
        else:
            self.common_name, self._shaking = common_name_of(self._shaking), None
            self.events = selectors.EVENT_READ

    def write(self) -> None:
        """Send what waits; while some of it does, nothing more is read from the guest. Raises OSError."""
        outgoing = self.receiver.outgoing
        while outgoing and (nbytes := self.stream.send(outgoing.next())):
            outgoing.taken(nbytes)
        self.events = selectors.EVENT_WRITE if outgoing else selectors.EVENT_READ
