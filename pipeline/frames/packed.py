"""Arrays in msgpack maps, read field by field: nothing is made of what a map does not need, however it is nested."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgpack

MAX_FIELDS = 64
MAX_RANK = 32
_MAX_KEY_BYTES = 256
_MAX_DTYPE_BYTES = 16
_STRINGS = frozenset({*range(0xA0, 0xC0), 0xD9, 0xDA})
_BINARY = frozenset({0xC4, 0xC5, 0xC6})
_INTEGERS = frozenset({*range(0x80), *range(0xCC, 0xD0), *range(0xD0, 0xD4), *range(0xE0, 0x100)})
_TRUTHS = frozenset({0xC2, 0xC3})


def fields(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """Each key of the map that `payload` is, and the bytes of its value. Raises ValueError."""
    unpacker = _over(payload)
    count = unpacker.read_map_header()
    if count > MAX_FIELDS:
        raise ValueError(f"a map of {count:,} keys, more than the {MAX_FIELDS} allowed")
    for _ in range(count):
        _expect(payload, unpacker.tell(), _STRINGS, "a key that is no short text")
        began = unpacker.tell()
        unpacker.skip()
        if unpacker.tell() - began > _MAX_KEY_BYTES:
            raise ValueError(f"a key of {unpacker.tell() - began:,} bytes, more than the {_MAX_KEY_BYTES} allowed")
        key = str(msgpack.unpackb(payload[began : unpacker.tell()], raw=False))
        began = unpacker.tell()
        unpacker.skip()
        yield key, payload[began : unpacker.tell()]
    if unpacker.tell() != len(payload):
        raise ValueError(f"{len(payload) - unpacker.tell():,} bytes after the map")


def array(payload: bytes) -> tuple[str, tuple[int | bool, ...], bytes]:
    """Dtype, shape and data of a map of these. Raises ValueError, and KeyError for one that is missing."""
    found = dict(fields(payload))
    dtype, shape, data = found["dtype"], found["shape"], found["data"]
    if len(dtype) > _MAX_DTYPE_BYTES:
        raise ValueError(f"a dtype of {len(dtype):,} bytes")
    _expect(dtype, 0, _STRINGS, "a dtype that is no text")
    _expect(data, 0, _BINARY, "data that are no bytes")
    return str(msgpack.unpackb(dtype, raw=False)), tuple(_shape(shape)), bytes(msgpack.unpackb(data))


def _shape(payload: bytes) -> Sequence[int | bool]:
    unpacker = _over(payload)
    rank = unpacker.read_array_header()
    if rank > MAX_RANK:
        raise ValueError(f"a shape of {rank:,} sizes, more than the {MAX_RANK} allowed")
    made = []
    for _ in range(rank):
        _expect(payload, unpacker.tell(), _INTEGERS | _TRUTHS, "a size that is no integer")
        made.append(unpacker.unpack())
    return made


def _over(payload: bytes) -> msgpack.Unpacker:
    unpacker = msgpack.Unpacker(raw=False, max_buffer_size=max(len(payload), 1))
    unpacker.feed(payload)
    return unpacker


def _expect(payload: bytes, at: int, kinds: frozenset[int], otherwise: str) -> None:
    if at >= len(payload) or payload[at] not in kinds:
        raise ValueError(otherwise)
