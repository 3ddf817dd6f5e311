"""What a connection does about messages that the broker has dropped. Called in the connection's thread only."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from broker.routes import Routes, matches
from broker.subscriptions import Subscriptions

EVERY_S: Final = 1.0
"""Where a broker drops, asking for more at once would make it drop more."""


class Recovery:
    """Tells, once for all that was dropped within `EVERY_S`; with `asks_again`, retained messages are fetched again.

    A subscription that is made again brings all that is retained under its filter.
    """

    def __init__(
        self, routes: Routes, subscriptions: Subscriptions, *, asks_again: bool, tell: Callable[[], None]
    ) -> None:
        self._routes, self._subscriptions = routes, subscriptions
        self._asks_again, self._tell = asks_again, tell
        self._topics: set[str] = set()
        self._next_at = -math.inf

    def missed(self, topic: str) -> None:
        """Messages on this topic were dropped."""
        self._topics.add(topic)

    def due(self, now: float) -> None:
        """Do what is due; `now` is seconds of the monotonic clock."""
        if not self._topics or now < self._next_at:
            return
        self._next_at = now + EVERY_S
        topics, self._topics = self._topics, set()
        for route in self._routes.all() if self._asks_again else ():
            if any(matches(route.filter, topic) for topic in topics):
                self._subscriptions.send(route, Future())
        self._tell()
