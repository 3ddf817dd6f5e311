"""The inbox of one connection: hands messages to handlers, and acknowledges them. Knows no socket."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from broker.complaints import Complaints
from broker.line import Incoming
from broker.messages import Channel, Message
from broker.mqtt.reader import Placement
from broker.numbering import Gaps, marks_of
from broker.redelivery import Arrival, Redelivery
from broker.repeats import Repeats
from broker.routes import Handler, Routes
from broker.trace_context import traceparent_of

_log = logging.getLogger(__name__)


_REFUSED: Final = object()


class Placing(Protocol):
    """A handler that is asked where a large payload shall go, if it is the only one that the message goes to.

    On BULK only. It is called with the message once that is whole; `placed` is the token of its placement.
    """

    def place(self, topic: str, first: memoryview, nbytes: int) -> Placement | None:
        """Where a payload of `nbytes` goes that begins with `first`; None: into the message, as small ones do.

        Called in the connection's thread. What was placed may never become whole, when the connection ends.
        """

    def __call__(self, message: Message) -> None:
        """Take a message."""


def _nothing() -> None:
    """Outside FRAMES nobody has to acknowledge."""


def _no_packet(mid: int) -> None:
    """Outside FRAMES paho sends the PUBACK."""


class Inbox:
    """Called in the connection's thread only.

    With `receive_maximum`, the session outlives its connections: what the broker sends again after a reconnect and was
    handed over before is not handed over twice. On FRAMES, a message that nobody handles yet (an earlier process
    subscribed, this one has not come to it) is held, unacknowledged, until a subscription claims it. At most half of
    the receive window is given to such messages.

    A message above the `max_bytes` of its topic goes no further than here; on FRAMES handlers get it without its
    payload, to answer it. `missed` is told the topic on which the broker has dropped messages. `routes` are given where
    another connection has them, too.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        receive_maximum: int | None,
        manual_ack: bool,
        send_ack: Callable[[int], None],
        max_bytes: Callable[[str], int | None] = lambda topic: None,
        missed: Callable[[str], None] = lambda topic: None,
        routes: Routes | None = None,
    ) -> None:
        self.routes = Routes() if routes is None else routes
        self.gaps, self._missed = Gaps(_log), missed
        self._repeats = Repeats()
        self.refused, self.failures = Complaints(_log), Complaints(_log)
        self._max_bytes = max_bytes
        # without manual acknowledgement paho sends the PUBACK once the handlers have returned
        send_ack = send_ack if manual_ack else _no_packet
        self.redelivery = Redelivery(send_ack)
        self.received_bytes_total = 0
        self._channel = channel
        self._manual_ack = manual_ack
        self._is_lasting = receive_maximum is not None
        self._send_ack = send_ack
        self._unclaimed: deque[tuple[Message, Sequence[int]]] = deque()
        self._unclaimed_limit = max(1, (receive_maximum or 0) // 2)

    def place(self, head: Incoming, first: memoryview) -> Placement | None:
        """Where a large payload that has begun to come shall go; `first` are its first bytes."""
        most = self._max_bytes(head.topic)
        if most is not None and head.nbytes > most:
            return Placement(kept=0, into=None, token=_REFUSED)
        if self._is_lasting and head.qos > 0:
            return None  # what comes again is told from what is new by the whole of it
        handlers = self.routes.handlers(head.topic, head.identifiers)
        # not isinstance: for a protocol that takes longer than all the rest of this
        place = getattr(handlers[0], "place", None) if len(handlers) == 1 else None
        if place is None:
            return None
        try:
            placement: Placement | None = place(head.topic, first, head.nbytes)
            return placement
        except Exception as error:
            self._failed(head.topic, head.nbytes, error)
            return None

    def arrived(self, received: Incoming) -> None:
        """Hand a received message to its handlers."""
        payload = received.payload
        self.received_bytes_total += received.nbytes
        finished: Callable[[], None] = _nothing
        delivery = None
        if self._is_lasting and received.qos > 0:
            arrival, delivery = self.redelivery.arrived(
                received.mid, received.topic, payload, duplicate=received.duplicate
            )
            if arrival is Arrival.ALREADY_OPEN:
                return
            if arrival is Arrival.ACK_AGAIN:
                self._send_ack(received.mid)
                return
            finished = partial(self.redelivery.finished, delivery)
        mark, first_mark = marks_of(received.user_properties)
        if mark and self._manual_ack and delivery is not None:
            first = self._repeats.first((first_mark, delivery.fingerprint), finished)
            if first is None:
                return
            finished = first
        # what still comes after an unsubscription begins no count: the next subscription may miss what is between
        is_counted = bool(mark) and not received.retain and bool(self.routes.handlers(received.topic))
        if is_counted and self.gaps.arrived(received.topic, mark):
            self._missed(received.topic)
        is_refused = self._is_too_large(received.topic, received.nbytes)
        if is_refused and not self._manual_ack:
            finished()
            return
        message = Message(
            topic=received.topic,
            payload=b"" if is_refused else payload,
            retain=received.retain,
            channel=self._channel,
            response_topic=received.response_topic,
            correlation=received.correlation,
            ack=finished if self._manual_ack else _nothing,
            delivery=delivery,
            placed=received.placed,
            identifiers=received.identifiers,
            traceparent=traceparent_of(received.user_properties),
            nbytes_refused=received.nbytes if is_refused else 0,
        )
        self._route(message, received.identifiers)
        if not self._manual_ack:
            finished()

    def _is_too_large(self, topic: str, nbytes: int) -> bool:
        most = self._max_bytes(topic)
        if most is None or nbytes <= most:
            return False
        self.refused.add(topic, f"{topic}: refused {nbytes:_} bytes; a message there has {most:_} at most")
        return True

    def deliver_unclaimed(self) -> None:
        """Offer the unclaimed messages again, after a new subscription."""
        waiting, self._unclaimed = self._unclaimed, deque()
        for message, identifiers in waiting:
            self._route(message, identifiers)

    def _route(self, message: Message, identifiers: Sequence[int]) -> None:
        handlers = self.routes.handlers(message.topic, identifiers)
        if not handlers and self._manual_ack:
            self._hold(message, identifiers)
        for handler in handlers:
            self._call(handler, message)

    def _hold(self, message: Message, identifiers: Sequence[int]) -> None:
        self._unclaimed.append((message, identifiers))
        if len(self._unclaimed) > self._unclaimed_limit:
            dropped, _ = self._unclaimed.popleft()
            _log.warning("a message on %s is dropped: no subscription of this process wants it", dropped.topic)
            dropped.ack()

    def _call(self, handler: Handler, message: Message) -> None:
        try:
            handler(message)
        except Exception as error:
            # one bad message must not cost the connection, and with it every other message
            self._failed(message.topic, len(message.payload), error)
            message.ack()

    def _failed(self, topic: str, nbytes: int, error: Exception) -> None:
        text = f"a handler failed on {topic} ({nbytes} bytes): the message is dropped"
        self.failures.add((type(error).__name__, topic), text, error=error)
