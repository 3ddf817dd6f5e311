"""For brokers that hand out retained messages to exact topics only, such as RabbitMQ: what is kept is said repeatedly.

Whoever comes later subscribes with wildcards, since it does not know who is there, and would wait for ever. Whether the
broker does it is found out with a retained message of this client's own, which has to come with the identifier of the
subscription with a wildcard: another copy comes by the exact topic. Called in the connection's thread only.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from broker.messages import Message, OwnershipToken
from broker.routes import Routes
from broker.subscriptions import Subscriptions

_log = logging.getLogger(__name__)

WAIT_S: Final = 3.0
EVERY_S: Final = 5.0


class Repetition:
    """`say` publishes all that is kept."""

    def __init__(
        self, claim: OwnershipToken | None, routes: Routes, subscriptions: Subscriptions, *, say: Callable[[], None]
    ) -> None:
        self._ownership, self._routes, self._subscriptions, self._say = claim, routes, subscriptions, say
        above, _, last = (claim.topic if claim else "").rpartition("/")
        self._filter = f"{above.rpartition('/')[0]}/+/{last}"
        self._identifier = 0
        self._is_needed: bool | None = None
        self._next_at = math.inf

    def claimed(self, now: float) -> None:
        """The broker retains our claim: ask for it with a wildcard."""
        if self._ownership is not None and self._is_needed is None:
            self._next_at = now + WAIT_S
            route = self._routes.add(self._filter, self._on_owner, qos=1)
            self._identifier = route.identifier
            self._subscriptions.send(route, Future())

    def lost(self) -> None:
        """The connection is gone; the next broker may be another one."""
        self._forget()
        self._is_needed, self._next_at = None, math.inf

    def due(self, now: float) -> None:
        """Say what is kept, if that is due; `now` is seconds of the monotonic clock."""
        if now < self._next_at:
            return
        if self._is_needed is None:
            self._is_needed = True
            self._forget()
            _log.info("the broker hands out no retained messages to filters with wildcards: they are said repeatedly")
        self._next_at = now + EVERY_S
        self._say()

    def _on_owner(self, message: Message) -> None:
        own = self._ownership is not None and message.topic == self._ownership.topic
        if own and message.retain and self._identifier in message.identifiers:
            self._is_needed, self._next_at = False, math.inf
            self._forget()

    def _forget(self) -> None:
        if self._routes.remove(self._filter):
            self._subscriptions.withdraw([self._filter])
