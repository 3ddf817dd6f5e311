"""The MQTT client under a connection: paho (`paho_line`) or, for tensors, our own (`bulk_line`). No behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Final, Protocol

from broker.outbox import Outgoing

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike  # exists for type checkers only

RECEIVE_MAXIMUM: Final = 65_535
"""What MQTT 5 says when CONNACK is silent."""

BROKEN: Final = "the line broke"
"""Why a connection ended whose peer or network gave no reason."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Where to connect, and what CONNECT asks for.

    Attributes:
        expiry_s: how long the broker keeps the session of a lost connection.
        max_packet_bytes: the broker sends no larger packet.
    """

    host: str
    port: int
    _: KW_ONLY
    clean_start: bool
    expiry_s: int
    receive_maximum: int | None
    max_packet_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What a successful CONNACK says; `max_packet_bytes` None is without a limit."""

    session_present: bool
    receive_maximum: int
    max_packet_bytes: int | None
    has_identifiers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One PUBLISH as it came. `mid` is its packet id, 0 with QoS 0.

    Attributes:
        payload: all of it, or its first bytes if the rest was `placed`.
        placed: where the rest went, see `inbox.Placing`; None if `payload` is whole.
        nbytes: of the whole payload.
        identifiers: of the subscriptions that it comes for.
        user_properties: name and value of each.
    """

    mid: int
    topic: str
    payload: bytes
    nbytes: int
    qos: int
    retain: bool
    duplicate: bool
    response_topic: str | None
    correlation: bytes | None
    identifiers: Sequence[int]
    user_properties: Sequence[tuple[str, str]] = ()
    placed: object = None


class LineUser(Protocol):
    """What a line tells its connection, within calls of `read`, `write` and `tick`. Codes are MQTT 5's reasons."""

    def accepted(self, answer: Accepted) -> None:
        """CONNACK, and all is well."""

    def refused(self, code: int) -> None:
        """CONNACK with a failure; `ended` follows."""

    def ended(self, reason: str, *, is_taken_over: bool) -> None:
        """The socket is closed."""

    def subscribed(self, mid: int, codes: Sequence[int]) -> None:
        """SUBACK."""

    def published(self, mid: int, code: int) -> None:
        """PUBACK, or a message with QoS 0 has been written."""

    def arrived(self, message: Incoming) -> None:
        """PUBLISH. Unless acknowledgement is up to the application, the line acknowledges it when this returns."""


class Line(Protocol):
    """One client's protocol and socket. Called in the connection's thread only."""

    @property
    def sock(self) -> SocketLike | None:
        """The socket, None while there is no connection."""

    @property
    def wants_write(self) -> bool:
        """Bytes wait for the socket to take them."""

    @property
    def has_unread(self) -> bool:
        """Bytes have come that the socket's file descriptor says nothing of, as with TLS."""

    @property
    def is_amid_packet(self) -> bool:
        """A packet has begun to come, and not ended."""

    def open(self, opening: Opening) -> None:
        """Connect the socket and send CONNECT. Raises OSError, ValueError for a host that cannot be one."""

    def close(self) -> None:
        """Close the socket, without a word to the broker or to the user. Nothing happens if there is none."""

    def read(self) -> int:
        """Take what has come. Returns the bytes, or those of whole messages."""

    def write(self) -> None:
        """Give the socket what it takes."""

    def tick(self) -> None:
        """Keep the connection alive; to be called every second or oftener."""

    def publish(self, item: Outgoing, *, remaining_s: float | None, number: str | None = None) -> int:
        """Send a message, with its `number` (`broker.numbering`). Returns the packet id that `published` gets. Raises
        ValueError.
        """

    def subscribe(self, filter_: str, *, qos: int, identifier: int | None) -> int | None:
        """SUBSCRIBE. Returns the number of the answer, None when it could not be sent."""

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """UNSUBSCRIBE."""

    def acknowledge(self, mid: int) -> None:
        """PUBACK for a message with QoS 1."""

    def disconnect(self, *, keep_session: bool) -> None:
        """DISCONNECT with reason 0, so that no will is sent."""
