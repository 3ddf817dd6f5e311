"""Law 4 for tensors: what was encoded comes back, chunk by chunk in any order; any other bytes are a WireError."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import reassembly, wire
from pipeline.codecs import CODECS
from pipeline.errors import WireError
from pipeline.graph import DTYPES, Tensor
from pipeline.reassembly import Assembler
from pipeline.wire import Array, Chunk, Failed, FrameKey, Hop, Received, decode_chunk, encode, encode_failure
from tests.effort import examples
from tests.unit.pipeline.test_graph import values

laws = settings(max_examples=examples(60))
counts = st.integers(0, 10_000)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ids = st.from_regex(r"[a-z0-9-]{1,8}", fullmatch=True)
seconds, timestamps = st.floats(0, 1e6), st.floats(0, 1e11)
hops = st.builds(Hop, ids, text, timestamps, seconds, seconds, seconds, seconds, timestamps)
traces = st.lists(hops, max_size=wire.MAX_HOPS).map(tuple)
sequences = st.integers(0, 10**15)
low_and_high = st.tuples(sequences, sequences).map(sorted)
keys = st.builds(
    lambda stream, epoch, of, attempt: FrameKey(stream, epoch, of[1], attempt, of[0]),
    ids,
    st.integers(0, 10**12),
    low_and_high,
    st.integers(0, 10**12),
)


@st.composite
def arrays(draw: st.DrawFn, most: int = 5) -> Array:
    """Any tensor of a model, of any bits: NaNs with their payloads and negative zeros among them."""
    dtype = np.dtype(draw(st.sampled_from(sorted(DTYPES))))
    shape = (1, *draw(st.lists(st.integers(0, most), max_size=3 if most <= 5 else 2)))
    nbytes = int(np.prod(shape)) * dtype.itemsize
    data = draw(st.binary(min_size=nbytes, max_size=nbytes))
    if dtype == np.bool_:
        data = bytes(byte & 1 for byte in data)
    return np.frombuffer(data, dtype).reshape(shape)


@laws
# a reader takes at most 1024 chunks of what is small
@given(arrays(most=40), st.sampled_from(sorted(CODECS)), st.integers(16, 400))
def test_a_coded_tensor_comes_back_bit_by_bit(array: Array, codec: str, chunk_bytes: int) -> None:
    sent = encode(KEY, 5, array, codec=codec, chunk_bytes=chunk_bytes)
    assert sent.nbytes <= array.nbytes
    assembler = expecting(array)
    received = [assembler.add("edge-1", chunk) for chunk in sent][-1]
    assert isinstance(received, Received)
    assert same_bits(received.array, array)


def expecting(array: Array) -> Assembler:
    tensor = Tensor(0, "x", array.shape, array.dtype.name)
    return Assembler(lambda key, number: tensor)


def same_bits(one: Array, other: Array) -> bool:
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


@laws
@given(keys, counts, arrays(), traces, st.integers(1, 200), st.data())
def test_a_tensor_comes_back_bit_by_bit_from_chunks_of_any_size_in_any_order_and_repeated(
    key: FrameKey, tensor: int, array: Array, trace: tuple[Hop, ...], chunk_bytes: int, data: st.DataObject
) -> None:
    chunks = list(encode(key, tensor, array, trace=trace, chunk_bytes=chunk_bytes))
    assert len(chunks) == max(1, -(-array.nbytes // chunk_bytes))
    order = data.draw(st.permutations(range(len(chunks))))
    *early, last = order
    repeated = early + data.draw(st.lists(st.sampled_from(early), max_size=4) if early else st.just([]))
    assembler = expecting(array)
    assert [assembler.add("edge-1", chunks[index]) for index in repeated] == [None] * len(repeated)
    assert assembler.pending_bytes == (array.nbytes if early else 0)
    received = assembler.add("edge-1", chunks[last])
    assert isinstance(received, Received)
    assert assembler.pending_bytes == 0
    assert same_bits(received.array, array)
    assert (received.key, received.tensor) == (key, tensor)
    assert received.decode_seconds > 0
    unencoded = [dataclasses.replace(hop, encode_seconds=0.0) for hop in received.trace[-1:]]
    assert received.trace[:-1] == trace[:-1]
    assert unencoded == [dataclasses.replace(hop, encode_seconds=0.0) for hop in trace[-1:]]


@laws
@given(keys, text.filter(bool), traces)
def test_a_failure_comes_back_in_place_of_an_output(key: FrameKey, message: str, trace: tuple[Hop, ...]) -> None:
    got = Assembler(lambda key, number: None).add("edge-1", encode_failure(key, message, trace))
    assert isinstance(got, Failed)
    assert (got.key, got.message, got.trace[:-1]) == (key, message, trace[:-1])


def reads_or_refuses(payload: bytes) -> None:
    try:
        chunk = decode_chunk(payload)
    except WireError:
        return
    assert isinstance(chunk, Chunk)
    assert chunk.offset + len(chunk.data) <= chunk.nbytes
    assert len(chunk.data) <= len(payload)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_chunk_or_a_wire_error(payload: bytes) -> None:
    reads_or_refuses(payload)


@given(values, st.binary(max_size=20))
def test_any_msgpack_is_a_chunk_or_a_wire_error(value: Any, data: bytes) -> None:
    try:
        payload = msgpack.packb([value, data])
    except (OverflowError, ValueError):
        return
    reads_or_refuses(payload)
    reads_or_refuses(msgpack.packb(value))


KEY = FrameKey("cam", 3, 17, 1, 15)
ARRAY = np.arange(12, dtype=np.float32).reshape(1, 12)
TRACE = (Hop("device-1", "device", 1.0),)
CHUNKS = list(encode(KEY, 5, ARRAY, trace=TRACE, chunk_bytes=20))
chunk = st.sampled_from(CHUNKS)


@laws
@given(chunk, st.data())
def test_a_chunk_cut_short_or_grown_is_a_wire_error(payload: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(payload) - 1))
    for wrong in (payload[:cut], payload + payload[:cut] + b"\0"):
        with pytest.raises(WireError):
            decode_chunk(wrong)


within_msgpack = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    text,
    st.binary(max_size=8),
    st.lists(st.integers(-(2**63), 2**64 - 1) | text | st.lists(st.floats() | text, max_size=9), max_size=20),
    st.dictionaries(text, st.integers(-5, 5), max_size=3),
)


@laws
@given(chunk, st.data())
def test_a_chunk_with_another_header_allocates_only_what_is_expected(payload: bytes, data: st.DataObject) -> None:
    header, part = msgpack.unpackb(payload)
    for _ in range(data.draw(st.integers(1, 3))):
        header[data.draw(st.sampled_from([*sorted(header), "error", "trace", "new"]))] = data.draw(within_msgpack)
    allocates_only_what_is_expected(msgpack.packb([header, part]))


@laws
@given(chunk, st.data())
def test_a_chunk_with_flipped_bits_allocates_only_what_is_expected(payload: bytes, data: st.DataObject) -> None:
    flipped = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 4))):
        flipped[data.draw(st.integers(0, len(payload) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    allocates_only_what_is_expected(bytes(flipped))


def allocates_only_what_is_expected(payload: bytes) -> None:
    """Whatever the bytes claim: a message or a WireError, and at most one array, of the expected size."""
    assembler = expecting(ARRAY)
    with mock.patch.object(np, "empty", wraps=np.empty) as empty:
        try:
            assembler.add("edge-1", payload)
        except WireError:
            pass
    assert empty.call_args_list in ([], [mock.call(ARRAY.nbytes + reassembly.ALIGNMENT, np.uint8)])
    assert assembler.pending_bytes in (0, ARRAY.nbytes)


@laws
@given(st.lists(st.tuples(st.integers(0, 3), chunk, st.integers(1, 40), st.integers(1, 40)), max_size=30))
def test_an_assembler_holds_no_more_than_its_limit_and_counts_right(
    adds: list[tuple[int, bytes, int, int]],
) -> None:
    """Chunks of many frames, some repeated, with a low-water mark that moves: the books stay right."""
    tensor = Tensor(5, "x", ARRAY.shape, "float32")
    assembler = Assembler(lambda key, number: tensor, limit_bytes=3 * ARRAY.nbytes)
    for attempt, payload, sequence, oldest_open in adds:
        header, part = msgpack.unpackb(payload)
        header |= {"sequence": sequence, "attempt": attempt, "oldest_open": min(sequence, oldest_open)}
        assembler.add("edge-1", msgpack.packb([header, part]))
        assert assembler.pending_bytes == ARRAY.nbytes * len(assembler._partial)
        assert assembler.pending_bytes <= 3 * ARRAY.nbytes
    assembler.clear()
    assert assembler.pending_bytes == 0
