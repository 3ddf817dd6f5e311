"""Chunks of the wire format: what comes through unchanged, and what is refused, in which words."""

from __future__ import annotations

import dataclasses

import msgpack
import numpy as np
import pytest

from pipeline.errors import WireError
from pipeline.graph import Tensor
from pipeline.protocol_version import PROTOCOL_VERSION
from pipeline.reassembly import ALIGNMENT
from pipeline.wire import (
    HEADER_LIMIT_BYTES,
    LEAST_CHUNK_BYTES,
    MAX_HOPS,
    Array,
    Failed,
    Hop,
    Received,
    decode_chunk,
    encode,
    encode_failure,
)
from tests.wire_chunks import ARRAY, KEY, MAP, SPARSE, assembler, chunks, with_header

# Arrays of all kinds.


@pytest.mark.parametrize("shape", [(), (0,), (1, 0, 3), (1,), (1, 2, 3, 4)])
def test_a_tensor_of_any_rank_keeps_its_shape(shape: tuple[int, ...]) -> None:
    array = np.ones(shape, np.float64)
    into = assembler(Tensor(5, "x", shape, "float64"))
    received = [into.add("edge-1", chunk) for chunk in encode(KEY, 5, array)][-1]
    assert isinstance(received, Received)
    assert received.array.shape == shape
    assert np.array_equal(received.array, array)


def test_an_array_that_is_not_contiguous_comes_back_as_it_reads() -> None:
    array = np.arange(24, dtype=np.float32).reshape(1, 24)[:, ::-2]
    into = assembler()
    received = [into.add("edge-1", chunk) for chunk in chunks(array=array)][-1]
    assert isinstance(received, Received)
    assert np.array_equal(received.array, array)


def test_an_array_of_the_other_byte_order_keeps_its_values() -> None:
    array = ARRAY.astype(ARRAY.dtype.newbyteorder())
    into = assembler()
    received = [into.add("edge-1", chunk) for chunk in chunks(array=array)][-1]
    assert isinstance(received, Received)
    assert np.array_equal(received.array, ARRAY)


@pytest.mark.parametrize(
    "array",
    [np.array([b"pickle me"], dtype=object), np.array(["text"]), np.zeros(2, "M8[s]"), np.zeros(2, [("a", "i4")])],
)
def test_an_array_of_no_tensors_dtype_never_becomes_bytes_that_a_peer_takes(array: Array) -> None:
    into = assembler(Tensor(5, "x", array.shape, "float32"))
    with pytest.raises((WireError, TypeError, ValueError)):
        [into.add("edge-1", chunk) for chunk in encode(KEY, 5, array)]


# Refusals, with their numbers.


def test_a_tensor_that_no_plan_asks_for_is_refused() -> None:
    with pytest.raises(WireError, match="unexpected tensor 5 of stream 'cam', epoch 3: no plan"):
        assembler(None).add("edge-1", chunks()[0])


@pytest.mark.parametrize(
    "array", [ARRAY.astype(np.float64), ARRAY.reshape(1, 3, 4), ARRAY[:, :11], ARRAY.view(np.int32)]
)
def test_a_tensor_of_another_shape_or_dtype_is_refused_with_both(array: Array) -> None:
    into = assembler()
    said = rf"tensor 5 \(conv1\): {array.dtype}\[.*\] of {array.nbytes} bytes, expected float32\[1, 12\] of 48"
    with pytest.raises(WireError, match=said):
        into.add("edge-1", chunks(array=array)[0])
    assert into.pending_bytes == 0


def test_another_protocol_version_is_refused_with_both_numbers() -> None:
    said = (
        f"a tensor of protocol version {PROTOCOL_VERSION + 1}, this trisect speaks {PROTOCOL_VERSION}; run one version"
    )
    with pytest.raises(WireError, match=said):
        decode_chunk(with_header(chunks()[0], v=PROTOCOL_VERSION + 1))


def test_flipped_data_is_found_by_the_checksum_and_forgotten() -> None:
    into = assembler()
    *early, last = chunks()
    for chunk in early:
        into.add("edge-1", chunk)
    with pytest.raises(WireError, match=r"tensor 5 of frame 17: checksum [0-9a-f]{16}, its sender had [0-9a-f]{16}"):
        into.add("edge-1", last[:-1] + bytes([last[-1] ^ 1]))
    assert into.pending_bytes == 0


def test_chunks_of_two_tensors_under_one_name_are_refused_and_forgotten() -> None:
    into = assembler()
    into.add("edge-1", chunks()[0])
    with pytest.raises(WireError, match="tensor 5 of frame 17: chunks of two different tensors"):
        into.add("edge-1", chunks(array=ARRAY + 1)[1])
    assert into.pending_bytes == 0


def test_a_chunk_beyond_its_tensor_is_refused_with_the_numbers() -> None:
    with pytest.raises(WireError, match="chunk of 20 bytes at 30 is not within 48 bytes"):
        decode_chunk(with_header(chunks()[0], offset=30))


def test_a_tensor_that_is_sent_again_in_chunks_of_another_size_is_put_together() -> None:
    # a broker that was restarted with another packet limit lies between the two
    larger, smaller = chunks(), [*encode(KEY, 5, ARRAY, chunk_bytes=7)]
    for part in range(len(larger)):
        into = assembler()
        for chunk in larger[:part]:
            assert into.add("edge-1", chunk) is None
        received = [into.add("edge-1", chunk) for chunk in smaller]
        whole = next(tensor for tensor in received if tensor is not None)
        assert isinstance(whole, Received)
        assert np.array_equal(whole.array, ARRAY)


def test_a_large_tensor_comes_in_the_smallest_chunks_and_again_in_another_size() -> None:
    array = np.zeros((1, 1400, 1000), np.float32)
    into = assembler(Tensor(5, "conv1", array.shape, "float32"))
    larger, smaller = (chunks(array=array, chunk_bytes=size) for size in (LEAST_CHUNK_BYTES + 4, LEAST_CHUNK_BYTES))
    received = [into.add("edge-1", chunk) for chunk in (*larger[:-1], *smaller)]
    assert any(isinstance(each, Received) for each in received)


def test_chunks_too_small_for_their_tensor_are_refused_and_forgotten() -> None:
    array = np.zeros((1, 200, 100), np.float32)
    into = assembler(Tensor(5, "conv1", array.shape, "float32"))
    *taken, refused, _ = chunks(array=array, chunk_bytes=16)[:1026]
    for chunk in taken:
        assert into.add("edge-1", chunk) is None
    with pytest.raises(WireError, match="too many chunks for its bytes"):
        into.add("edge-1", refused)
    assert into.pending_bytes == 0


def test_coded_chunks_may_overlap_come_twice_and_in_any_order() -> None:
    into = assembler(MAP)
    larger, smaller = (list(encode(KEY, 5, SPARSE, codec="bitmap", chunk_bytes=size)) for size in (1000, 700))
    received = [into.add("edge-1", chunk) for chunk in (*larger[::2], larger[0], *reversed(smaller))]
    tensors = [each for each in received if isinstance(each, Received)]
    assert tensors[0].array.tobytes() == SPARSE.tobytes()


def test_overlapping_chunks_that_leave_a_gap_are_refused_and_forgotten() -> None:
    into = assembler()
    first, second, _ = chunks()
    into.add("edge-1", first)
    into.add("edge-1", second)
    for offset in (10, 11):
        assert into.add("edge-1", with_header(second, offset=offset)) is None
    with pytest.raises(WireError, match="overlap and leave a gap at 40 of 48"):
        into.add("edge-1", with_header(second, offset=12))
    assert into.pending_bytes == 0


def test_data_that_is_not_as_long_as_claimed_is_refused_with_both_lengths() -> None:
    with pytest.raises(WireError, match="truncated chunk: 19 bytes of data, its header claims 20"):
        decode_chunk(chunks()[0][:-1])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x92",
        b"\x93\x80\x80\x80",
        msgpack.packb([[1], b""]),
        msgpack.packb([{}, b""]),
        b"\x92" + b"\x91" * 50_000,
    ],
)
def test_what_is_no_chunk_at_all_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError, match=r"not a tensor chunk|truncated chunk"):
        decode_chunk(payload)


def test_a_header_without_end_is_refused_before_it_is_read_whole() -> None:
    payload = with_header(chunks()[0], stream="x" * HEADER_LIMIT_BYTES)
    with pytest.raises(WireError):
        decode_chunk(payload)


@pytest.mark.parametrize(
    "name", ["epoch", "sequence", "attempt", "oldest_open", "tensor", "nbytes", "offset", "checksum"]
)
@pytest.mark.parametrize("value", [-1, 1.0, True, None, "1", [1]])
def test_a_number_that_is_none_is_refused(name: str, value: object) -> None:
    with pytest.raises(WireError, match=r"header TypeError: \w+: a number from 0 to"):
        decode_chunk(with_header(chunks()[0], **{name: value}))


# Coded tensors.


def test_a_coded_tensor_is_fewer_bytes_and_the_same_bits() -> None:
    for codec in ("bitmap", "bitmap-zstd", "shuffle-zstd"):
        into = assembler(MAP)
        sent = encode(KEY, 5, SPARSE, codec=codec, chunk_bytes=1000)
        received = [into.add("edge-1", chunk) for chunk in sent][-1]
        assert isinstance(received, Received)
        assert received.array.tobytes() == SPARSE.tobytes()
        assert received.array.ctypes.data % ALIGNMENT == 0
        assert received.nbytes == sent.nbytes < SPARSE.nbytes
        assert sent.codec == codec


def test_a_codec_that_saves_nothing_or_is_unknown_here_sends_the_tensor_as_it_is() -> None:
    for codec in ("bitmap", "of another version"):
        sent = encode(KEY, 5, ARRAY, codec=codec)
        assert sent.codec == "none"
        assert isinstance([assembler().add("edge-1", chunk) for chunk in sent][-1], Received)


def test_a_codec_that_this_version_does_not_know_is_refused_by_name() -> None:
    with pytest.raises(WireError, match=r"codec: one of none, bitmap, .* expected, not 'lzma'"):
        decode_chunk(with_header(chunks()[0], codec="lzma"))


def test_coded_bytes_that_would_be_as_many_as_the_tensors_are_refused_before_they_are_held() -> None:
    into = assembler()
    with pytest.raises(WireError, match=r"float32\[1, 12\] of 48 bytes, coded with bitmap, expected"):
        into.add("edge-1", with_header(chunks()[0], codec="bitmap"))
    assert into.pending_bytes == 0


def test_chunks_of_two_codecs_under_one_name_are_refused() -> None:
    into = assembler(MAP)
    into.add("edge-1", next(iter(encode(KEY, 5, SPARSE, codec="bitmap", chunk_bytes=1000))))
    with pytest.raises(WireError, match="chunks of two different tensors"):
        into.add("edge-1", next(iter(encode(KEY, 5, SPARSE, codec="shuffle-zstd", chunk_bytes=1000))))


def test_what_does_not_decode_is_refused_and_forgotten() -> None:
    into = assembler(MAP)
    (message,) = encode(KEY, 5, SPARSE, codec="bitmap-zstd")
    broken = bytearray(message)
    broken[-2000:-1900] = bytes(100)
    with pytest.raises(WireError, match=r"codec|checksum"):
        into.add("edge-1", bytes(broken))
    assert into.pending_bytes == 0


# Traces.


def test_the_last_hop_is_told_how_long_encoding_took_and_the_others_stay() -> None:
    trace = (Hop("device-1", "device", 1.0, 0.1, 0.2, 0.3, 0.4, 2.0), Hop("edge-1", "edge", 3.0))
    received = [assembler().add("edge-1", chunk) for chunk in encode(KEY, 5, ARRAY, trace=trace)][-1]
    assert isinstance(received, Received)
    assert received.trace[0] == trace[0]
    assert received.trace[1].encode_seconds > 0
    assert dataclasses.replace(received.trace[1], encode_seconds=0.0) == trace[1]


def test_a_trace_of_too_many_hops_is_refused() -> None:
    hops = [["edge-1", "edge", 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, False]]
    assert len(decode_chunk(with_header(chunks()[0], trace=hops * MAX_HOPS)).trace) == MAX_HOPS
    with pytest.raises(WireError, match=f"a trace of {MAX_HOPS + 1} hops, at most {MAX_HOPS}"):
        decode_chunk(with_header(chunks()[0], trace=hops * (MAX_HOPS + 1)))


@pytest.mark.parametrize(
    "hop", [[], ["edge-1"], ["edge-1", "edge"], [1, "edge", 0.0], ["edge-1", "edge", "x"], "ab", 5]
)
def test_a_hop_that_is_none_is_refused(hop: object) -> None:
    with pytest.raises(WireError):
        decode_chunk(with_header(chunks()[0], trace=[hop]))


# Failures.


def test_a_long_failure_is_cut_to_fit_and_still_says_what_happened() -> None:
    trace = tuple(Hop("n" * 64, "edge", float(i)) for i in range(MAX_HOPS))
    failed = assembler().add("edge-1", encode_failure(KEY, "out of memory " + "\N{FIRE}" * 10_000, trace))
    assert isinstance(failed, Failed)
    assert failed.message.startswith("out of memory")
    assert len(failed.trace) == MAX_HOPS


def test_a_failure_without_words_is_still_a_failure() -> None:
    assert isinstance(assembler(None).add("edge-1", encode_failure(KEY, "")), Failed)
