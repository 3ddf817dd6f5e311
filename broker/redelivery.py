"""Redelivery: the open messages of a session that outlives its connections, across reconnects of one process.

Knows packet ids, no connection. When a session is resumed, the broker sends again, with the same packet id and the DUP
flag, what it has no PUBACK for. Such a message is either still being worked on here, and must not be handed over a
second time (a frame would be counted twice), or was finished while the line was down, and only its PUBACK is owed.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum

from broker.messages import Delivery

REMEMBERED = 4096
"""Finished messages. Receive Maximum should bound what is under way, but mosquitto 2.0 resumes with more than that."""


class Arrival(Enum):
    """Action for a message that has arrived."""

    HAND_OVER = "hand over"
    ALREADY_OPEN = "already open"
    ACK_AGAIN = "ack again"


class Redelivery:
    """Thread safe. `send_ack(mid)` is called when a PUBACK may go out."""

    def __init__(self, send_ack: Callable[[int], None]) -> None:
        self._send_ack = send_ack
        self._generation = 0
        self._open: dict[int, Delivery] = {}
        self._owed: OrderedDict[int, Delivery] = OrderedDict()
        self._connected = False
        self._lock = threading.Lock()

    @property
    def open_count(self) -> int:
        """Messages handed over and not finished."""
        return len(self._open)

    def connected(self, *, resumed: bool) -> None:
        """A connection stands. Without the old session the packet ids mean nothing any more."""
        with self._lock:
            self._connected = True
            if not resumed:
                self._generation += 1
                self._open.clear()
                self._owed.clear()

    def lost(self) -> None:
        """The connection is gone; what is finished from now on is acknowledged when it comes again."""
        with self._lock:
            self._connected = False

    def arrived(self, mid: int, topic: str, payload: bytes, *, duplicate: bool) -> tuple[Arrival, Delivery]:
        """A message came in under packet id `mid`."""
        # a broker that reuses low packet ids may send a *new* message under an old id, with DUP because its first
        # try was lost on the way: the contents distinguish them
        fingerprint = zlib.crc32(payload, zlib.crc32(topic.encode()))
        with self._lock:
            for known, arrival in ((self._owed, Arrival.ACK_AGAIN), (self._open, Arrival.ALREADY_OPEN)):
                delivery = known.get(mid)
                if duplicate and delivery is not None and delivery.fingerprint == fingerprint:
                    return arrival, delivery
            self._owed.pop(mid, None)
            delivery = self._open[mid] = Delivery(mid, self._generation, fingerprint, is_repeat=duplicate)
            return Arrival.HAND_OVER, delivery

    def finished(self, delivery: Delivery) -> None:
        """The application is done with a message: acknowledge it now, or when the broker sends it again."""
        with self._lock:
            if delivery.generation != self._generation or self._open.get(delivery.packet_id) is not delivery:
                return  # of a session that the broker has forgotten, or acknowledged before
            del self._open[delivery.packet_id]
            # even a PUBACK that was handed to the socket may not arrive
            self._owed[delivery.packet_id] = delivery
            while len(self._owed) > REMEMBERED:
                self._owed.popitem(last=False)
            connected = self._connected
        if connected:
            self._send_ack(delivery.packet_id)
