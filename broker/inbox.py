"""The inbox of one connection: hands messages to handlers, and acknowledges them. Knows no socket."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from paho.mqtt.client import MQTTMessage

from broker.complaints import Complaints
from broker.messages import Channel, Message
from broker.numbering import Gaps, marks_of
from broker.redelivery import Arrival, Redelivery
from broker.repeats import Repeats
from broker.routes import Handler, Routes

_log = logging.getLogger(__name__)


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

    A message above the `max_bytes` of its topic goes no further than here. `missed` is told the topic on which the
    broker has dropped messages.
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
    ) -> None:
        self.routes = Routes()
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
        self._unclaimed: deque[tuple[Message, list[int]]] = deque()
        self._unclaimed_limit = max(1, (receive_maximum or 0) // 2)

    def arrived(self, received: MQTTMessage) -> None:
        """Hand a received message to its handlers."""
        payload = bytes(received.payload)
        self.received_bytes_total += len(payload)
        finished: Callable[[], None] = _nothing
        delivery = None
        if self._is_lasting and received.qos > 0:
            arrival, delivery = self.redelivery.arrived(received.mid, received.topic, payload, duplicate=received.dup)
            if arrival is Arrival.ALREADY_OPEN:
                return
            if arrival is Arrival.ACK_AGAIN:
                self._send_ack(received.mid)
                return
            finished = partial(self.redelivery.finished, delivery)
        properties = received.properties
        mark, first_mark = marks_of(getattr(properties, "UserProperty", ()))
        if mark and self._manual_ack and delivery is not None:
            first = self._repeats.first((first_mark, delivery.fingerprint), finished)
            if first is None:
                return
            finished = first
        # what still comes after an unsubscription begins no count: the next subscription may miss what is between
        is_counted = bool(mark) and not received.retain and bool(self.routes.handlers(received.topic))
        if is_counted and self.gaps.arrived(received.topic, mark):
            self._missed(received.topic)
        if self._is_too_large(received.topic, len(payload)):
            finished()
            return
        message = Message(
            topic=received.topic,
            payload=payload,
            retain=received.retain,
            channel=self._channel,
            response_topic=getattr(properties, "ResponseTopic", None),
            correlation=getattr(properties, "CorrelationData", None),
            ack=finished if self._manual_ack else _nothing,
            delivery=delivery,
        )
        self._route(message, getattr(properties, "SubscriptionIdentifier", []))
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

    def _route(self, message: Message, identifiers: list[int]) -> None:
        handlers = self.routes.handlers(message.topic, identifiers)
        if not handlers and self._manual_ack:
            self._hold(message, identifiers)
        for handler in handlers:
            self._call(handler, message)

    def _hold(self, message: Message, identifiers: list[int]) -> None:
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
            text = f"a handler failed on {message.topic} ({len(message.payload)} bytes): the message is dropped"
            self.failures.add((type(error).__name__, message.topic), text, error=error)
            message.ack()
