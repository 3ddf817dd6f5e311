"""The types of MQTT 5's fields (section 1.5 of the standard), read and written."""

from __future__ import annotations

from typing import Final

from broker.errors import ProtocolViolation

MOST_VARINT: Final = 268_435_455
MOST_TWO_BYTES: Final = 65_535
MALFORMED: Final = 0x81
MORE: Final = 0x80
"""A byte of a Variable Byte Integer at or above this is followed by another."""
PROTOCOL_ERROR: Final = 0x82
PACKET_TOO_LARGE: Final = 0x95


def malformed(what: str) -> ProtocolViolation:
    """The error for bytes that are no MQTT 5 packet."""
    return ProtocolViolation(what, code=MALFORMED)


def varint(value: int) -> bytes:
    """A Variable Byte Integer of 1 to 4 bytes. Raises ValueError outside 0 to 268,435,455."""
    if not 0 <= value <= MOST_VARINT:
        raise ValueError(f"{value:_} is no Variable Byte Integer; MQTT has room for 0 to {MOST_VARINT:_}")
    written = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        written.append(low | MORE if value else low)
        if not value:
            return bytes(written)


def two_bytes(value: int) -> bytes:
    """A Two Byte Integer."""
    return value.to_bytes(2, "big")


def binary(value: bytes) -> bytes:
    """Binary Data with its length. Raises ValueError above 65,535 bytes."""
    if len(value) > MOST_TWO_BYTES:
        raise ValueError(f"a field of {len(value):_} bytes; MQTT has room for {MOST_TWO_BYTES:_}")
    return len(value).to_bytes(2, "big") + value


def text(value: str) -> bytes:
    """A UTF-8 string with its length. Raises ValueError where it is too long or no UTF-8."""
    return binary(value.encode())


class Cursor:
    """Reads fields one after the other from `begin` up to `end`. Each method raises ProtocolViolation."""

    __slots__ = ("_data", "_end", "at")

    def __init__(self, data: memoryview, begin: int, end: int) -> None:
        self._data, self.at, self._end = data, begin, end

    @property
    def is_at_end(self) -> bool:
        """Nothing is left."""
        return self.at >= self._end

    def raw(self, nbytes: int) -> memoryview:
        """The next `nbytes`, not copied."""
        begin, self.at = self.at, self.at + nbytes
        if self.at > self._end:
            raise malformed(f"a field of {nbytes} bytes in a packet with {max(0, self._end - begin)} left")
        return self._data[begin : self.at]

    def integer(self, nbytes: int) -> int:
        """An integer of 1, 2 or 4 bytes."""
        return int.from_bytes(self.raw(nbytes), "big")

    def varint(self) -> int:
        """A Variable Byte Integer."""
        if self.at < self._end and (byte := self._data[self.at]) < MORE:  # nearly all have one byte
            self.at += 1
            return byte
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.integer(1)
            value |= (byte & 0x7F) << shift
            if byte < MORE:
                return value
        raise malformed("a Variable Byte Integer of more than 4 bytes")

    def binary(self) -> bytes:
        """Binary Data."""
        return bytes(self.raw(self.integer(2)))

    def text(self) -> str:
        """A UTF-8 string."""
        try:
            value = str(self.raw(self.integer(2)), "utf-8")
        except UnicodeDecodeError:
            raise malformed("a text that is no UTF-8") from None
        if "\0" in value:
            raise malformed("a text with U+0000")
        return value

    def sub(self, nbytes: int) -> Cursor:
        """A cursor over the next `nbytes`, which this one passes over."""
        begin = self.at
        self.raw(nbytes)
        return Cursor(self._data, begin, self.at)
