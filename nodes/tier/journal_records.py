"""Records of a journal: a length, an XXH3 checksum and msgpack; reading ends at the first that is not whole."""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import xxhash

from pipeline.wire import Array

_DTYPE_CHARACTERS = 16
HEAD = struct.Struct("<IQ")
FRAME, DELIVERED, ANSWERED, POSITION = "frame", "delivered", "answered", "position"
DELIVERED_HEAD: bytes = b"\x95" + msgpack.packb(DELIVERED)
"""How a delivery's record begins: an array of five, its kind first."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A frame that was taken and not answered."""

    sequence: int
    source: str
    payload: bytes | Array


def whole_records(data: bytes) -> tuple[list[tuple[bytes, bytes]], int]:
    """The contents and bytes of all records up to the first that is damaged, and how many bytes those are."""
    found, at = [], 0
    while at + HEAD.size <= len(data):
        length, checksum = HEAD.unpack_from(data, at)
        end = at + HEAD.size + length
        body = data[at + HEAD.size : end]
        if len(body) < length or xxhash.xxh3_64_intdigest(body) != checksum:
            break
        found.append((body, data[at:end]))
        at = end
    return found, at


class Contents:
    """What the records of an earlier process come to; a record that is none changes nothing."""

    def __init__(self, entered: dict[int, bytes], answered: OrderedDict[int, bytes]) -> None:
        self.frames: dict[int, Unfinished] = {}
        self.deliveries: dict[int, tuple[str, tuple[int, int]]] = {}
        self.position = 0
        self.session = ""
        self._open, self._answered = entered, answered

    def take(self, body: bytes, raw: bytes) -> None:
        """One record more. Raises ValueError, TypeError, IndexError, KeyError, UnpackException."""
        kind, value, *rest = msgpack.unpackb(body)
        value = _number(value)
        _TAKES[kind](self, value, rest, raw)

    def _frame(self, sequence: int, rest: list[Any], raw: bytes) -> None:
        source, position, payload = rest
        self.frames[sequence] = Unfinished(sequence, str(source), _unpacked(payload))
        self.position = _number(position)
        self._open[sequence] = raw

    def _delivery(self, sequence: int, rest: list[Any], raw: bytes) -> None:
        session, packet, fingerprint = rest
        self.deliveries[sequence] = str(session), (_number(packet), _number(fingerprint))
        self.session = str(session)
        self._open[sequence] = raw

    def _close(self, sequence: int, rest: list[Any], raw: bytes) -> None:
        closed = self._open.pop(sequence, b"")
        if sequence in self.deliveries and closed:
            self._answered[sequence] = closed

    def _move(self, position: int, rest: list[Any], raw: bytes) -> None:
        self.position = position


_TAKES: dict[str, Callable[[Contents, int, list[Any], bytes], None]] = {
    FRAME: Contents._frame,
    DELIVERED: Contents._delivery,
    ANSWERED: Contents._close,
    POSITION: Contents._move,
}


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ValueError("a number that is none, or is not from 0 to 2^64")
    return value


def encoded(value: list[Any]) -> bytes:
    """Bytes of a record: its kind, a number, and what belongs to the kind."""
    body: bytes = msgpack.packb(value)
    return HEAD.pack(len(body), xxhash.xxh3_64_intdigest(body)) + body


def packed(payload: bytes | Array) -> Any:
    """A frame's contents as msgpack has them: bytes, or dtype, shape and bytes of an array."""
    return payload if isinstance(payload, bytes) else [payload.dtype.str, list(payload.shape), payload.tobytes()]


def _unpacked(value: Any) -> bytes | Array:
    if isinstance(value, bytes):
        return value
    dtype, shape, data = value
    found: Array = np.frombuffer(data, np.dtype(str(dtype)[:_DTYPE_CHARACTERS])).reshape(shape)
    return found
