"""What the wire format refuses, in which words, and what the assembler forgets."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgpack
import numpy as np
import pytest

from pipeline.errors import WireError
from pipeline.graph import Tensor
from pipeline.protocol_version import PROTOCOL_VERSION
from pipeline.reassembly import ALIGNMENT, Assembler, Place
from pipeline.wire import (
    HEADER_LIMIT_BYTES,
    LEAST_CHUNK_BYTES,
    MAX_HOPS,
    Array,
    Failed,
    FrameKey,
    Hop,
    Received,
    decode_chunk,
    encode,
    encode_failure,
)

KEY = FrameKey("cam", 3, 17, 1, 15)
ARRAY = np.arange(12, dtype=np.float32).reshape(1, 12)
TENSOR = Tensor(5, "conv1", (1, 12), "float32")
SPARSE = np.maximum(np.random.default_rng(0).normal(size=(1, 16, 16, 8)), 0).astype(np.float32)
MAP = Tensor(5, "relu1", SPARSE.shape, "float32")


def chunks(key: FrameKey = KEY, array: Array = ARRAY, chunk_bytes: int = 20) -> list[bytes]:
    return list(encode(key, 5, array, chunk_bytes=chunk_bytes))


def with_header(payload: bytes, **changed: Any) -> bytes:
    header, data = msgpack.unpackb(payload)
    packed: bytes = msgpack.packb([header | changed, data])
    return packed


def assembler(expected: Tensor | None = TENSOR, limit_bytes: int = 1 << 20) -> Assembler:
    return Assembler(lambda key, tensor: expected, limit_bytes=limit_bytes)


def whole(into: Assembler, sender: str = "edge-1", key: FrameKey = KEY) -> Received | Failed | None:
    return [into.add(sender, chunk) for chunk in chunks(key)][-1]


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


# What the assembler holds.


def test_two_senders_of_one_tensor_do_not_mix() -> None:
    into = assembler()
    first, *rest = chunks()
    into.add("edge-1", first)
    for chunk in rest:
        assert into.add("edge-2", chunk) is None
    assert into.pending_bytes == 2 * ARRAY.nbytes
    assert isinstance([into.add("edge-1", chunk) for chunk in rest][-1], Received)


def test_the_oldest_unfinished_tensor_goes_when_there_are_too_many() -> None:
    into = assembler(limit_bytes=2 * ARRAY.nbytes)
    frames = [chunks(dataclasses.replace(KEY, sequence=sequence)) for sequence in (20, 21, 22)]
    for frame in frames:
        into.add("edge-1", frame[0])
    assert into.pending_bytes == 2 * ARRAY.nbytes
    for frame, finished in zip(frames[1:], (True, True), strict=True):
        assert isinstance([into.add("edge-1", chunk) for chunk in frame[1:]][-1], Received) is finished
    assert [into.add("edge-1", chunk) for chunk in frames[0][1:]] == [None, None]


def test_one_tensor_larger_than_the_limit_still_comes_through() -> None:
    assert isinstance(whole(assembler(limit_bytes=10)), Received)


def test_what_is_older_than_the_oldest_open_frame_is_forgotten_for_its_stream_only() -> None:
    into = assembler()
    into.add("edge-1", chunks()[0])
    into.add("edge-1", chunks(dataclasses.replace(KEY, stream="porch"))[0])
    assert isinstance(whole(into, key=dataclasses.replace(KEY, sequence=18, oldest_open=18)), Received)
    assert into.pending_bytes == ARRAY.nbytes
    assert [into.add("edge-1", chunk) for chunk in chunks()[1:]] == [None, None]


def test_an_epoch_that_is_let_go_is_forgotten() -> None:
    into = assembler()
    into.add("edge-1", chunks()[0])
    into.add("edge-1", chunks(dataclasses.replace(KEY, epoch=4))[0])
    into.drop_epoch("porch", 3)
    assert into.pending_bytes == 2 * ARRAY.nbytes
    into.drop_epoch("cam", 3)
    assert into.pending_bytes == ARRAY.nbytes
    into.clear()
    assert into.pending_bytes == 0


def test_a_tensor_may_come_whole_twice() -> None:
    into = assembler()
    assert isinstance(whole(into), Received)
    assert isinstance(whole(into), Received)
    assert into.pending_bytes == 0


def test_every_chunk_leaves_the_reader_its_own_memory() -> None:
    payload = chunks()[0]
    assert decode_chunk(payload).data.obj is payload
    received = whole(assembler())
    assert isinstance(received, Received)
    assert received.array.flags.writeable
    assert not np.shares_memory(received.array, np.frombuffer(payload, np.uint8))


@pytest.mark.parametrize("dtype", ["float32", "uint8", "bool", "int64", "float16"])
def test_a_received_tensor_begins_where_an_engine_can_read_it(dtype: str) -> None:
    arrays = []
    for size in (1, 3, 64, 1000, 300_000):
        array = np.ones((1, size), dtype)
        into = assembler(Tensor(5, "x", array.shape, dtype))
        arrays.append([into.add("edge-1", chunk) for chunk in encode(KEY, 5, array)][-1])
    assert all(isinstance(got, Received) and got.array.ctypes.data % ALIGNMENT == 0 for got in arrays)


def placed(into: Assembler, payload: bytes, *, filled: bool = True) -> Place:
    """As the network does: the place of a chunk, by its first bytes, and the rest written there."""
    place = into.place("edge-1", memoryview(payload)[: len(payload) - 4], len(payload))
    assert place is not None
    if filled:
        place.into[:] = payload[place.kept :]
    return place


def test_chunks_are_received_where_they_belong() -> None:
    into = assembler()
    places = [placed(into, chunk) for chunk in chunks()]
    *early, last = [into.add("edge-1", place) for place in places]
    assert early == [None] * len(early)
    assert isinstance(last, Received)
    np.testing.assert_array_equal(last.array, ARRAY)
    assert np.shares_memory(last.array, np.frombuffer(places[0].into, np.uint8))
    assert into.pending_bytes == 0


def test_a_tensor_is_not_handed_out_while_a_chunk_of_it_is_still_being_written() -> None:
    into, pieces = assembler(), chunks()
    places = [placed(into, chunk) for chunk in pieces]
    late = placed(into, pieces[0], filled=False)
    received = [into.add("edge-1", place) for place in places][-1]
    assert isinstance(received, Received)
    late.into[:] = bytes(len(late.into))
    np.testing.assert_array_equal(received.array, ARRAY)
    assert into.add("edge-1", late) is None


def test_placed_chunks_of_another_size_are_put_together_with_those_before() -> None:
    larger, smaller = chunks(), [*encode(KEY, 5, ARRAY, chunk_bytes=7)]
    for part in range(len(larger)):
        into = assembler()
        for chunk in larger[:part]:
            assert into.add("edge-1", placed(into, chunk)) is None
        # none is placed after the one that makes it whole: that would begin another tensor
        added = (into.add("edge-1", placed(into, chunk)) for chunk in smaller)
        received = next(each for each in added if each is not None)
        assert isinstance(received, Received)
        np.testing.assert_array_equal(received.array, ARRAY)
        assert into.pending_bytes == 0


def test_placed_chunks_that_overlap_and_leave_a_gap_are_not_taken_for_whole() -> None:
    into = assembler()
    first, second, third = chunks()
    into.add("edge-1", placed(into, first))
    into.add("edge-1", placed(into, second))
    shifted = with_header(second, offset=10)
    assert into.add("edge-1", placed(into, shifted)) is None
    # the bytes that belong there again
    assert into.add("edge-1", placed(into, first)) is None
    assert into.add("edge-1", placed(into, second)) is None
    received = into.add("edge-1", placed(into, third))
    assert isinstance(received, Received)
    np.testing.assert_array_equal(received.array, ARRAY)


def test_a_coded_tensor_is_placed_and_decoded_from_a_copy_while_a_chunk_is_still_being_written() -> None:
    array = np.zeros((64, 64), np.float32)
    array[::7] = 1.5
    into = Assembler(lambda key, tensor: Tensor(5, "map", array.shape, "float32"))
    coded = encode(KEY, 5, array, codec="bitmap", chunk_bytes=200)
    assert coded.codec == "bitmap"
    pieces = [*coded]
    assert len(pieces) > 2
    places = [placed(into, chunk) for chunk in pieces]
    late = placed(into, pieces[0], filled=False)
    received = [into.add("edge-1", place) for place in places][-1]
    assert isinstance(received, Received)
    assert received.nbytes == coded.nbytes < array.nbytes
    late.into[:] = bytes(len(late.into))
    np.testing.assert_array_equal(received.array, array)
    assert into.add("edge-1", late) is None
    assert into.pending_bytes == 0


def test_a_tensor_is_copied_while_a_chunk_that_overlaps_is_still_being_written() -> None:
    into, pieces = assembler(), chunks()
    late = placed(into, [*encode(KEY, 5, ARRAY, chunk_bytes=7)][1], filled=False)
    received = [into.add("edge-1", chunk) for chunk in pieces][-1]
    assert isinstance(received, Received)
    assert not np.shares_memory(received.array, np.frombuffer(late.into, np.uint8))
    late.into[:] = bytes(len(late.into))
    np.testing.assert_array_equal(received.array, ARRAY)
    assert into.add("edge-1", late) is None
    assert into.pending_bytes == 0


def test_a_chunk_of_another_tensor_has_no_place_and_forgets_nothing_before_it_is_whole() -> None:
    into, pieces = assembler(), chunks()
    into.add("edge-1", pieces[0])
    other = with_header(pieces[1], checksum=1)
    assert into.place("edge-1", memoryview(other), len(other)) is None
    assert into.pending_bytes == ARRAY.nbytes
    with pytest.raises(WireError, match="two different tensors"):
        into.add("edge-1", other)
    assert into.pending_bytes == 0


def test_what_was_placed_and_dropped_is_forgotten() -> None:
    into, pieces = assembler(), chunks()
    first = placed(into, pieces[0])
    into.drop_epoch(KEY.stream, KEY.epoch)
    assert into.add("edge-1", first) is None
    assert into.pending_bytes == 0
    received = [into.add("edge-1", placed(into, chunk)) for chunk in pieces][-1]
    assert isinstance(received, Received)


def test_bytes_that_were_changed_on_their_way_into_their_place_are_found() -> None:
    into = assembler()
    *early, last = [placed(into, chunk) for chunk in chunks()]
    last.into[-1] ^= 1
    for place in early:
        into.add("edge-1", place)
    with pytest.raises(WireError, match="checksum"):
        into.add("edge-1", last)


@pytest.mark.parametrize("first", [b"", b"\x92", b"no chunk at all", encode_failure(KEY, "it broke")])
def test_what_is_no_chunk_of_an_expected_tensor_has_no_place(first: bytes) -> None:
    assert assembler().place("edge-1", memoryview(first), 100_000) is None
    assert assembler().place("edge-1", memoryview(first), len(first)) is None
    unexpected = chunks(array=ARRAY[:, :1])[0]
    assert assembler().place("edge-1", memoryview(unexpected), len(unexpected)) is None
