"""The client's side of one connection: what it has to send, what has come, and when the peer is silent for too long.

Without a socket; `now` is seconds of a clock that only advances. One object for each connection, since nothing of it
outlives one: messages are repeated by whoever queued them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from broker.errors import BrokerError, ProtocolViolation
from broker.mqtt.fields import MOST_TWO_BYTES, MOST_VARINT, PROTOCOL_ERROR
from broker.mqtt.outgoing import OutgoingBuffers
from broker.mqtt.packets import (
    PINGREQ,
    Buffer,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsubscribe,
    publish_head,
)
from broker.mqtt.properties import Properties, Property
from broker.mqtt.reader import Place, Reader

SILENCE: Final = 2.0
"""A peer that has been silent for this many times the keep-alive is gone."""


class Silent(BrokerError):
    """The peer has neither sent nor taken anything for too long."""


class MqttClient:
    """The protocol of one connection. Raises ProtocolViolation for what the peer may not send at this point.

    Args:
        connect: the first packet.
        place: where large payloads go, see `reader`.

    """

    def __init__(self, connect: Connect, place: Place, now: float) -> None:
        self.outgoing = OutgoingBuffers()
        self.outgoing.put([connect.encode()])
        # a broker that has been told sends nothing above it
        self._reader = Reader(place, most_bytes=connect.properties.get(Property.MAXIMUM_PACKET_SIZE, MOST_VARINT))
        self._keepalive_s = float(connect.keepalive_s)
        self._is_connected = self._is_leaving = False
        self._last_id, self._last_mark = 0, MOST_TWO_BYTES
        self._awaited: dict[int, type[Puback | Suback]] = {}
        self._heard_at = self._sent_at = now
        self._pinged_at: float | None = None

    @property
    def is_idle(self) -> bool:
        """Nothing of an unfinished packet has come."""
        return self._reader.is_idle

    def publish(self, topic: str, payload: Sequence[Buffer], *, qos: int, retain: bool, properties: Properties) -> int:
        """Queue a message. Returns its packet id; with QoS 0 a number above those, reported by `sent`."""
        packet_id = self._next_id(Puback) if qos else self._next_mark()
        nbytes = sum(memoryview(part).nbytes for part in payload)
        head = publish_head(
            topic, nbytes, qos=qos, packet_id=packet_id if qos else 0, retain=retain, properties=properties
        )
        self.outgoing.put([head, *payload], mark=None if qos else packet_id)
        return packet_id

    def subscribe(self, filter_: str, *, qos: int, identifier: int | None) -> int:
        """Queue a SUBSCRIBE and return its packet id."""
        packet_id = self._next_id(Suback)
        properties = {} if identifier is None else {Property.SUBSCRIPTION_IDENTIFIER: identifier}
        self.outgoing.put([Subscribe(packet_id, filter_, qos, properties).encode()])
        return packet_id

    def unsubscribe(self, filters: Sequence[str]) -> int:
        """Queue an UNSUBSCRIBE and return its packet id."""
        packet_id = self._next_id(Suback)
        self.outgoing.put([Unsubscribe(packet_id, filters).encode()])
        return packet_id

    def acknowledge(self, packet_id: int) -> None:
        """Queue a PUBACK."""
        self.outgoing.put([Puback(packet_id).encode()])

    def disconnect(self, packet: Disconnect) -> None:
        """Queue the last packet."""
        self._is_leaving = True
        self.outgoing.put([packet.encode()])

    @property
    def is_finished(self) -> bool:
        """DISCONNECT has been taken."""
        return self._is_leaving and not self.outgoing

    def sent(self, nbytes: int, now: float) -> list[int]:
        """The socket took that much of `outgoing`. Returns the numbers of messages with QoS 0 that are gone."""
        self._sent_at = now
        if self._pinged_at is not None and nbytes:
            self._pinged_at = now  # it may have stood behind a tensor until now
        return self.outgoing.taken(nbytes)

    def buffer(self) -> memoryview:
        """Where the next bytes from the socket go."""
        return self._reader.buffer()

    def received(self, nbytes: int, now: float) -> list[Packet]:
        """Take what came."""
        self._heard_at = now
        packets = self._reader.received(nbytes)
        for packet in packets:
            self._check(packet)
        return packets

    def tick(self, now: float) -> None:
        """Keep the connection alive. Raises Silent."""
        if not self._keepalive_s:
            return
        if self._pinged_at is not None:
            if now - max(self._pinged_at, self._heard_at) >= self._keepalive_s * (SILENCE - 1):
                raise Silent(
                    f"no word for {now - self._heard_at:.1f} s, with a keep-alive of {self._keepalive_s:.0f} s"
                )
        elif self._is_connected and now - min(self._heard_at, self._sent_at) >= self._keepalive_s:
            self.outgoing.put([PINGREQ])
            self._pinged_at = now

    def _check(self, packet: Packet) -> None:
        """Hold a packet against what may come now."""
        if isinstance(packet, Connack):
            if self._is_connected:
                raise ProtocolViolation("a second CONNACK", code=PROTOCOL_ERROR)
            self._is_connected = not packet.code
            self._keepalive_s = float(packet.properties.get(Property.SERVER_KEEP_ALIVE, self._keepalive_s))
        elif isinstance(packet, Puback | Suback):
            if self._awaited.get(packet.packet_id) is not type(packet):
                raise ProtocolViolation(
                    f"an acknowledgement of packet {packet.packet_id}, which awaits none", code=PROTOCOL_ERROR
                )
            del self._awaited[packet.packet_id]
        elif isinstance(packet, Pingresp):
            self._pinged_at = None
        elif isinstance(packet, Publish) and not self._is_connected:
            raise ProtocolViolation("a message before CONNACK", code=PROTOCOL_ERROR)

    def _next_id(self, awaited: type[Puback | Suback]) -> int:
        if len(self._awaited) >= MOST_TWO_BYTES:
            raise RuntimeError(f"all {MOST_TWO_BYTES:_} packet ids await an answer")
        while True:
            self._last_id = self._last_id % MOST_TWO_BYTES + 1
            if self._last_id not in self._awaited:
                self._awaited[self._last_id] = awaited
                return self._last_id

    def _next_mark(self) -> int:
        self._last_mark += 1
        return self._last_mark
