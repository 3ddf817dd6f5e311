"""Direct ways from this node to others, and which way a message takes: its reader's own, or the broker's.

A way is a bulk connection (`broker.connection`) to another node's port. While it stands, messages for that node go
over it; when it breaks, all that its reader has not acknowledged goes through the broker, in order, and so does what
follows until it stands again. A message may arrive both ways then; readers of tensors know what they have had.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from broker.complaints import Complaints
from broker.connection import Connection
from broker.errors import BrokerError, BrokerRefused, BrokerUnreachable, NotConnected, PayloadTooLarge
from broker.messages import Address, Channel, Limits, Payload
from broker.outbox import Outgoing
from broker.packets import outgoing
from broker.policy import Policy
from broker.session import Session
from broker.tls import Tls

_log = logging.getLogger(__name__)

UNTAKEN_S: Final = 5.0
"""A node that takes none of the bytes on their way to it for so long has lost its line."""
RECONNECT_MAX_S: Final = 10.0
STOP_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Destination:
    """A node's port as it says itself: hosts and ports to try in turn, and the process that listens there."""

    endpoints: tuple[tuple[str, int], ...]
    session: str


class _Way:
    """The connection to one node (`policy.Listener`). `is_up` while messages may go over it."""

    def __init__(self, owner: DirectWays, peer: str, destination: Destination, address: Address) -> None:
        self.owner, self.peer, self.destination, self.is_up = owner, peer, destination, False
        limits = owner.limits
        self.connection = Connection(
            address,
            client_id=owner.name,
            thread_name=f"{owner.name}.to.{peer}",
            channel=Channel.BULK,
            policy=Policy(queue_bytes=limits.bulk_queue_bytes, expiry_s=0, for_tensors=True, gives_way=False),
            limits=limits,
            listener=self,
        )
        self.connection.outbox.shut()
        self.connection.start()

    def ready(self, channel: Channel) -> None:
        """Messages may go over it."""
        self.is_up = True
        self.connection.outbox.open()
        _log.info("tensors for %s go directly", self.peer)

    def lost(self, channel: Channel, reason: str) -> None:
        """They go through the broker, with those that it has not acknowledged."""
        self.is_up = False
        self.owner.send_again(self.connection.outbox.shut())
        _log.warning("tensors for %s go through the broker: %s", self.peer, reason)

    def failed(self, channel: Channel, error: BrokerError) -> None:
        """It cannot be reached now."""
        why = error.reason if isinstance(error, BrokerUnreachable | BrokerRefused) else str(error)
        self.owner.complaints.add(self.peer, f"tensors for {self.peer} go through the broker: {why}")

    def missed(self, channel: Channel) -> None:
        """Nobody subscribes over it."""

    def taken(self, channel: Channel) -> None:
        """Never: this node's own processes are told by the broker, and whoever else has taken the place loses it."""

    def end(self) -> None:
        """Send what is left through the broker, and close it."""
        self.is_up = False
        self.owner.send_again(self.connection.withdraw(STOP_S))
        self.connection.stop(wait_s=STOP_S)


class DirectWays:
    """All direct ways from one node. `publish` from any thread; `reach`, `leave` and `stop` from one, where they wait.

    Args:
        name: this node's.
        tls: certificates, where the broker has them.
        users: (node) -> the common names that its certificate may have.

    """

    def __init__(
        self,
        session: Session,
        *,
        name: str,
        tls: Tls | None,
        users: Callable[[str], tuple[str, ...]],
        limits: Limits,
    ) -> None:
        self.name, self._session, self._tls, self._users = name, session, tls, users
        self.limits = replace(limits, reconnect_max_s=RECONNECT_MAX_S, untaken_s=UNTAKEN_S)
        self.complaints = Complaints(_log)
        self.sent_again_total = 0
        self._sent_bytes_before = 0
        self._ways: dict[str, _Way] = {}

    @property
    def sent_bytes_total(self) -> int:
        """Bytes of the PUBLISH packets that went directly."""
        return self._sent_bytes_before + sum(way.connection.sent_bytes_total for way in tuple(self._ways.values()))

    def standing(self) -> dict[str, bool]:
        """Nodes to which there is a way, and whether it stands now."""
        return {peer: way.is_up for peer, way in tuple(self._ways.items())}

    def reach(self, peer: str, destination: Destination) -> None:
        """Have a way to a node, in place of one to an earlier process of it."""
        known = self._ways.get(peer)
        if known is not None and known.destination == destination:
            return
        self.leave(peer)
        (host, port), *others = destination.endpoints
        tls = None if self._tls is None else replace(self._tls, peers=self._users(peer))
        address = Address(host, port, self._session.token, destination.session, tls, tuple(others))
        self._ways[peer] = _Way(self, peer, destination, address)

    def leave(self, peer: str) -> None:
        """Have no way to a node any more; what it has not acknowledged goes through the broker."""
        way = self._ways.pop(peer, None)
        if way is not None:
            way.end()
            self._sent_bytes_before += way.connection.sent_bytes_total

    def publish(
        self,
        topic: str,
        payload: Payload,
        *,
        to: str | None,
        expiry_s: float | None,
        wait_s: float | None,
        traceparent: str | None = None,
    ) -> None:
        """Publish a message with QoS 1 on the bulk channel: directly if `to` is its only reader and there is a way.

        Raises what `Session.publish` does.
        """
        way = None if to is None else self._ways.get(to)
        if way is not None and way.is_up:
            try:
                if way.connection.publish(
                    outgoing(topic, payload, expiry_s=expiry_s, traceparent=traceparent), wait_s=wait_s
                ):
                    return
            except (NotConnected, PayloadTooLarge):
                pass  # it ended just now; or the broker takes what the other end does not
        self._session.publish(
            topic, payload, channel=Channel.BULK, expiry_s=expiry_s, traceparent=traceparent, wait_s=wait_s
        )

    def send_again(self, items: Sequence[Outgoing]) -> None:
        """Send through the broker what a way gives up."""
        self.sent_again_total += len(items)
        self._session.bulk.inherit(items)

    def stop(self) -> None:
        """Close all ways, after those that are busy have had a moment to deliver."""
        for way in self._ways.values():
            way.connection.outbox.wait_empty(STOP_S if way.is_up else 0.0)
        for peer in [*self._ways]:
            self.leave(peer)
