"""Errors between a node and its broker, named by their cause.

Knows the remedy for each fault and writes it, with the numbers, into the text. Errors of paho, sockets and processes
are translated into these at the border of this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import TrisectError


class BrokerError(TrisectError):
    """Root of everything that this package raises."""


class BrokerUnreachable(BrokerError):
    """Nothing that speaks MQTT answers at the address."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        self.host, self.port, self.reason = host, port, reason
        hint = "start it, or correct the host and port"
        super().__init__(f"no MQTT broker answers at {host}:{port}: {reason}", hint=hint)


class BrokerRefused(BrokerError):
    """The broker answered CONNECT, SUBSCRIBE or PUBLISH with a failure.

    Attributes:
        code: the MQTT 5 reason code, 0x80 or above.
    """

    def __init__(self, what: str, *, code: int, reason: str) -> None:
        self.what, self.code, self.reason = what, code, reason
        super().__init__(f"the broker refused {what}: {reason} (0x{code:02X})", hint=self._remedy)

    @property
    def lasting(self) -> bool:
        """True when trying again with the same settings cannot succeed."""
        return self.code in {0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x90, 0x95}

    @property
    def _remedy(self) -> str:
        remedies = {
            0x84: "it must speak MQTT 5 (mosquitto 1.6 or later)",
            0x85: "give the node another id",
            0x86: "correct the user name and password",
            0x87: "correct the user name and password, or the user's rights (the ACL; a member's role)",
        }
        return remedies.get(self.code, "see the broker's log")


class ProtocolViolation(BrokerError):
    """The peer sent what MQTT 5 does not allow, or what is larger than this side can take.

    Attributes:
        code: the reason code for the DISCONNECT that answers it.
    """

    def __init__(self, what: str, *, code: int) -> None:
        self.what, self.code = what, code
        hint = "check that the address is that of an MQTT broker, of version 5"
        super().__init__(f"the peer breaks MQTT 5: {what} (0x{code:02X})", hint=hint)


class PayloadTooLarge(BrokerError):
    """A message is larger than the broker accepts. Raised before a byte of it leaves."""

    def __init__(self, *, topic: str, size: int, limit: int) -> None:
        self.topic = topic
        super().__init__(
            f"a packet of {size:_} bytes for {topic} exceeds the broker's limit of {limit:_} bytes",
            size=size,
            limit=limit,
            hint="raise max_packet_size in the broker (and message_size_limit, if it is set), or lower chunk_bytes",
        )


class TopicOverfull(BrokerError):
    """A message is larger than anybody takes on its topic. Raised before a byte of it leaves."""

    def __init__(self, *, topic: str, size: int, limit: int) -> None:
        self.topic = topic
        super().__init__(
            f"{size:,} bytes for {topic}, on which nobody takes more than {limit:,}",
            size=size,
            limit=limit,
            hint="send less",
        )


class QueueFull(BrokerError):
    """Unacknowledged bytes stood at their bound for as long as the caller was ready to wait."""

    def __init__(self, *, topic: str, size: int, queued: int, limit: int, waited_s: float) -> None:
        self.topic, self.queued, self.waited_s = topic, queued, waited_s
        super().__init__(
            f"{size:_} bytes for {topic} do not fit: {queued:_} of {limit:_} bytes are unacknowledged after "
            f"{waited_s:.1f} s",
            size=size,
            limit=limit,
            hint="the broker or the link is slower than the publisher: send less, or raise the bound",
        )


class NotConnected(BrokerError):
    """The session was stopped, or never started."""

    def __init__(self, name: str, why: str) -> None:
        self.name, self.why = name, why
        super().__init__(f"session {name} is not connected: {why}", hint="start a new session")


class RequestTimeout(BrokerError):
    """Nobody answered a request in time."""

    def __init__(self, topic: str, timeout_s: float, *, connected: bool) -> None:
        self.topic, self.timeout_s, self.connected = topic, timeout_s, connected
        where = "its node is not running or is busy" if connected else "the broker was not reachable"
        hint = "look at its state, or wait longer"
        super().__init__(f"no reply to {topic} within {timeout_s:.1f} s: {where}", limit=timeout_s, hint=hint)


class SubscribeTimeout(BrokerError):
    """The broker did not acknowledge a subscription in time."""

    def __init__(self, filters: Sequence[str], wait_s: float) -> None:
        self.filters, self.wait_s = tuple(filters), wait_s
        super().__init__(
            f"no SUBACK for {', '.join(filters)} within {wait_s:.1f} s; it is remembered and sent again at the next "
            "connect",
            limit=wait_s,
            hint="look at the broker's load",
        )


class PortTaken(BrokerError):
    """Another process listens where the broker should."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        super().__init__(
            f"{host}:{port} is taken by another process",
            hint="use that broker, choose another port, or port 0 for a free one",
        )


class MosquittoMissing(BrokerError):
    """No mosquitto executable on this machine."""

    def __init__(self, searched: str) -> None:
        self.searched = searched
        hint = "apt install mosquitto, or brew install mosquitto"
        super().__init__(f"mosquitto was not found in {searched}", hint=hint)


class ServerFailed(BrokerError):
    """mosquitto was started and did not come to answer, or ended by itself. Carries the end of its log."""

    def __init__(self, why: str, log_tail: str, log_file: Path | None = None) -> None:
        self.why, self.log_tail, self.log_file = why, log_tail, log_file
        where = f", which is {log_file}" if log_file else ""
        super().__init__(f"mosquitto {why}; the end of its log{where}:\n{log_tail or '(empty)'}")


class SettingsError(BrokerError):
    """Server settings that would be unsafe or that mosquitto cannot read."""


class SessionTaken(BrokerError):
    """Another client connected with this session's client id; the broker keeps only the newer one."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        super().__init__(
            f"another client connected as {client_id}, and the broker closed this one: two nodes run with one id",
            hint="stop one, or give it another id",
        )


class TopicError(BrokerError):
    """A topic's field is missing, unknown or not allowed."""
