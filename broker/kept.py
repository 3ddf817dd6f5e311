"""Retained messages that are published again: at each connect, since a broker without persistence forgets them, and to
brokers that hand them out to exact topics only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Kept:
    """Thread safe. `publish` takes topic and payload of what is new, and does nothing without a connection.

    Both ways of publishing hold the lock, so that an old payload never follows a new one.
    """

    def __init__(self, publish: Callable[[str, bytes], None]) -> None:
        self._publish = publish
        self._payloads: dict[str, bytes] = {}
        self._not_at_connect: set[str] = set()
        self._lock = threading.Lock()

    def put(self, topic: str, payload: bytes, *, at_connect: bool = True) -> None:
        """Keep a message, and publish it now. One that is not for `at_connect` is not given to `at_connect` below."""
        with self._lock:
            self._payloads[topic] = payload
            (self._not_at_connect.discard if at_connect else self._not_at_connect.add)(topic)
            self._publish(topic, payload)

    def drop(self, topic: str) -> None:
        """Keep it no longer."""
        with self._lock:
            self._payloads.pop(topic, None)

    def at_connect(self, publish: Callable[[str, bytes], None]) -> None:
        """Give all that a new connection begins with to `publish`."""
        with self._lock:
            for topic, payload in self._payloads.items():
                if topic not in self._not_at_connect:
                    publish(topic, payload)

    def publish_all(self, publish: Callable[[str, bytes], None]) -> None:
        """Give all that is kept to `publish`."""
        with self._lock:
            for topic, payload in self._payloads.items():
                publish(topic, payload)
