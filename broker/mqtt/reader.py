"""A stream of bytes, in pieces of any size, becomes packets; large payloads go where they are wanted.

The owner asks for `buffer()`, fills its beginning and says how much with `received(nbytes)`. Headers and small packets
pass through a buffer of this reader's own; the rest of a large payload is asked for straight into its place, so that it
is never copied. What the peer claims is bounded before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from broker.errors import ProtocolViolation
from broker.mqtt.fields import MALFORMED, MOST_VARINT, PACKET_TOO_LARGE
from broker.mqtt.packets import Packet, Publish
from broker.mqtt.parse import FOR_CLIENTS, Frame, fixed_header, head_bytes, packet, publish
from broker.mqtt.properties import Kind

SCRATCH_BYTES: Final = 1 << 15
SMALL_BYTES: Final = 1 << 14
"""A payload below this is copied out of the scratch buffer; nobody is asked where to put it."""
FIRST_BYTES: Final = 1 << 12
"""Bytes of a large payload that are there when it is asked where the payload shall go."""
MOST_HEAD_BYTES: Final = 1 << 18
"""Of a packet without its payload: topic, response topic and correlation data of 64 KiB each have room."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a payload goes: its first `kept` bytes (of those shown) stay with the packet, the rest goes `into`.

    `into` has exactly as many bytes as are left, or is None to drop them. `token` comes back as the packet's `placed`.
    """

    kept: int
    into: memoryview | None
    token: object


Place: TypeAlias = Callable[[Publish, memoryview], Placement | None]
"""(head, the payload's first bytes) -> placement; None keeps the payload whole."""


@dataclass(slots=True)
class _Body:
    head: Publish
    kept: bytes
    into: memoryview | None
    token: object
    left: int
    whole: bytearray | None = None

    def finished(self) -> Publish:
        self.head.payload = self.kept if self.whole is None else bytes(self.whole)
        self.head.placed = self.token
        return self.head


class Reader:
    """Bytes in, packets out: PUBLISH and those of `kinds`. After a ProtocolViolation it is of no more use.

    `most_bytes` bounds a packet, and may change.
    """

    def __init__(
        self,
        place: Place = lambda head, first: None,
        *,
        most_bytes: int = MOST_VARINT,
        kinds: frozenset[Kind] = FOR_CLIENTS,
    ) -> None:
        self._place, self._kinds = place, kinds
        self.most_bytes = most_bytes
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._filled = 0
        self._body: _Body | None = None

    @property
    def is_idle(self) -> bool:
        """Nothing of an unfinished packet has come."""
        return self._body is None and self._filled == 0

    def buffer(self) -> memoryview:
        """Where the next bytes go; never empty."""
        body = self._body
        if body is None:
            return self._scratch[self._filled :]
        if body.into is None:
            return self._scratch[: min(body.left, len(self._scratch))]
        return body.into[-body.left :]

    def received(self, nbytes: int) -> list[Packet]:
        """Take what has been written to the beginning of `buffer()`. Raises ProtocolViolation."""
        if self._body is None:
            self._filled += nbytes
            return self._parse()
        self._body.left -= nbytes
        if self._body.left:
            return []
        finished, self._body = self._body.finished(), None
        return [finished]

    def _parse(self) -> list[Packet]:
        packets: list[Packet] = []
        begin = 0
        while self._body is None:
            frame = fixed_header(self._scratch, begin, self._filled, self._kinds)
            if frame is None:
                break
            if frame.end - begin > self.most_bytes:
                raise _too_large(frame.end - begin, self.most_bytes)
            if frame.kind is Kind.PUBLISH:
                taken = self._publish(begin, frame, packets)
            else:
                taken = self._other(begin, frame, packets)
            if taken is None:
                break
            begin = taken
        left = self._filled - begin
        if begin and left:
            self._scratch[:left] = bytes(self._scratch[begin : self._filled])
        self._filled = left
        return packets

    def _other(self, begin: int, frame: Frame, packets: list[Packet]) -> int | None:
        """Read a packet without a payload. Returns where the next one begins, None if more bytes are needed."""
        if not self._has(begin, frame.end):
            return None
        packets.append(packet(self._scratch, frame))
        return frame.end

    def _publish(self, begin: int, frame: Frame, packets: list[Packet]) -> int | None:
        head_end = frame.begin + head_bytes(self._scratch, frame, self._filled)
        if head_end > frame.end:
            raise ProtocolViolation("a PUBLISH that ends within its head", code=MALFORMED)
        if not self._has(begin, head_end):
            return None
        nbytes = frame.end - head_end
        if nbytes < SMALL_BYTES:
            if not self._has(begin, frame.end, MOST_HEAD_BYTES + SMALL_BYTES):
                return None
            message = publish(self._scratch, frame, head_end)
            message.payload = bytes(self._scratch[head_end : frame.end])
            packets.append(message)
            return frame.end
        if not self._has(begin, head_end + FIRST_BYTES, MOST_HEAD_BYTES + SMALL_BYTES):
            return None
        have = min(self._filled, frame.end) - head_end
        first = self._scratch[head_end : head_end + have]
        body = self._begun(publish(self._scratch, frame, head_end), first.toreadonly())
        if body.left:
            self._body = body
        else:
            packets.append(body.finished())
        return head_end + have

    def _begun(self, head: Publish, first: memoryview) -> _Body:
        placement, left = self._place(head, first), head.nbytes - len(first)
        if placement is None:
            whole = bytearray(head.nbytes)
            whole[: len(first)] = first
            return _Body(head, b"", memoryview(whole), None, left, whole)
        into, kept = placement.into, placement.kept
        if not 0 <= kept <= len(first) or (into is not None and len(into) != head.nbytes - kept):
            raise ValueError(f"{kept} bytes kept and {into and len(into)} placed of a payload of {head.nbytes}")
        if into is not None:
            into[: len(first) - kept] = first[kept:]
        return _Body(head, bytes(first[:kept]), into, placement.token, left)

    def _has(self, begin: int, end: int, most: int = MOST_HEAD_BYTES) -> bool:
        """True when all up to `end` has come; if not, make room for it. Raises ProtocolViolation for too much."""
        if end <= self._filled:
            return True
        needed = end - begin
        if needed > most:
            raise _too_large(needed, most)
        if end > len(self._scratch) and needed > len(self._scratch):
            grown = memoryview(bytearray(max(needed, 2 * len(self._scratch))))
            grown[: self._filled] = self._scratch[: self._filled]
            self._scratch = grown
        return False


def _too_large(nbytes: int, most: int) -> ProtocolViolation:
    return ProtocolViolation(f"a packet of {nbytes:_} bytes, of which {most:_} have room", code=PACKET_TOO_LARGE)
