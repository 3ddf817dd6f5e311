"""Redelivery: the open messages of a session that outlives its connections, across reconnects of one process.

Knows packet ids, no connection. When a session is resumed, the broker sends again, with the same packet id and the DUP
flag, what it has no PUBACK for. Such a message is either still being worked on here, and must not be handed over a
second time (a frame would be counted twice), or was finished while the line was down, and only its PUBACK is owed.
"""

from __future__ import annotations

import threading
import zlib
from array import array
from collections.abc import Callable
from enum import Enum
from typing import Final

from broker.messages import Delivery

REMEMBERED: Final = 4096
"""Finished messages. Receive Maximum should bound what is under way, but mosquitto 2.0 resumes with more. With
many more, a new photo would be taken for an equal one that came under its packet id long before.
"""


class _Owed:
    """The messages that were finished last, by packet id.

    In arrays: an object for each would lie among what comes and goes, and hold many times its memory.
    """

    def __init__(self) -> None:
        self._fingerprints, self._numbers = array("Q", bytes(8 << 16)), array("Q", bytes(8 << 16))
        self._count = 0

    def add(self, packet_id: int, fingerprint: int) -> None:
        """One is finished."""
        self._count += 1
        self._fingerprints[packet_id], self._numbers[packet_id] = fingerprint, self._count

    def holds(self, packet_id: int, fingerprint: int) -> bool:
        """True when it is among the last."""
        number = self._numbers[packet_id]
        return 0 < number > self._count - REMEMBERED and self._fingerprints[packet_id] == fingerprint

    def discard(self, packet_id: int) -> None:
        """Another message has come under this packet id."""
        self._numbers[packet_id] = 0


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
        self._owed = _Owed()
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
                self._owed = _Owed()

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
            delivery = Delivery(mid, self._generation, fingerprint, is_repeat=duplicate)
            if duplicate and self._owed.holds(mid, fingerprint):
                return Arrival.ACK_AGAIN, delivery
            known = self._open.get(mid)
            if duplicate and known is not None and known.fingerprint == fingerprint:
                return Arrival.ALREADY_OPEN, known
            self._owed.discard(mid)
            self._open[mid] = delivery
            return Arrival.HAND_OVER, delivery

    def finished(self, delivery: Delivery) -> None:
        """The application is done with a message: acknowledge it now, or when the broker sends it again."""
        with self._lock:
            if delivery.generation != self._generation or self._open.get(delivery.packet_id) is not delivery:
                return  # of a session that the broker has forgotten, or acknowledged before
            del self._open[delivery.packet_id]
            # even a PUBACK that was handed to the socket may not arrive
            self._owed.add(delivery.packet_id, delivery.fingerprint)
            connected = self._connected
        if connected:
            self._send_ack(delivery.packet_id)
