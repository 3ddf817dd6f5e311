"""A line made of a paho client, for all that is small: the only place, besides `client`, that knows paho.

paho's own thread is not used: it sleeps up to a second when asked to stop, cannot jitter its back-off, and lets
publishers race with it. Here all of paho runs in the connection's thread.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import LogLevel
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker.bulk_line import incoming_of
from broker.client import new_client, pack
from broker.line import BROKEN, RECEIVE_MAXIMUM, Accepted, LineUser, Opening
from broker.messages import Address, Limits, Will
from broker.mqtt.packets import Publish
from broker.mqtt.properties import Property
from broker.mqtt.reasons import TAKEN_OVER
from broker.outbox import Outgoing
from broker.packets import publish_properties

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike  # exists for type checkers only
    from paho.mqtt.properties import Properties

_UNSPECIFIED: Final = 0x80


class PahoLine:
    """See `line.Line`."""

    def __init__(
        self,
        address: Address,
        user: LineUser,
        *,
        client_id: str,
        manual_ack: bool,
        limits: Limits,
        will: Will | None,
    ) -> None:
        self._limits, self._user = limits, user
        self._received_bytes = 0
        self._noted = ""
        self._client = new_client(address, client_id=client_id, manual_ack=manual_ack, limits=limits, will=will)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_publish_packet = self._on_message

    @property
    def sock(self) -> SocketLike | None:
        """See `Line`."""
        return self._client.socket()

    @property
    def wants_write(self) -> bool:
        """See `Line`."""
        return self._client.want_write()

    @property
    def has_unread(self) -> bool:
        """See `Line`."""
        sock = self._client.socket()
        return self._client.has_ahead or (isinstance(sock, ssl.SSLSocket) and sock.pending() > 0)

    @property
    def is_amid_packet(self) -> bool:
        """See `Line`."""
        # paho does not say otherwise whether it has the beginning of a packet
        return bool(self._client._in_packet["command"])

    def open(self, opening: Opening) -> None:
        """See `Line`."""
        self._noted = ""
        self._client.on_log = self._note
        self._client.connect_async(
            opening.host,
            opening.port,
            keepalive=self._limits.keepalive_s,
            clean_start=opening.clean_start,
            properties=pack(
                PacketTypes.CONNECT,
                SessionExpiryInterval=opening.expiry_s or None,
                ReceiveMaximum=opening.receive_maximum,
                MaximumPacketSize=opening.max_packet_bytes,
            ),
        )
        # the outbox resends what is unacknowledged; paho would do it as well, all at once
        self._client.drop_out_messages()
        self._client.reconnect()

    def close(self) -> None:
        """See `Line`."""
        if (sock := self._client.socket()) is not None:
            sock.close()  # paho forgets it when it connects again

    def read(self) -> int:
        """See `Line`."""
        before = self._received_bytes
        self._client.loop_read()
        return self._received_bytes - before

    def write(self) -> None:
        """See `Line`."""
        self._client.loop_write()

    def tick(self) -> None:
        """See `Line`."""
        self._client.loop_misc()

    def publish(self, item: Outgoing, *, remaining_s: float | None, number: str | None = None) -> int:
        """See `Line`."""
        properties = publish_properties(
            remaining_s=remaining_s,
            response_topic=item.response_topic,
            correlation=item.correlation,
            number=number,
            traceparent=item.traceparent,
        )
        info = self._client.publish(item.topic, b"".join(item.parts), item.qos, item.retain, _for_paho(properties))
        return info.mid

    def subscribe(self, filter_: str, *, qos: int, identifier: int | None) -> int | None:
        """See `Line`."""
        return self._client.subscribe(
            filter_,
            options=SubscribeOptions(qos=qos),
            properties=pack(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=identifier),
        )[1]

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """See `Line`."""
        self._client.unsubscribe(list(filters))

    def acknowledge(self, mid: int) -> None:
        """See `Line`."""
        self._client.ack(mid, 1)

    def disconnect(self, *, keep_session: bool) -> None:
        """See `Line`."""
        ends = None if keep_session else pack(PacketTypes.DISCONNECT, SessionExpiryInterval=0)
        self._client.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=0), ends)

    def _note(self, _client: Client, _userdata: Any, level: int, text: str) -> None:
        """Keep what paho says only in its log: why a broker ended the connection, which TLS has words for."""
        if level == LogLevel.MQTT_LOG_ERR:
            self._noted = text

    def _on_connect(
        self, _client: Client, _userdata: Any, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._user.refused(reason.value)
            return
        self._client.on_log = None  # it is told each message
        self._user.accepted(
            Accepted(
                session_present=flags.session_present,
                receive_maximum=getattr(properties, "ReceiveMaximum", RECEIVE_MAXIMUM),
                max_packet_bytes=getattr(properties, "MaximumPacketSize", None),
                has_identifiers=bool(getattr(properties, "SubscriptionIdentifierAvailable", 1)),
            )
        )

    def _on_disconnect(
        self, _client: Client, _userdata: Any, flags: DisconnectFlags, reason: ReasonCode, _properties: Any
    ) -> None:
        by_server = flags.is_disconnect_packet_from_server
        # paho calls an end of file "Unspecified error"
        said_why = by_server or reason.value != _UNSPECIFIED
        self._user.ended(
            str(reason) if said_why else self._noted or BROKEN, is_taken_over=by_server and reason.value == TAKEN_OVER
        )

    def _on_subscribe(
        self, _client: Client, _userdata: Any, mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        self._user.subscribed(mid, [reason.value for reason in reasons])

    def _on_publish(self, _client: Client, _userdata: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        self._user.published(mid, reason.value)

    def _on_message(self, packet: Publish) -> None:
        self._received_bytes += packet.nbytes
        self._user.arrived(incoming_of(packet))


_PAHO_NAMES: Final = {
    Property.MESSAGE_EXPIRY: "MessageExpiryInterval",
    Property.RESPONSE_TOPIC: "ResponseTopic",
    Property.CORRELATION_DATA: "CorrelationData",
    Property.USER_PROPERTY: "UserProperty",
}


def _for_paho(properties: dict[Property, Any]) -> Properties | None:
    """A PUBLISH's properties as paho wants them, None when it has none."""
    if not properties:
        return None
    return pack(PacketTypes.PUBLISH, **{_PAHO_NAMES[each]: value for each, value in properties.items()})
