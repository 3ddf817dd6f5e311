"""Requests with a response topic and correlation data, and the replies to them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from typing import Protocol, TypeAlias

from broker.errors import BrokerRefused, QueueFull, RequestTimeout, SubscribeTimeout
from broker.messages import Message

IdOf: TypeAlias = Callable[[bytes], bytes | None]
"""The id in a reply's payload, None where it has none."""


class Asker(Protocol):
    """A session, as far as requests need one."""

    token: str

    @property
    def is_up(self) -> bool:
        """True while all connections are ready."""

    def subscribe(self, filters: list[str], handler: Callable[[Message], None], *, wait_s: float) -> None:
        """Subscribe on CONTROL."""

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        expiry_s: float,
        response_topic: str,
        correlation: bytes,
        wait_s: float,
        refused: Callable[[BrokerRefused], None],
    ) -> bool:
        """Publish on CONTROL."""


class Requests:
    """Thread safe."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._numbers = itertools.count(1)
        self._open: dict[bytes, tuple[Future[bytes], IdOf]] = {}
        self._reply_topics: set[str] = set()

    def ask(
        self,
        topic: str,
        payload: bytes,
        *,
        reply_topic: str,
        timeout_s: float,
        correlation: bytes | None = None,
        id_of: IdOf = lambda reply: None,
    ) -> bytes:
        """Publish and wait for the payload of the reply. Raises RequestTimeout, and BrokerRefused without the right to
        ask.

        A reply without correlation data is known by `id_of` it, where `correlation` stands in the payload as well.
        """
        give_up = time.monotonic() + timeout_s
        correlation = correlation or f"{self._asker.token}-{next(self._numbers)}".encode()
        answer: Future[bytes] = Future()
        self._open[correlation] = answer, id_of
        try:
            if reply_topic not in self._reply_topics:
                self._asker.subscribe([reply_topic], self._on_reply, wait_s=timeout_s)
                self._reply_topics.add(reply_topic)
            left_s = max(0.0, give_up - time.monotonic())
            self._asker.publish(
                topic,
                payload,
                expiry_s=left_s,
                response_topic=reply_topic,
                correlation=correlation,
                wait_s=left_s,
                refused=partial(_refused, answer),
            )
            return answer.result(max(0.0, give_up - time.monotonic()))
        except (FutureTimeout, QueueFull, SubscribeTimeout) as error:
            raise RequestTimeout(topic, timeout_s, connected=self._asker.is_up) from error
        finally:
            del self._open[correlation]

    def _on_reply(self, message: Message) -> None:
        for correlation, (answer, id_of) in [*self._open.items()]:
            if correlation == (message.correlation or id_of(message.payload)) and not answer.done():
                answer.set_result(message.payload)


def _refused(answer: Future[bytes], error: BrokerRefused) -> None:
    if not answer.done():
        answer.set_exception(error)
