"""Making one paho client: MQTT 5, TLS, credentials, will, and a socket tuned for tensors. Does not connect it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker.errors import ProtocolViolation
from broker.messages import Address, Limits, Will
from broker.mqtt.packets import Publish
from broker.mqtt.parse import Frame, head_bytes, publish
from broker.packets import expiry_s
from broker.sockets import tune
from broker.tls import context_of

READ_AHEAD: Final = 16 << 10
"""Bytes: far fewer than what a line's throughput is measured by."""


def pack(packet_type: int, **values: object) -> Properties:
    """Properties of a packet, as paho has them; None values are left out."""
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]  # paho does not annotate its properties
    for name, value in values.items():
        if value is not None:
            setattr(properties, name, value)
    return properties


class ReadingAhead(Client):
    """A client that asks the kernel for many small packets at once, and reads messages by our own codec.

    paho asks for each packet's bytes in four pieces. Each call gives the interpreter's lock away, and where another
    thread computes, it comes back after `sys.getswitchinterval()` only: 40 packets a second were left. To take a
    message apart takes paho three times as long. `on_publish_packet` gets what has come, in place of `on_message`.
    """

    _ahead = b""
    _at = 0
    on_publish_packet: Callable[[Publish], None] = staticmethod(lambda _packet: None)

    @property
    def has_ahead(self) -> bool:
        """True while there are bytes that the socket does not have any more."""
        return self._at < len(self._ahead)

    def reconnect(self) -> MQTTErrorCode:
        """Connect; what was left of another connection is no part of this one."""
        self._ahead, self._at = b"", 0
        return super().reconnect()

    def _sock_recv(self, bufsize: int) -> bytes:
        if not self.has_ahead:
            if bufsize >= READ_AHEAD:
                return super()._sock_recv(bufsize)
            self._ahead, self._at = super()._sock_recv(READ_AHEAD), 0
        taken = self._ahead[self._at : self._at + bufsize]
        self._at += len(taken)
        return taken

    def _handle_publish(self) -> MQTTErrorCode:
        command, body = self._in_packet["command"], memoryview(self._in_packet["packet"])
        frame = Frame(command, 0, len(body))
        try:
            head_end = head_bytes(body, frame, len(body))
            if head_end > len(body):
                return MQTTErrorCode.MQTT_ERR_PROTOCOL
            packet = publish(body, frame, head_end)
        except ProtocolViolation:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        packet.payload = bytes(body[head_end:])
        self.on_publish_packet(packet)
        if not packet.qos or self._manual_ack:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        return self._send_puback(packet.packet_id)


def new_client(
    address: Address, *, client_id: str, manual_ack: bool, limits: Limits, will: Will | None
) -> ReadingAhead:
    """A client for an external loop: whoever owns it calls reconnect(), loop_read(), loop_write() and loop_misc()."""
    client = ReadingAhead(
        CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=manual_ack
    )
    # the outbox keeps the window; paho's cannot change while connected and is not kept after a reconnect
    client.max_inflight_messages_set(0)
    client.connect_timeout = limits.connect_timeout_s
    if address.username is not None:
        client.username_pw_set(address.username, address.password)
    if address.tls is not None:
        client.tls_set_context(context_of(address.tls))
    if will is not None:
        delay = pack(PacketTypes.WILLMESSAGE, WillDelayInterval=expiry_s(will.delay_s) if will.delay_s else None)
        client.will_set(will.topic, will.payload, qos=1, retain=True, properties=delay)

    def opened(_client: Client, _userdata: Any, sock: Any) -> None:
        tune(sock, limits.socket_buffer_bytes)

    client.on_socket_open = opened
    # with this set, paho leaves writing to the loop, instead of writing in whatever thread publishes
    client.on_socket_register_write = lambda *_: None
    return client
