"""Messages changed a little: a value, a key, a byte. Shared by the machines' fuzz and the hostile client."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from typing import Any

import msgpack

NASTY: tuple[Any, ...] = (
    -1, 0, 1, 2, 1_000, 2**31, 2**53, 2**62, 2**64, 10**9, 10**12, 10**15, 10**400, -(10**400), True, False, None, 0.5,
    -0.0, 1e-300, 1e6, 1e9, 1e18, 1e300, 1e308, float("inf"), float("-inf"), float("nan"), "", "x/y z", "cam", "device",
    "edge", "cloud", "device-1", "edge-1", "worker-1", "evil", "+", "a/#", "\x1b[31m", "[red]", "\0", "\ud800",
    "x" * 5_000, "9" * 400, [], {}, [[]], [{}], [0] * 5_000, {"": {}}, {"a": 1},
)  # fmt: skip


class Mutations:
    """Changes by chance, the same for the same chance."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def mutated(self, payload: bytes) -> bytes:
        """A little of it changed: a value, a key, a byte."""
        if not payload or self.chance.random() < 0.1:
            return self._bytes_changed(payload)
        if payload[:1] == b"{":
            return self._json(json.loads(payload))
        unpacker = msgpack.Unpacker(strict_map_key=False)
        unpacker.feed(payload)
        unpacker.read_array_header()
        header = unpacker.unpack()
        data = payload[unpacker.tell() :]
        try:
            packed: bytes = msgpack.packb(self._changed(header))
        except (OverflowError, ValueError, UnicodeEncodeError):  # what msgpack has no room for cannot come as such
            return self._bytes_changed(payload)
        return b"\x92" + packed + data

    def _json(self, value: Any) -> bytes:
        return json.dumps(self._changed(value)).encode()

    def _changed(self, value: Any) -> Any:
        value = deepcopy(value)
        for _ in range(self.chance.choice((1, 1, 1, 2, 4))):
            places = list(_places(value))
            if not places:
                return value
            holder, key = self.chance.choice(places)
            how = self.chance.random()
            if how < 0.3 and isinstance(held := holder[key], int | float) and not isinstance(held, bool):
                holder[key] = self.chance.choice((held + 1, held - 1, 3 * held, held // 3, held + 1_000, 10**6 * held))
            elif how < 0.7:
                holder[key] = deepcopy(self.chance.choice(NASTY))
            elif how < 0.8:
                del holder[key]
            elif how < 0.9:
                other, at = self.chance.choice(places)
                if at in other if isinstance(other, dict) else at < len(other):
                    holder[key] = deepcopy(other[at])
            elif isinstance(holder, dict):
                holder[str(self.chance.choice(NASTY))[:300]] = holder[key]
            else:
                holder.append(holder[key])
        return value

    def _bytes_changed(self, payload: bytes) -> bytes:
        if not payload:
            return self.chance.randbytes(8)
        at = self.chance.randrange(len(payload))
        how = self.chance.random()
        if how < 0.4:
            return payload[:at] + self.chance.randbytes(1) + payload[at + 1 :]
        if how < 0.7:
            return payload[:at]
        return payload[:at] + self.chance.randbytes(self.chance.randrange(1, 9)) + payload[at:]


def _places(value: Any) -> Any:
    """All that could be changed in plain values, as (holder, key or index)."""
    waiting = [value]
    while waiting:
        held = waiting.pop()
        items = list(held.items()) if isinstance(held, dict) else list(enumerate(held))
        for key, part in items:
            yield held, key
            if isinstance(part, dict | list):
                waiting.append(part)
