"""Tensors put together from chunks: what does not mix, what is forgotten, and where bytes are received."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.errors import WireError
from pipeline.graph import Tensor
from pipeline.reassembly import ALIGNMENT, Assembler, Place
from pipeline.wire import (
    Received,
    decode_chunk,
    encode,
    encode_failure,
)
from tests.wire_chunks import ARRAY, KEY, assembler, chunks, whole, with_header

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
