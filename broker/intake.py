"""Which messages with manual acknowledgement are open, across reconnects of one process.

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


class Arrival(Enum):
    """What to do with a message that has arrived."""

    HAND_OVER = "hand over"
    ALREADY_OPEN = "already open"
    ACK_AGAIN = "ack again"


class Ticket:
    """One open message. `generation` counts sessions of the broker: a packet id means something only within one."""

    __slots__ = ("fingerprint", "generation", "mid")

    def __init__(self, mid: int, generation: int, fingerprint: int) -> None:
        self.mid = mid
        self.generation = generation
        self.fingerprint = fingerprint


class Intake:
    """Thread safe. `send_ack(mid)` is called when a PUBACK may go out."""

    def __init__(self, send_ack: Callable[[int], None], *, receive_maximum: int) -> None:
        self._send_ack = send_ack
        self._receive_maximum = receive_maximum
        self._generation = 0
        self._open: dict[int, Ticket] = {}
        self._owed: OrderedDict[int, Ticket] = OrderedDict()
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

    def arrived(self, mid: int, topic: str, payload: bytes, *, duplicate: bool) -> tuple[Arrival, Ticket]:
        """A message came in under packet id `mid`."""
        # a broker that reuses low packet ids may send a *new* message under an old id, with DUP because its first
        # try was lost on the way: the contents tell
        fingerprint = zlib.crc32(payload, zlib.crc32(topic.encode()))
        with self._lock:
            for known, arrival in ((self._owed, Arrival.ACK_AGAIN), (self._open, Arrival.ALREADY_OPEN)):
                ticket = known.get(mid)
                if duplicate and ticket is not None and ticket.fingerprint == fingerprint:
                    return arrival, ticket
            self._owed.pop(mid, None)
            ticket = self._open[mid] = Ticket(mid, self._generation, fingerprint)
            return Arrival.HAND_OVER, ticket

    def finished(self, ticket: Ticket) -> None:
        """The application is done with a message: acknowledge it now, or when the broker sends it again."""
        with self._lock:
            if ticket.generation != self._generation or self._open.get(ticket.mid) is not ticket:
                return  # of a session that the broker has forgotten, or acknowledged before
            del self._open[ticket.mid]
            # even a PUBACK that was handed to the socket may not arrive; more than Receive Maximum cannot be under way
            self._owed[ticket.mid] = ticket
            while len(self._owed) > self._receive_maximum:
                self._owed.popitem(last=False)
            connected = self._connected
        if connected:
            self._send_ack(ticket.mid)
