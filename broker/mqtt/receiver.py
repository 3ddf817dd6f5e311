"""The receiving end of a direct way: what a node that is sent tensors without a broker has to say, and when to end.

Without a socket; `now` is seconds of a clock that only advances. Of a broker it has the least that `client` needs:
CONNECT, PUBLISH and PINGREQ come, and are answered. Anybody may have opened the connection, so what comes before it is
accepted is small and soon, and what comes then keeps coming.
"""

from __future__ import annotations

from typing import Final

from broker.errors import ProtocolViolation
from broker.mqtt.client import Silent
from broker.mqtt.fields import PROTOCOL_ERROR
from broker.mqtt.outgoing import OutgoingBuffers
from broker.mqtt.packets import PINGRESP, Connack, Connect, Disconnect, Packet, Pingreq, Puback
from broker.mqtt.parse import FOR_DIRECT_ENDS
from broker.mqtt.properties import Property
from broker.mqtt.reader import Place, Reader

MOST_HELLO_BYTES: Final = 4_096
"""Of a CONNECT; less than a payload for which a place is asked, so that strangers are never given one."""
HELLO_S: Final = 5.0
"""A connection that is not accepted by then, a TLS handshake counted in, is closed."""
MOST_KEEPALIVE_S: Final = 600
SILENCE: Final = 1.5
"""A client that has been silent for this many times its keep-alive is gone (section 3.1.2.10 of the standard)."""
SLOW_S, SLOW_BYTES = 10.0, 10_240
"""In so many seconds of an unfinished packet so many bytes have to come."""


class MqttReceiver:
    """The protocol of one connection. Raises ProtocolViolation for what the peer may not send at this point.

    Args:
        place: where large payloads go, see `reader`.
        most_bytes: the largest packet, once the peer is accepted.
        receive_maximum: messages that the peer may send before the first of them is acknowledged.

    """

    def __init__(self, place: Place, now: float, *, most_bytes: int, receive_maximum: int) -> None:
        self.outgoing = OutgoingBuffers()
        self._reader = Reader(place, most_bytes=MOST_HELLO_BYTES, kinds=FOR_DIRECT_ENDS)
        self._most_bytes, self._receive_maximum = most_bytes, receive_maximum
        self._hello: Connect | None = None
        self._is_accepted = False
        self._opened_at = self._heard_at = now
        self._slow_since, self._slow_bytes = now, 0

    @property
    def is_accepted(self) -> bool:
        """The peer may send messages."""
        return self._is_accepted

    def accept(self) -> None:
        """Answer CONNECT."""
        self._is_accepted = True
        self._reader.most_bytes = self._most_bytes
        said = {
            Property.RECEIVE_MAXIMUM: self._receive_maximum,
            Property.MAXIMUM_QOS: 1,
            Property.RETAIN_AVAILABLE: 0,
            Property.MAXIMUM_PACKET_SIZE: self._most_bytes,
            Property.SUBSCRIPTION_IDENTIFIER_AVAILABLE: 0,
        }
        self.outgoing.put([Connack(False, 0, said).encode()])

    def refuse(self, code: int) -> None:
        """Answer CONNECT; the connection is to be closed then."""
        self.outgoing.put([Connack(False, code).encode()])

    def acknowledge(self, packet_id: int, code: int = 0) -> None:
        """Queue a PUBACK."""
        self.outgoing.put([Puback(packet_id, code).encode()])

    def disconnect(self, code: int) -> None:
        """Queue the last packet."""
        self.outgoing.put([Disconnect(code).encode()])

    def buffer(self) -> memoryview:
        """Where the next bytes from the socket go."""
        return self._reader.buffer()

    def received(self, nbytes: int, now: float) -> list[Packet]:
        """Take what came; PINGREQ is answered at once."""
        self._heard_at = now
        packets = self._reader.received(nbytes)
        if packets or self._reader.is_idle:
            self._slow_since, self._slow_bytes = now, 0
        self._slow_bytes += nbytes
        for packet in packets:
            self._check(packet)
        return packets

    def tick(self, now: float) -> None:
        """Raise Silent for a peer that has been silent, or slow, for too long."""
        if not self._is_accepted:
            if now - self._opened_at >= HELLO_S:
                raise Silent(f"no CONNECT that was accepted within {HELLO_S:.0f} s")
            return
        keepalive_s = self._hello.keepalive_s if self._hello is not None else 0
        if now - self._heard_at >= SILENCE * keepalive_s:
            raise Silent(f"no word for {now - self._heard_at:.1f} s, with a keep-alive of {keepalive_s} s")
        if not self._reader.is_idle and now - self._slow_since >= SLOW_S:
            if self._slow_bytes < SLOW_BYTES:
                raise Silent(f"{self._slow_bytes} bytes of a packet within {SLOW_S:.0f} s")
            self._slow_since, self._slow_bytes = now, 0

    def _check(self, packet: Packet) -> None:
        """Hold a packet against what may come now."""
        if isinstance(packet, Connect):
            if self._hello is not None:
                raise ProtocolViolation("a second CONNECT", code=PROTOCOL_ERROR)
            if not 0 < packet.keepalive_s <= MOST_KEEPALIVE_S:
                raise ProtocolViolation(
                    f"a keep-alive of {packet.keepalive_s} s, where 1 to {MOST_KEEPALIVE_S} s are taken",
                    code=PROTOCOL_ERROR,
                )
            self._hello = packet
        elif not self._is_accepted:
            raise ProtocolViolation(f"{type(packet).__name__} from a client that was not accepted", code=PROTOCOL_ERROR)
        elif isinstance(packet, Pingreq):
            self.outgoing.put([PINGRESP])
