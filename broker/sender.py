"""From an outbox to a line: as many messages as the broker's window allows, each numbered, none above its limit."""

from __future__ import annotations

import logging
import time

from broker.errors import BrokerRefused, PayloadTooLarge
from broker.line import Accepted, Line
from broker.mqtt.reasons import FAILURE, NO_SUBSCRIBERS, name_of
from broker.numbering import Numbers
from broker.outbox import Outbox, Outgoing
from broker.throughput import Throughput
from broker.window import Window

_log = logging.getLogger(__name__)


class Sender:
    """Called in the connection's thread only, except for `check_size` and what is read.

    `most_inflight` bounds the unacknowledged messages, besides the broker's Receive Maximum.
    """

    def __init__(self, name: str, outbox: Outbox, line: Line, *, most_inflight: int) -> None:
        self._name, self._outbox, self._line, self._most_inflight = name, outbox, line, most_inflight
        self._window, self._numbers = Window(), Numbers()
        self._is_connected = False
        self.max_packet_bytes: int | None = None
        self.sent_bytes_total = 0
        self.up = Throughput()

    def connected(self, answer: Accepted) -> None:
        """A connection stands, with what its broker takes."""
        self._window.connected(min(answer.receive_maximum, self._most_inflight))
        self._numbers.connected()
        self.max_packet_bytes = answer.max_packet_bytes
        self._is_connected = True

    def lost(self) -> None:
        """The connection is gone."""
        self._is_connected = False
        self._window.lost(self._outbox.in_flight)
        self._outbox.lost()
        self.up.lost()

    def send_waiting(self) -> None:
        """Give the line what it takes of what waits."""
        # one at a time: the first byte should leave before the last chunk is taken, and what is taken cannot expire
        while self._is_connected and not self._line.wants_write:
            item = self._outbox.take(self._window.size)
            if item is None:
                return
            self._send(item)

    def _send(self, item: Outgoing) -> None:
        try:
            self.check_size(item)
        except PayloadTooLarge as error:
            # accepted before the broker's limit was known, or the broker came back with a smaller one
            _log.error("%s: dropped: %s", self._name, error)
            self._outbox.dropped(item)
            return
        self.up.began(time.monotonic())
        try:
            mid = self._line.publish(
                item,
                remaining_s=item.remaining_s(time.monotonic()),
                number=self._numbers.next(item) if item.qos else None,
            )
        except ValueError as error:
            # taken from the queue and not in flight: nobody else could settle it any more
            _log.error("%s: a message on %s is not sent: %s", self._name, item.topic, error)
            self._outbox.dropped(item)
            return
        self._outbox.sent(mid, item)
        self.sent_bytes_total += item.size
        self._line.write()

    def acked(self, mid: int, code: int) -> None:
        """The broker has a message, or has refused it."""
        item = self._outbox.acked(mid, accepted=code < FAILURE)
        if item is None:
            return
        self._window.acked()
        self.up.moved(item.size, time.monotonic(), is_idle=self._outbox.in_flight == 0)
        if code == NO_SUBSCRIBERS and item.unread is not None:
            item.unread()
        if code >= FAILURE:
            error = BrokerRefused(f"a message on {item.topic}", code=code, reason=name_of(code))
            if item.refused is not None and error.lasting:
                item.refused(error)
            else:
                _log.error("%s", error)

    def check_size(self, item: Outgoing) -> None:
        """Raise PayloadTooLarge for a packet above the broker's Maximum Packet Size."""
        if self.max_packet_bytes is not None and item.size > self.max_packet_bytes:
            raise PayloadTooLarge(topic=item.topic, size=item.size, limit=self.max_packet_bytes)
