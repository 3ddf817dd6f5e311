"""Retained messages that are published again at each connect: a broker without persistence forgets them."""

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
        self._lock = threading.Lock()

    def put(self, topic: str, payload: bytes) -> None:
        """Keep a message, and publish it now."""
        with self._lock:
            self._payloads[topic] = payload
            self._publish(topic, payload)

    def drop(self, topic: str) -> None:
        """Keep it no longer."""
        with self._lock:
            self._payloads.pop(topic, None)

    def publish_all(self, publish: Callable[[str, bytes], None]) -> None:
        """Give all that is kept to `publish`."""
        with self._lock:
            for topic, payload in self._payloads.items():
                publish(topic, payload)
