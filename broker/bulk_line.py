"""The line that tensors take: our own MQTT client (`mqtt.client`) on a socket, which copies no payload.

paho joins each payload with its header before it sends it and slices what is left at each partial write; it puts a
received one together from pieces. That is most of a processor's time where tensors pass.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from broker.errors import ProtocolViolation
from broker.line import BROKEN, RECEIVE_MAXIMUM, Accepted, Incoming, LineUser, Opening
from broker.messages import Address, Limits
from broker.mqtt.client import MqttClient, Silent
from broker.mqtt.packets import Connack, Connect, Disconnect, Packet, Puback, Publish, Suback
from broker.mqtt.properties import Kind, Property
from broker.mqtt.reader import Placement
from broker.mqtt.reasons import TAKEN_OVER, name_of
from broker.outbox import Outgoing
from broker.packets import publish_properties
from broker.sockets import Stream, connect
from broker.tls import context_of, require_peer

if TYPE_CHECKING:
    import socket
    import ssl

_log = logging.getLogger(__name__)

_MOST_READ_BYTES: Final = 1 << 22
"""In one turn, so that what is to be sent has its turn, too."""

Place = Callable[[Incoming, memoryview], Placement | None]


class BulkLine:
    """See `line.Line`. `place` is asked where a large payload shall go, with its first bytes."""

    def __init__(
        self,
        address: Address,
        user: LineUser,
        *,
        client_id: str,
        manual_ack: bool,
        limits: Limits,
        place: Place,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address, self._user, self._limits, self._clock = address, user, limits, clock
        self._client_id, self._manual_ack, self._place = client_id, manual_ack, place
        self._context = None if address.tls is None else context_of(address.tls)
        self._stream: Stream | None = None
        self._client: MqttClient | None = None

    @property
    def sock(self) -> socket.socket | None:
        """See `Line`."""
        return None if self._stream is None else self._stream.sock

    @property
    def wants_write(self) -> bool:
        """See `Line`."""
        return self._client is not None and bool(self._client.outgoing)

    @property
    def has_unread(self) -> bool:
        """See `Line`."""
        return self._stream is not None and self._stream.pending() > 0

    @property
    def is_amid_packet(self) -> bool:
        """See `Line`."""
        return self._client is not None and not self._client.is_idle

    def open(self, opening: Opening) -> None:
        """See `Line`."""
        self.close()
        properties = {
            Property.SESSION_EXPIRY: opening.expiry_s or None,
            Property.RECEIVE_MAXIMUM: opening.receive_maximum,
            Property.MAXIMUM_PACKET_SIZE: opening.max_packet_bytes,
        }
        hello = Connect(
            client_id=self._client_id,
            clean_start=opening.clean_start,
            keepalive_s=self._limits.keepalive_s,
            username=self._address.username,
            password=self._address.password,
            properties={each: value for each, value in properties.items() if value is not None},
        )
        self._stream = connect(
            opening.host,
            opening.port,
            self._context,
            timeout_s=self._limits.connect_timeout_s,
            buffer_bytes=self._limits.socket_buffer_bytes,
            untaken_s=self._limits.untaken_s,
            check=self._check_peer,
        )
        self._client = MqttClient(hello, self._placed, self._clock())

    def close(self) -> None:
        """See `Line`."""
        stream, self._stream, self._client = self._stream, None, None
        if stream is not None:
            stream.sock.close()

    def read(self) -> int:
        """See `Line`."""
        total = 0
        while self._client is not None and self._stream is not None and total < _MOST_READ_BYTES:
            buffer = self._client.buffer()
            try:
                nbytes = self._stream.recv_into(buffer)
            except OSError as error:
                self._end(str(error) or BROKEN)
                return total
            if nbytes is None:
                break
            if nbytes == 0:
                self._end(BROKEN)
                return total
            total += nbytes
            self._take(self._client, nbytes)
            if nbytes < len(buffer):
                break
        self.write()  # acknowledgements
        return total

    def write(self) -> None:
        """See `Line`."""
        while self._client is not None and self._stream is not None and self._client.outgoing:
            try:
                nbytes = self._stream.send(self._client.outgoing.next())
            except OSError as error:
                self._end(str(error) or BROKEN)
                return
            if not nbytes:
                return
            for number in self._client.sent(nbytes, self._clock()):
                self._user.published(number, 0)
        if self._client is not None and self._client.is_finished:
            self._end("it was left")

    def tick(self) -> None:
        """See `Line`."""
        if self._client is None:
            return
        try:
            self._client.tick(self._clock())
        except Silent as error:
            self._end(str(error))
            return
        self.write()

    def publish(self, item: Outgoing, *, remaining_s: float | None, number: str | None = None) -> int:
        """See `Line`."""
        properties = publish_properties(
            remaining_s=remaining_s,
            response_topic=item.response_topic,
            correlation=item.correlation,
            number=number,
            traceparent=item.traceparent,
        )
        return self._connected().publish(
            item.topic, item.parts, qos=item.qos, retain=item.retain, properties=properties
        )

    def subscribe(self, filter_: str, *, qos: int, identifier: int | None) -> int | None:
        """See `Line`."""
        return self._connected().subscribe(filter_, qos=qos, identifier=identifier)

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """See `Line`."""
        self._connected().unsubscribe(filters)

    def acknowledge(self, mid: int) -> None:
        """See `Line`."""
        self._connected().acknowledge(mid)

    def disconnect(self, *, keep_session: bool) -> None:
        """See `Line`."""
        if self._client is not None:
            self._client.disconnect(Disconnect(properties={} if keep_session else {Property.SESSION_EXPIRY: 0}))

    def _check_peer(self, sock: ssl.SSLSocket) -> None:
        if self._address.tls is not None:
            require_peer(sock, self._address.tls)

    def _connected(self) -> MqttClient:
        if self._client is None:
            raise ValueError("there is no connection")
        return self._client

    def _take(self, client: MqttClient, nbytes: int) -> None:
        try:
            for packet in client.received(nbytes, self._clock()):
                if self._client is not client:
                    return  # what came before ended it
                self._on_packet(client, packet)
        except ProtocolViolation as error:
            _log.error("%s: %s", self._address, error)
            client.disconnect(Disconnect(error.code))
            self.write()
            self._end(str(error))

    def _on_packet(self, client: MqttClient, packet: Packet) -> None:
        if isinstance(packet, Publish):
            self._user.arrived(incoming_of(packet))
            if packet.qos and not self._manual_ack and self._client is client:
                client.acknowledge(packet.packet_id)
        elif isinstance(packet, Puback):
            self._user.published(packet.packet_id, packet.code)
        elif isinstance(packet, Suback) and packet.kind is Kind.SUBACK:
            self._user.subscribed(packet.packet_id, packet.codes)
        elif isinstance(packet, Connack):
            self._on_connack(packet)
        elif isinstance(packet, Disconnect):
            self._end(name_of(packet.code), is_taken_over=packet.code == TAKEN_OVER)

    def _on_connack(self, packet: Connack) -> None:
        if packet.code:
            self._user.refused(packet.code)
            self._end(name_of(packet.code))
            return
        self._user.accepted(
            Accepted(
                session_present=packet.session_present,
                receive_maximum=packet.properties.get(Property.RECEIVE_MAXIMUM, RECEIVE_MAXIMUM),
                max_packet_bytes=packet.properties.get(Property.MAXIMUM_PACKET_SIZE),
                has_identifiers=bool(packet.properties.get(Property.SUBSCRIPTION_IDENTIFIER_AVAILABLE, 1)),
            )
        )

    def _placed(self, head: Publish, first: memoryview) -> Placement | None:
        return self._place(incoming_of(head), first)

    def _end(self, reason: str, *, is_taken_over: bool = False) -> None:
        self.close()
        self._user.ended(reason, is_taken_over=is_taken_over)


def incoming_of(packet: Publish) -> Incoming:
    """A PUBLISH as an inbox takes it."""
    properties = packet.properties
    return Incoming(
        mid=packet.packet_id,
        topic=packet.topic,
        payload=packet.payload,
        nbytes=packet.nbytes,
        qos=packet.qos,
        retain=packet.retain,
        duplicate=packet.duplicate,
        response_topic=properties.get(Property.RESPONSE_TOPIC),
        correlation=properties.get(Property.CORRELATION_DATA),
        identifiers=properties.get(Property.SUBSCRIPTION_IDENTIFIER, ()),
        user_properties=properties.get(Property.USER_PROPERTY, ()),
        placed=packet.placed,
    )
