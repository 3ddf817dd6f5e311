"""A broker's packets, written by the standard's text and not by the code under test; and a reader fed in pieces."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from broker.mqtt.packets import Packet
from broker.mqtt.reader import Placement, Reader

CONNACK, PUBACK, SUBACK, UNSUBACK, DISCONNECT = 0x20, 0x40, 0x90, 0xB0, 0xE0
PINGRESP = b"\xd0\x00"


def length(value: int) -> bytes:
    """Section 1.5.5, as its pseudo-code has it."""
    written = b""
    while True:
        byte, value = value % 128, value // 128
        written += bytes([byte | 128 if value else byte])
        if not value:
            return written


def string(text: str | bytes) -> bytes:
    """Section 1.5.4 or 1.5.6."""
    data = text.encode() if isinstance(text, str) else text
    return len(data).to_bytes(2, "big") + data


def framed(first: int, body: bytes) -> bytes:
    """A packet of that first byte."""
    return bytes([first]) + length(len(body)) + body


def listed(properties: bytes) -> bytes:
    """Properties behind their length."""
    return length(len(properties)) + properties


def message(
    topic: str, payload: bytes, *, packet_id: int = 0, first: int | None = None, properties: bytes = b""
) -> bytes:
    """A PUBLISH, with QoS 1 if it has a packet id."""
    first = (0x32 if packet_id else 0x30) if first is None else first
    number = packet_id.to_bytes(2, "big") if first & 6 else b""
    return framed(first, string(topic) + number + listed(properties) + payload)


class Placer:
    """Puts every other large payload into memory of its own, all but its first 100 bytes."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, head: object, first: memoryview) -> Placement | None:
        self.asked += 1
        if self.asked % 2:
            return None
        memory = bytearray(head.nbytes - 100)  # type: ignore[attr-defined]
        return Placement(kept=100, into=memoryview(memory), token=memory)


def whole(payload: bytes, placed: object) -> bytes:
    """A payload with what was placed of it."""
    return payload + (bytes(placed) if isinstance(placed, bytearray) else b"")


def in_pieces(stream: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    """The stream cut at these sizes."""
    begin = 0
    while begin < len(stream):
        size = max(1, next(sizes))
        yield stream[begin : begin + size]
        begin += size


def feed(reader: Reader, pieces: Sequence[bytes] | Iterator[bytes]) -> Iterator[Packet]:
    """What comes out of the reader; a piece larger than its buffer is written in several goes, as by a socket."""
    for piece in pieces:
        done = 0
        while done < len(piece):
            buffer = reader.buffer()
            nbytes = min(len(buffer), len(piece) - done)
            buffer[:nbytes] = piece[done : done + nbytes]
            done += nbytes
            yield from reader.received(nbytes)


def any_sizes(chance: random.Random, most: int = 50_000) -> Iterator[int]:
    """Small and large ones."""
    while True:
        yield chance.choice((1, 2, 3, 7, chance.randrange(1, most), most))
