"""The outbox of one connection: a queue bounded by bytes, with the messages in flight counted in.

Knows no socket and no paho. It is the truth about unacknowledged messages: paho's own queue resends everything at once
after a reconnect, past the broker's Receive Maximum, and forgets QoS 0 messages without saying so.

What survives a lost connection: QoS 1, in order, first in the queue again, unless it has expired. What does not: QoS 0,
messages that are kept and therefore published again at each connect anyway, and those that are not to be repeated.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broker.errors import BrokerRefused, NotConnected, QueueFull
from broker.messages import Payload, nbytes_of
from broker.mqtt.packets import Buffer

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Bundle:
    """Messages that go over one connection, in order, or not at all: once one of them is lost, no later one is queued.

    So a broker that has the last of them has them all.
    """

    is_lost: bool = False


@dataclass(slots=True, eq=False)
class Outgoing:
    """One message to publish. `size` counts the whole packet; `settled` is told whether the broker has it.

    `unread` is called when the broker has it, and nobody has subscribed to its topic: it is lost. `refused` is called
    in place of a line in the log when the broker will never take it.
    One that is not `repeated` is given up with its connection: the broker may have it or not. `mark` is the number that
    it had when it was sent first (`broker.numbering`).
    """

    topic: str
    payload: Payload
    qos: int
    retain: bool
    size: int
    deadline: float | None = None
    response_topic: str | None = None
    correlation: bytes | None = None
    traceparent: str | None = None
    kept: bool = False
    repeated: bool = True
    settled: Callable[[bool], None] | None = None
    unread: Callable[[], None] | None = None
    refused: Callable[[BrokerRefused], None] | None = None
    bundle: Bundle | None = None
    mark: str = ""

    @property
    def parts(self) -> tuple[Buffer, ...]:
        """The payload's buffers, in order."""
        return self.payload if isinstance(self.payload, tuple) else (self.payload,)

    @property
    def nbytes(self) -> int:
        """Bytes of the payload."""
        return nbytes_of(self.payload)

    @property
    def outlives_connection(self) -> bool:
        """True when it stays in the queue after the connection is lost."""
        return self.qos > 0 and self.repeated and not self.kept

    def remaining_s(self, now: float) -> float | None:
        """Seconds until it is stale."""
        return None if self.deadline is None else self.deadline - now

    def settle(self, delivered: bool) -> None:
        """Call `settled`; an exception in it is logged and does not cost the connection."""
        if self.settled is not None:
            try:
                self.settled(delivered)
            except Exception:
                _log.exception("whoever published on %s could not be told of it", self.topic)


class Outbox:
    """Thread safe. Producers `put`; the connection's one thread takes, reports as sent, acknowledged or lost."""

    def __init__(self, name: str, *, limit_bytes: int) -> None:
        self._name = name
        self._limit_bytes = limit_bytes
        self._waiting: deque[Outgoing] = deque()
        self._in_flight: dict[int, Outgoing] = {}
        self._bytes = 0
        self._closed = self._shut = False
        self._changed = threading.Condition()
        self.expired_total = 0
        self.dropped_total = 0

    @property
    def queued_bytes(self) -> int:
        """Bytes waiting or in flight."""
        return self._bytes

    @property
    def in_flight(self) -> int:
        """Messages that left and are not acknowledged."""
        return len(self._in_flight)

    def put(self, item: Outgoing, *, wait_s: float | None) -> bool:
        """Queue a message, waiting for room. wait_s None: for ever; 0: not at all. Raises QueueFull, NotConnected.

        Returns False, and has queued nothing, when the rest of its bundle was lost before, or it is shut.
        """
        started = time.monotonic()
        with self._changed:
            # kept messages are few, replace each other, and must get through: only their own topic bounds them
            fits = item.kept or self._changed.wait_for(
                lambda: self._closed or self._shut or self._has_room(item.size), wait_s
            )
            if self._closed:
                raise NotConnected(self._name, "it was stopped")
            if self._shut:
                return False
            if not fits:
                waited_s = time.monotonic() - started
                raise QueueFull(
                    topic=item.topic, size=item.size, queued=self._bytes, limit=self._limit_bytes, waited_s=waited_s
                )
            if item.bundle is not None and item.bundle.is_lost:
                return False
            self._waiting.append(item)
            self._bytes += item.size
            return True

    def inherit(self, items: Sequence[Outgoing]) -> None:
        """Queue messages that another outbox gives up, whatever the bound: that one's has bounded them."""
        with self._changed:
            is_closed = self._closed
            if not is_closed:
                self._waiting.extend(items)
                self._bytes += sum(item.size for item in items)
        if is_closed:
            for item in items:
                item.settle(False)

    def open(self) -> None:
        """Take messages again."""
        with self._changed:
            self._shut = False

    def shut(self) -> list[Outgoing]:
        """Take no messages until it is opened. Returns, in order, those that are not acknowledged: the caller's now."""
        with self._changed:
            self._shut = True
            left = [*self._in_flight.values(), *self._waiting]
            self._in_flight.clear()
            self._waiting.clear()
            self._bytes = 0
            self._changed.notify_all()
        return left

    def take(self, window: int) -> Outgoing | None:
        """The next message to send, or None when there is none or `window` QoS 1 messages are in flight."""
        expired: list[Outgoing] = []
        with self._changed:
            item = self._next(window, expired)
            self._changed.notify_all()
        for old in expired:
            old.settle(False)
        return item

    def sent(self, mid: int, item: Outgoing) -> None:
        """The message left under packet id `mid`; it stays counted until acked."""
        with self._changed:
            is_closed = self._closed
            if not is_closed:
                self._in_flight[mid] = item
        if is_closed:
            item.settle(False)  # `close` has counted all others, and nobody will ask again

    def acked(self, mid: int, *, accepted: bool = True) -> Outgoing | None:
        """The broker has it (QoS 1) or it was written (QoS 0)."""
        with self._changed:
            item = self._in_flight.pop(mid, None)
            if item is not None:
                self._release(item)
        if item is not None:
            item.settle(accepted)
        return item

    def dropped(self, item: Outgoing) -> None:
        """A taken message that will not be sent."""
        with self._changed:
            self.dropped_total += 1
            self._release(item)
            if item.bundle is not None:
                item.bundle.is_lost = True
        item.settle(False)

    def lost(self) -> None:
        """The connection is gone: put back what may be resent, release the rest."""
        with self._changed:
            everything = [*self._in_flight.values(), *self._waiting]
            self._in_flight.clear()
            self._waiting.clear()
            gone = [item for item in everything if not item.outlives_connection]
            self._waiting.extend(item for item in everything if item.outlives_connection)
            self.dropped_total += sum(1 for item in gone if item.qos == 0)
            for item in gone:
                self._release(item)
                if item.bundle is not None:
                    item.bundle.is_lost = True
        for item in gone:
            item.settle(False)

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until all messages are acknowledged; False if they are not within `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._bytes == 0 or self._closed, timeout_s) and self._bytes == 0

    def close(self) -> None:
        """Wake and refuse every producer, and let go of what is left."""
        with self._changed:
            self._closed = True
            left = [*self._in_flight.values(), *self._waiting]
            self._in_flight.clear()
            self._waiting.clear()
            self._bytes = 0
            self._changed.notify_all()
        for item in left:
            item.settle(False)

    def _has_room(self, size: int) -> bool:
        # one message larger than the bound may pass alone; otherwise it could never pass
        return self._bytes == 0 or self._bytes + size <= self._limit_bytes

    def _next(self, window: int, expired: list[Outgoing]) -> Outgoing | None:
        now = time.monotonic()
        while self._waiting:
            item = self._waiting[0]
            if item.deadline is not None and item.deadline <= now:
                self._waiting.popleft()
                self._release(item)
                self.expired_total += 1
                expired.append(item)
                continue
            if item.qos > 0 and len(self._in_flight) >= window:
                return None
            return self._waiting.popleft()
        return None

    def _release(self, item: Outgoing) -> None:
        self._bytes = max(0, self._bytes - item.size)
        self._changed.notify_all()
