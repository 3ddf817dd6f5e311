"""Routes from messages to handlers. Knows filters and subscription identifiers, no connection.

A broker may send one copy of a message per overlapping subscription (mosquitto 2 does), each marked with the
identifier of its subscription; going by identifier, each handler sees the message once whatever the broker does. Where
there are none, or where they are left from an earlier process, the filters decide.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from broker.messages import Message

Handler = Callable[[Message], None]
_MOST_REMEMBERED, _LONGEST_REMEMBERED = 4_096, 512
"""Topics whose handlers are remembered, of so many characters: each message asks for them several times."""


@dataclass(slots=True)
class Route:
    """One subscription: a filter, its QoS, its identifier and its handlers."""

    filter: str
    qos: int
    identifier: int
    handlers: list[Handler] = field(default_factory=list)


def matches(filter_: str, topic: str) -> bool:
    """True when an MQTT filter with `+` and `#` matches a topic."""
    if "+" not in filter_ and "#" not in filter_:
        return filter_ == topic
    wanted, given = filter_.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(given) or level not in ("+", given[index]):
            return False
    return len(wanted) == len(given)


class Routes:
    """Thread safe table of filter -> handlers."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._by_identifier: dict[int, Route] = {}
        self._last_identifier = 0
        self._remembered: dict[tuple[str, Sequence[int]], tuple[Handler, ...]] = {}
        self._lock = threading.Lock()

    def add(self, filter_: str, handler: Handler, *, qos: int) -> Route:
        """Register a handler; the same one twice on one filter counts once."""
        with self._lock:
            self._remembered.clear()
            route = self._routes.get(filter_)
            if route is None:
                self._last_identifier += 1
                route = Route(filter_, qos, self._last_identifier)
                self._routes[filter_] = self._by_identifier[route.identifier] = route
            route.qos = max(route.qos, qos)
            if handler not in route.handlers:
                route.handlers = [*route.handlers, handler]
            return route

    def remove(self, filter_: str) -> bool:
        """Forget a filter and all of its handlers. False when it was not there."""
        with self._lock:
            self._remembered.clear()
            route = self._routes.pop(filter_, None)
            if route is not None:
                del self._by_identifier[route.identifier]
            return route is not None

    def all(self) -> list[Route]:
        """Every subscription."""
        with self._lock:
            return list(self._routes.values())

    def handlers(self, topic: str, identifiers: Sequence[int] = ()) -> tuple[Handler, ...]:
        """Handlers for one received copy of a message."""
        asked = topic, tuple(identifiers)
        with self._lock:
            found = self._remembered.get(asked)
            if found is None:
                found = self._handlers(*asked)
                if len(topic) + len(identifiers) <= _LONGEST_REMEMBERED:
                    if len(self._remembered) >= _MOST_REMEMBERED:
                        self._remembered.clear()
                    self._remembered[asked] = found
        return found

    def _handlers(self, topic: str, identifiers: Sequence[int]) -> tuple[Handler, ...]:
        marked = [self._by_identifier[number] for number in identifiers if number in self._by_identifier]
        chosen = [route for route in marked if matches(route.filter, topic)]
        if not chosen:
            chosen = [route for route in self._routes.values() if matches(route.filter, topic)]
        return tuple(dict.fromkeys(handler for route in chosen for handler in route.handlers))
