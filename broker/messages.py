"""The values a session takes and gives: an address, a will, limits, a received message. No behaviour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from broker.mqtt.packets import Buffer
from broker.tls import Tls
from broker.topics import LARGEST_PACKET

MIB: Final = 1024 * 1024

Payload: TypeAlias = bytes | tuple[Buffer, ...]
"""What is published. Buffers are sent as they are, one after the other, and must not change until it is settled."""


def nbytes_of(payload: Payload) -> int:
    """Bytes of a payload, whatever it is made of."""
    return len(payload) if isinstance(payload, bytes) else sum(memoryview(part).nbytes for part in payload)


class Channel(Enum):
    """The connections of one node. A tensor in front of a PINGRESP or of a plan would be a fault, so they are apart."""

    CONTROL = "control"
    BULK = "bulk"
    FRAMES = "frames"
    RESULTS = "results"


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """The delivery of a message with QoS 1. Its packet id is valid only within one session of the broker.

    Attributes:
        generation: counts the broker's sessions that this process has seen; 0 is one that an earlier process began.
        fingerprint: of topic and payload.
        is_repeat: sent before, to this process or an earlier one.
    """

    packet_id: int
    generation: int
    fingerprint: int
    is_repeat: bool


@dataclass(frozen=True, slots=True)
class Message:
    """One received message.

    Attributes:
        retain: it was kept by the broker and is sent because of the subscription.
        ack: on FRAMES, acknowledges the message to the broker; may be called from any thread, once or
            more. Until then the broker keeps it. Elsewhere it does nothing.
        payload: all of it, or its first bytes if a handler had the rest `placed`, see `inbox.Placing`.
        identifiers: of the subscriptions that this copy came by, as far as the broker says so.
        delivery: on FRAMES, distinguishes a message that an earlier process of this node had from a new one.
        traceparent: the publisher's trace, see `broker.trace_context`.
        nbytes_refused: of a payload that is above its topic's limit, and is not here; 0 for all others. On FRAMES only.
    """

    topic: str
    payload: bytes
    retain: bool
    channel: Channel
    response_topic: str | None
    correlation: bytes | None
    ack: Callable[[], None]
    delivery: Delivery | None = None
    placed: object = None
    identifiers: Sequence[int] = ()
    traceparent: str | None = None
    nbytes_refused: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is and how to enter.

    Attributes:
        alternatives: other ways to the same broker, as host and port, tried in turn when the first does not answer.
    """

    host: str = "127.0.0.1"
    port: int = 1883
    username: str | None = None
    password: str | None = None
    tls: Tls | None = None
    alternatives: tuple[tuple[str, int], ...] = ()

    @property
    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """All hosts and ports, the preferred one first."""
        return ((self.host, self.port), *self.alternatives)

    def __str__(self) -> str:
        return " or ".join(f"{host}:{port}" for host, port in self.endpoints)

    def __repr__(self) -> str:
        # a dataclass would print the password into logs and tracebacks
        return f"Address({self.host!r}, {self.port}, username={self.username!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """The message that the broker publishes (QoS 1, retained) `delay_s` after a node was lost without DISCONNECT."""

    topic: str
    payload: bytes
    delay_s: float = 2.0


@dataclass(frozen=True, slots=True)
class OwnershipToken:
    """The process that holds a client id: a retained message with the token of the newest one.

    MQTT 5 tells the older of two clients with one id that it was taken over (0x8E), but mosquitto 2.0 only closes its
    socket, and two processes would throw each other out for ever. The older one finds a token here that is not its own.
    """

    topic: str
    token: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a session.

    Attributes:
        control_queue_bytes, bulk_queue_bytes, frames_queue_bytes: unacknowledged bytes at which publish() blocks; that
            of bulk holds for results, too.
        max_inflight_messages: QoS 1 messages on their way at once, per channel; the broker's Receive Maximum also
            holds.
        control_expiry_s, frames_expiry_s: how long the broker keeps what is meant for an absent node; that of frames
            holds for results, too.
        receive_maximum: messages that the broker may send before the first of them is acknowledged.
        frames_receive_maximum: frames that this node may have open, i.e. received and not acknowledged.
        max_packet_bytes: packets above it the broker keeps to itself: nothing of ours reads them, and paho has a packet
            whole in memory before it can refuse it. On FRAMES they come, are skipped, and are answered.
        keepalive_s: a silent peer is given up after twice this.
        reconnect_min_s, reconnect_max_s: bounds of the back-off, before +-25 % of jitter.
        report_every_s: how often an absent broker is mentioned in the log.
        socket_buffer_bytes: asked of the kernel, which may give less.
        untaken_s: seconds after which a peer is given up that takes none of the bytes on their way to it; None leaves
            that to the keep-alive.
    """

    control_queue_bytes: int = 16 * MIB
    bulk_queue_bytes: int = 256 * MIB
    frames_queue_bytes: int = 1 * MIB
    max_inflight_messages: int = 64
    control_expiry_s: int = 120
    frames_expiry_s: int = 24 * 3600
    receive_maximum: int = 64
    frames_receive_maximum: int = 32
    max_packet_bytes: int = LARGEST_PACKET
    keepalive_s: int = 15
    connect_timeout_s: float = 5.0
    reconnect_min_s: float = 0.1
    reconnect_max_s: float = 5.0
    report_every_s: float = 10.0
    socket_buffer_bytes: int = 4 * MIB
    untaken_s: float | None = None
