"""Requests with a response topic and correlation data, and the replies to them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Protocol

from broker.errors import QueueFull, RequestTimeout, SubscribeTimeout
from broker.messages import Message


class Asker(Protocol):
    """A session, as far as requests need one."""

    token: str

    @property
    def is_up(self) -> bool:
        """Whether everything stands now."""

    def subscribe(self, filters: list[str], handler: Callable[[Message], None], *, wait_s: float) -> None:
        """Subscribe on CONTROL."""

    def publish(
        self, topic: str, payload: bytes, *, expiry_s: float, response_topic: str, correlation: bytes, wait_s: float
    ) -> bool:
        """Publish on CONTROL."""


class Requests:
    """Thread safe."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._numbers = itertools.count(1)
        self._open: dict[bytes, Future[bytes]] = {}
        self._reply_topics: set[str] = set()

    def ask(self, topic: str, payload: bytes, *, reply_topic: str, timeout_s: float) -> bytes:
        """Publish and wait for the payload of the reply. Raises RequestTimeout."""
        give_up = time.monotonic() + timeout_s
        correlation = f"{self._asker.token}-{next(self._numbers)}".encode()
        answer = self._open[correlation] = Future()
        try:
            if reply_topic not in self._reply_topics:
                self._asker.subscribe([reply_topic], self._on_reply, wait_s=timeout_s)
                self._reply_topics.add(reply_topic)
            left_s = max(0.0, give_up - time.monotonic())
            self._asker.publish(
                topic, payload, expiry_s=left_s, response_topic=reply_topic, correlation=correlation, wait_s=left_s
            )
            return answer.result(max(0.0, give_up - time.monotonic()))
        except (FutureTimeout, QueueFull, SubscribeTimeout) as error:
            raise RequestTimeout(topic, timeout_s, connected=self._asker.is_up) from error
        finally:
            del self._open[correlation]

    def _on_reply(self, message: Message) -> None:
        answer = self._open.get(message.correlation or b"")
        if answer is not None and not answer.done():
            answer.set_result(message.payload)
