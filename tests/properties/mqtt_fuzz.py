"""Streams of a broker's packets, cut anywhere and mutated: what comes out is packets or a ProtocolViolation."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace

from broker.errors import ProtocolViolation
from broker.mqtt.packets import Packet, Publish
from broker.mqtt.reader import SMALL_BYTES, Reader
from tests.mqtt_bytes import (
    CONNACK,
    DISCONNECT,
    PINGRESP,
    PUBACK,
    SUBACK,
    UNSUBACK,
    Placer,
    any_sizes,
    feed,
    framed,
    in_pieces,
    listed,
    message,
    string,
    whole,
)

MOST_PACKET_BYTES = 1 << 20
_CODES = (0x00, 0x01, 0x10, 0x80, 0x86, 0x8E, 0x97)


@dataclass(slots=True)
class CodecFuzz:
    """The same streams for the same seed. `deaths` are other errors than ProtocolViolation."""

    seed: int
    chance: random.Random = field(init=False)
    packets: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    examples: dict[str, bytes] = field(default_factory=dict)
    streams: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def run(self, streams: int) -> None:
        """Give so many mutated streams to new readers."""
        for _ in range(streams):
            stream = self.mutated(b"".join(self.packet() for _ in range(self.chance.randrange(1, 6))))
            self.streams += 1
            try:
                for packet in feed(self.reader(), in_pieces(stream, any_sizes(self.chance))):
                    self.packets[type(packet).__name__] += 1
            except ProtocolViolation as error:
                self.refused[error.what.split(" of ")[0][:40]] += 1
            except Exception as error:
                name = f"{type(error).__name__}: {error}"
                self.deaths[name] += 1
                self.examples.setdefault(name, stream)

    def reader(self) -> Reader:
        """A new one; what it would allocate is bounded."""
        return Reader(Placer(), most_bytes=MOST_PACKET_BYTES)

    def packet(self) -> bytes:
        """Any packet of a broker."""
        chance = self.chance
        number = chance.randrange(1, 65_536).to_bytes(2, "big")
        code = bytes([chance.choice(_CODES)])
        reason = listed(chance.choice((b"", b"\x1f" + string("why"), b"\x26" + string("a") + string("b"))))
        kind = chance.randrange(8)
        if kind == 0:
            limits = chance.choice((b"", b"\x21\0\x14", b"\x27\0\x10\0\0", b"\x13\0\x3c\x24\1\x25\1\x2a\0"))
            return framed(CONNACK, b"\0" + code + listed(limits))
        if kind == 1:
            return framed(PUBACK, number + chance.choice((b"", code, code + reason)))
        if kind == 2:
            return framed(chance.choice((SUBACK, UNSUBACK)), number + reason + code * chance.randrange(1, 4))
        if kind == 3:
            return chance.choice((PINGRESP, framed(DISCONNECT, chance.choice((b"", code, code + reason)))))
        return self.publish()

    def publish(self) -> bytes:
        """A message, small or large."""
        chance = self.chance
        size = chance.choice((0, 1, 50, 5000, SMALL_BYTES - 1, SMALL_BYTES, 40_000, 100_000))
        properties = b"".join(
            chance.sample(
                (b"\2\0\0\0\x1e", b"\x08" + string("reply"), b"\x09" + string(b"\0\1"), b"\x0b\5", b"\x0b\xac\2"),
                chance.randrange(4),
            )
        )
        qos_1 = chance.random() < 0.7
        first = chance.choice((0x32, 0x33, 0x3A)) if qos_1 else chance.choice((0x30, 0x31))
        return message(
            chance.choice(("t", "node/edge-1/out/cam/3/17", "ä/ö")),
            chance.randbytes(16) * (size // 16) + bytes(size % 16),
            packet_id=chance.randrange(1, 65_536) if qos_1 else 0,
            first=first,
            properties=properties,
        )

    def mutated(self, stream: bytes) -> bytes:
        """Changed in a few places, most of them near headers."""
        data, chance = bytearray(stream), self.chance
        for _ in range(chance.randrange(4)):
            at = min(int(chance.expovariate(1 / 20)), len(data) - 1) if chance.random() < 0.7 else 0
            at = at or chance.randrange(len(data))
            what = chance.randrange(4)
            if what == 0:
                data[at] ^= 1 << chance.randrange(8)
            elif what == 1:
                data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            elif what == 2:
                del data[at : at + chance.randrange(1, 9)]
            else:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
            if not data:
                return b"\0"
        return bytes(data)


def contents(packets: list[Packet]) -> list[object]:
    """Packets to compare, whatever became of their payloads."""
    return [
        replace(each, payload=whole(each.payload, each.placed), placed=None) if isinstance(each, Publish) else each
        for each in packets
    ]
