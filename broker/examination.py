"""Looks once at one address of a broker: whether it answers, how it is encrypted and until when, and its limits."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass, replace
from typing import Any

from paho.mqtt.client import Client, ConnectFlags
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker.client import new_client, pack
from broker.errors import BrokerRefused, BrokerUnreachable
from broker.messages import Address, Limits
from broker.tls import explained

_WITHOUT_END = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Seen:
    """What a broker said at CONNECT. Sizes in bytes, None where it sets no limit or says nothing.

    Attributes:
        connect_s: of the TCP connection, which takes one round trip.
        tls: the version, None without encryption.
        certificate_ends: of the broker's certificate, seconds since 1970; None without encryption.
        max_packet_bytes, receive_maximum, session_expiry_s: limits, of messages in flight and of absent clients.
        retains, matches_wildcards: whether it keeps messages, and takes filters.
    """

    host: str
    port: int
    connect_s: float
    tls: str | None = None
    certificate_ends: float | None = None
    max_packet_bytes: int | None = None
    receive_maximum: int = 65_535
    session_expiry_s: int | None = None
    retains: bool = True
    matches_wildcards: bool = True


def examine(address: Address, client_id: str, *, timeout_s: float) -> Seen:
    """Connect to the address's first host and port, and leave. Raises BrokerUnreachable, BrokerRefused."""
    host, port = address.host, address.port
    began = time.monotonic()
    try:
        socket.create_connection((host, port), timeout=timeout_s).close()
    except OSError as error:
        raise BrokerUnreachable(host, port, str(error)) from error
    seen = Seen(host, port, time.monotonic() - began)
    limits = replace(Limits(), connect_timeout_s=timeout_s)
    client = new_client(address, client_id=client_id, manual_ack=False, limits=limits, will=None)
    answers: list[tuple[ReasonCode, Properties | None]] = []
    noted: list[str] = []

    def on_connect(
        _client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        answers.append((reason, properties))

    client.on_connect = on_connect
    client.on_log = lambda _client, _data, _level, text: noted.append(text) if "failed" in text else None
    try:
        client.connect(host, port, keepalive=60, clean_start=True, properties=pack(PacketTypes.CONNECT))
        seen = _with_tls(seen, client.socket())
        give_up = time.monotonic() + timeout_s
        while not answers and time.monotonic() < give_up and client.loop(timeout=0.1) == 0:
            pass
    except (OSError, ValueError) as error:
        raise BrokerUnreachable(host, port, explained(error)) from error
    finally:
        client.disconnect()
    if not answers:
        reason = explained(noted[-1]) if noted else "it does not answer a CONNECT of MQTT 5: does it speak MQTT?"
        raise BrokerUnreachable(host, port, reason)
    return _with_limits(seen, *answers[0])


def _with_tls(seen: Seen, connection: Any) -> Seen:
    if not isinstance(connection, ssl.SSLSocket):
        return seen
    ends = (connection.getpeercert() or {}).get("notAfter")
    seconds = ssl.cert_time_to_seconds(ends) if isinstance(ends, str) else None
    return replace(seen, tls=connection.version(), certificate_ends=seconds)


def _with_limits(seen: Seen, reason: ReasonCode, properties: Properties | None) -> Seen:
    if reason.is_failure:
        raise BrokerRefused("CONNECT", code=reason.value, reason=str(reason))
    expiry_s = getattr(properties, "SessionExpiryInterval", None)
    return replace(
        seen,
        max_packet_bytes=getattr(properties, "MaximumPacketSize", None),
        receive_maximum=getattr(properties, "ReceiveMaximum", seen.receive_maximum),
        session_expiry_s=None if expiry_s == _WITHOUT_END else expiry_s,
        retains=bool(getattr(properties, "RetainAvailable", 1)),
        matches_wildcards=bool(getattr(properties, "WildcardSubscriptionAvailable", 1)),
    )
