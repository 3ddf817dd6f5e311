"""Exactly-once delivery to the broker, across lost connections and restarts of this process.

MQTT sends what is not acknowledged again, and a new process does not know what an earlier one got rid of: both make
duplicates. Here a publisher subscribes to its own messages, in a session that the broker keeps while it is away: what
the broker took comes back, at once or at the next connect. After each connect a fence is sent. A broker reads nothing
more from a connection after the next one with the same client id, and it queues messages for a client in order: when
the fence comes back, all that ever was taken has come back before it, and only the rest is sent again.

A broker that forgets its sessions forgets this with them.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from broker.errors import BrokerError
from broker.outbox import Bundle
from broker.session import Channel, Message, Session

_log = logging.getLogger(__name__)

POLL_S = 0.1
FENCE_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Publication:
    """One message to publish with QoS 1, not retained."""

    topic: str
    payload: bytes
    correlation: bytes | None = None
    traceparent: str | None = None


Make: TypeAlias = Callable[[], Sequence[Publication]]


class ExactlyOncePublisher:
    """Publishes on the RESULTS channel of a session that is not started yet.

    Args:
        fence_topic: of this client alone.
        delivered: told, in some network thread and perhaps more than once, each key whose messages the broker has;
            of this process or of an earlier one.
        caught_up: called once, when everything is known that earlier processes delivered.

    """

    def __init__(
        self,
        session: Session,
        fence_topic: str,
        *,
        delivered: Callable[[Hashable], None],
        caught_up: Callable[[], None],
    ) -> None:
        self._session, self._fence_topic = session, fence_topic
        self._delivered, self._caught_up = delivered, caught_up
        self._is_caught_up = False
        self._pending: dict[Hashable, Make] = {}
        self._unsettled: dict[Hashable, set[int]] = {}
        self._sending: dict[Hashable, Bundle] = {}
        self._lost: set[Hashable] = set()
        self._fence: tuple[bytes, int] | None = None
        self._missing: Mapping[Hashable, Make] | None = None
        self._changed = threading.Condition()

    def recognise(self, topics: Sequence[str], key_of: Callable[[Message], Hashable | None]) -> None:
        """Messages on `topics` are the last ones of what was published under their keys; None for those of no key.

        Before the session starts.
        """
        self._session.subscribe([self._fence_topic], self._on_fence, channel=Channel.RESULTS)
        self._session.subscribe(topics, lambda message: self._came_back(key_of(message)), channel=Channel.RESULTS)

    def publish(self, key: Hashable, make: Make) -> None:
        """Publish what `make` returns, in order; waits while the queue is full. The last one is on a recognised topic.

        `make` is called for each sending, since the next broker may take smaller packets than this one.

        They are delivered together: while one of them may be lost, all are sent again, so that those before the last
        may come twice. The broker takes them in order, so that it has them all when it has the last. Raises
        PayloadTooLarge, NotConnected.
        """
        with self._changed:
            self._pending[key] = make
        try:
            self._send(key, make)
        except BrokerError:
            with self._changed:
                self._pending.pop(key, None)
                self._unsettled.pop(key, None)
                self._sending.pop(key, None)
                self._lost.discard(key)
            raise

    def connected(self) -> None:
        """The session is up (again): find out what the broker has, and send the rest again. Not in a network thread."""
        again = self._passed_fence()
        if again is None:
            return  # the connection is gone again; the next one asks again
        for key, make in again.items():
            try:
                self._send(key, make)
            except BrokerError:
                _log.exception("%s cannot be sent again", key)
        if not self._is_caught_up:
            self._is_caught_up = True
            self._caught_up()

    def _send(self, key: Hashable, make: Make) -> None:
        """Queue them all for one connection. If it ends before the last is queued, that has not left: begin again."""
        while not self._send_over_one_connection(key, make()):
            _log.debug("the line broke among the messages of %s: all of them again", key)

    def _send_over_one_connection(self, key: Hashable, publications: Sequence[Publication]) -> bool:
        bundle = Bundle()
        with self._changed:
            self._lost.discard(key)
            # those of an earlier sending that are not settled yet are of a connection that is gone
            self._unsettled[key], self._sending[key] = set(range(len(publications))), bundle
        for index, publication in enumerate(publications):
            is_queued = self._session.publish(
                publication.topic,
                publication.payload,
                correlation=publication.correlation,
                traceparent=publication.traceparent,
                channel=Channel.RESULTS,
                wait_s=None,
                repeated=False,
                settled=partial(self._settled, key, index, bundle),
                bundle=bundle,
            )
            if not is_queued:
                return False
        return True

    def _settled(self, key: Hashable, index: int, bundle: Bundle, taken: bool) -> None:
        with self._changed:
            if self._sending.get(key) is not bundle:
                return  # of an earlier connection; all have been sent again since
            if not taken and key in self._pending:
                self._lost.add(key)
            unsettled = self._unsettled.get(key)
            if not taken or unsettled is None:
                return
            unsettled.discard(index)
            is_whole = not unsettled and key not in self._lost
        if is_whole:
            self._arrived(key)

    def _came_back(self, key: Hashable | None) -> None:
        """What earlier processes delivered comes back before the first fence; after it, only what waits here counts."""
        if key is not None and (key in self._pending or not self._is_caught_up):
            self._arrived(key)

    def _arrived(self, key: Hashable) -> None:
        with self._changed:
            self._pending.pop(key, None)
            self._unsettled.pop(key, None)
            self._sending.pop(key, None)
            self._lost.discard(key)
        self._delivered(key)

    def _passed_fence(self) -> Mapping[Hashable, Make] | None:
        """Publications that lost their connection and that the broker does not have; None if this connection was lost,
        too.
        """
        connection = self._session.connects_total(Channel.RESULTS)
        fence = secrets.token_bytes(8)
        with self._changed:
            self._fence, self._missing = (fence, connection), None
        while True:
            # a broker whose queue is full drops it: then the next one, which is behind all results as well
            self._session.publish(self._fence_topic, fence, channel=Channel.RESULTS, wait_s=None, repeated=False)
            give_up = time.monotonic() + FENCE_AGAIN_S
            with self._changed:
                while not self._is_answered(connection) and time.monotonic() < give_up:
                    self._changed.wait(POLL_S)
                if self._is_answered(connection):
                    return self._missing

    def _is_answered(self, connection: int) -> bool:
        is_gone = not self._session.is_up or self._session.connects_total(Channel.RESULTS) != connection
        return self._missing is not None or is_gone

    def _on_fence(self, message: Message) -> None:
        # in the one thread that notices a lost connection, so that nothing can be lost between here and there; a fence
        # that comes on a later connection than its own says nothing of what was sent behind it
        if (message.payload, self._session.connects_total(Channel.RESULTS)) == self._fence:
            with self._changed:
                self._missing = {key: make for key, make in self._pending.items() if key in self._lost}
                self._lost.clear()
                self._fence = None  # sent twice, it may come twice
                self._changed.notify_all()
