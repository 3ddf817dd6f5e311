"""Which process holds a client id, by a retained message with the token of the newest one (`messages.OwnershipToken`).

MQTT 5 tells the older of two clients with one id that it was taken over, but mosquitto 2.0 only closes its socket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from broker.messages import Message, OwnershipToken


class Owner(Protocol):
    """The connection that holds an id, as far as `Ownership` knows it."""

    @property
    def is_stopping(self) -> bool:
        """It is on its way out."""

    def publish_kept(self, topic: str, payload: bytes, *, then: Callable[[bool], None] | None = None) -> None:
        """Publish retained; with `then`, the connection is not ready before it is settled."""

    def claimed(self) -> None:
        """The broker retains this process's token."""

    def watch(self, topic: str, handler: Callable[[Message], None]) -> None:
        """Subscribe."""

    def leave(self, reason: str) -> None:
        """Give the id up to the other process."""

    def refuse(self, message: Message, why: str) -> None:
        """Count and log a message that is dropped."""


class Ownership:
    """Called in the connection's thread only."""

    def __init__(self, claim: OwnershipToken, owner: Owner) -> None:
        self._ownership, self._owner = claim, owner
        self._is_connected = self._was_claimed = False

    @property
    def topic(self) -> str:
        """Where the token is."""
        return self._ownership.topic

    def connected(self, *, resumed: bool) -> None:
        """A connection stands."""
        self._is_connected = True
        if self._was_claimed and resumed:
            self._owner.claimed()
            self._watch()  # resumed whose session? another client with this id may have come between
        else:
            self._owner.publish_kept(self._ownership.topic, self._ownership.token, then=self._owns)

    def lost(self) -> None:
        """The connection is gone."""
        self._is_connected = False

    def _owns(self, delivered: bool) -> None:
        # not before: the token of an earlier, dead process may have stood there
        if delivered and self._is_connected and not self._owner.is_stopping:
            self._was_claimed = True
            self._watch()
            self._owner.claimed()

    def _watch(self) -> None:
        self._owner.watch(self._ownership.topic, self._on_owner)

    def _on_owner(self, message: Message) -> None:
        """Another token than ours, in what the broker kept while we were away: another process came meanwhile.

        While this connection stands, nobody else has the client id: a broker closes the older of two. What comes then
        is no token of a client with this id, whoever wrote it, and ours is put in its place.
        """
        if self._owner.is_stopping or message.payload in (b"", self._ownership.token):
            return
        if message.retain:
            self._owner.leave("its topic `owner` holds another token")
            return
        self._owner.refuse(message, "refused an ownership token that is not ours, while we hold the id")
        self._owner.publish_kept(self._ownership.topic, self._ownership.token)
