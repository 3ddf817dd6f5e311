"""Making one paho client: MQTT 5, TLS, credentials, will, and a socket tuned for tensors. Does not connect it."""

from __future__ import annotations

from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker.messages import Address, Limits, Will
from broker.packets import expiry_s
from broker.sockets import tune
from broker.tls import context_of


def pack(packet_type: int, **values: object) -> Properties:
    """Properties of a packet, as paho has them; None values are left out."""
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]  # paho does not annotate its properties
    for name, value in values.items():
        if value is not None:
            setattr(properties, name, value)
    return properties


def new_client(address: Address, *, client_id: str, manual_ack: bool, limits: Limits, will: Will | None) -> Client:
    """A client for an external loop: whoever owns it calls reconnect(), loop_read(), loop_write() and loop_misc()."""
    client = Client(
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
