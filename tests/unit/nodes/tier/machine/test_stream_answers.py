"""A stream as its device decides on it, continued: answers, failures and repeats."""

from __future__ import annotations

import struct
from unittest import mock

import msgpack
import numpy as np
import pytest
import zstandard

from nodes.protocol.messages import LifeState
from nodes.tier.machine import actions as do
from nodes.tier.machine import events as ev
from nodes.tier.machine.stream import GRACE_S, MAX_FAILURES, MAX_TIMEOUT_S, StreamSettings
from nodes.tier.machine.tier import TierMachine
from pipeline.errors import WireError
from pipeline.plan import NodeId
from pipeline.ranges import MOST_REASON
from pipeline.reassembly import Assembler
from pipeline.wire import FrameKey, Received, encode
from tests.graphs import chain
from tests.unit.nodes.tier.machine.test_stream import TIMEOUT_S, Stream, keys, running
from tests.unit.nodes.tier.machine.test_tier import (
    CAM,
    CLOUD,
    DEVICE,
    EDGE,
    EDGE_2,
    GRAPH,
    all_of,
    applied,
    array,
    counted,
    state,
)


def test_a_frame_was_alone_if_none_was_before_it_and_it_was_submitted_once() -> None:
    stream = running()
    first, second = stream.submit(), stream.submit(2)
    closed = [*all_of(do.CloseFrame, stream.answer(first)), *all_of(do.CloseFrame, stream.answer(second))]
    assert [close.was_alone for close in closed] == [True, False]
    stream.submit(3)
    (again,) = keys(stream.tick(TIMEOUT_S))
    assert not all_of(do.CloseFrame, stream.answer(again))[0].was_alone


def test_a_frame_with_two_outputs_closes_when_both_are_there() -> None:
    stream = running(graph=chain(8, 8, 8, 8, outputs=(1, 3)))
    at = stream.submit()
    assert not all_of(do.CloseFrame, stream.answer(at, 3))
    assert not all_of(do.CloseFrame, stream.answer(at, 3))
    (close,) = all_of(do.CloseFrame, stream(ev.SegmentRan(at, {1: array(1)}, ())))
    assert close.outputs.keys() == {1, 3}


def test_what_comes_back_twice_or_late_is_counted_and_ignored() -> None:
    stream = running()
    at = stream.submit()
    assert all_of(do.CloseFrame, stream.answer(at))
    assert stream.answer(at) == [do.Count("duplicates_ignored_total", CAM)]
    assert stream.answer(FrameKey(CAM, 1, 77, 1, 1)) == [do.Count("duplicates_ignored_total", CAM)]
    assert stream.answer(stream.submit(2), 2) == [do.Count("unasked_answers_total", CAM)]


@pytest.mark.parametrize(
    "forged",
    [
        FrameKey(CAM, epoch=1, sequence=1, attempt=2, oldest_open=1),
        FrameKey(CAM, epoch=1, sequence=1, attempt=0, oldest_open=1),
        FrameKey(CAM, epoch=1, sequence=1, attempt=10**12, oldest_open=1),
        FrameKey(CAM, epoch=2, sequence=1, attempt=1, oldest_open=1),
        FrameKey(CAM, epoch=1, sequence=2, attempt=1, oldest_open=1),
    ],
    ids=str,
)
def test_an_answer_that_was_not_asked_for_is_ignored(forged: FrameKey) -> None:
    stream = running()
    at = stream.submit()
    assert not all_of(do.CloseFrame, stream(ev.OutputArrived(forged, CLOUD, 3, array(9), ())))
    assert not all_of(do.CloseFrame, stream.fail(forged))
    (close,) = all_of(do.CloseFrame, stream.answer(at))
    assert np.array_equal(close.outputs[3], array(3))


@pytest.mark.parametrize("sender", [EDGE, EDGE_2, DEVICE, NodeId("evil")])
def test_an_answer_counts_from_the_node_that_the_plan_asks_only(sender: NodeId) -> None:
    stream = running()
    at = stream.submit()
    assert stream(ev.OutputArrived(at, sender, 3, array(9), ())) == [do.Count("unasked_answers_total", CAM)]
    assert all_of(do.CloseFrame, stream.answer(at))


def test_three_failures_from_a_stranger_do_not_answer_a_frame() -> None:
    stream = running()
    at = stream.submit()
    for _ in range(MAX_FAILURES):
        assert stream.fail(at, sender=NodeId("evil")) == [do.Count("unasked_answers_total", CAM)]
    assert all_of(do.CloseFrame, stream.answer(at))


def test_an_answer_to_an_earlier_process_that_comes_before_the_frame_is_decoded_changes_nothing() -> None:
    for end in (ev.FrameDecoded(CAM, 5, {0: array(5)}, 0.25), ev.FrameUndecodable(CAM, 5, "no picture")):
        stream = running()
        stream(ev.FrameOffered(CAM, "replayed", sequence=5))
        assert stream(ev.OutputArrived(FrameKey(CAM, 1, 5, 1, 5), CLOUD, 3, array(1), ())) == [
            do.Count("unasked_answers_total", CAM)
        ]
        assert stream(end)


def test_a_frame_that_fails_after_it_was_decoded_is_under_way() -> None:
    stream = running()
    at = stream.submit()
    assert not all_of(do.CloseFrame, stream(ev.FrameUndecodable(CAM, at.sequence, "no disk")))
    assert all_of(do.CloseFrame, stream.answer(at))
    assert not stream(ev.FrameUndecodable(CAM, at.sequence, "no disk"))


def test_a_huge_error_is_answered_with_its_beginning() -> None:
    stream = running()
    stream.offer()
    (close,) = all_of(do.CloseFrame, stream(ev.FrameUndecodable(CAM, 1, "x" * 9_000_000)))
    assert len(close.error) <= MOST_REASON


def test_an_answer_to_an_earlier_attempt_closes_the_frame_and_the_later_one_is_ignored() -> None:
    stream = running()
    first = stream.submit()
    (second,) = keys(stream.tick(TIMEOUT_S))
    (close,) = all_of(do.CloseFrame, stream.answer(first))
    assert close.epoch == 1
    assert stream.answer(second) == [do.Count("duplicates_ignored_total", CAM)]


def test_the_low_water_mark_is_the_oldest_open_frame() -> None:
    stream = running()
    first = stream.submit(1)
    assert stream.submit(2).oldest_open == 1
    stream.answer(first)
    assert stream.submit(3).oldest_open == 2


def test_a_frame_that_does_not_come_back_is_submitted_again_ever_more_patiently() -> None:
    stream = running()
    stream.submit()
    now, waits = stream.now, []
    for _ in range(8):
        while not (again := keys(stream.tick(0.5))):
            pass
        waits.append(stream.now - now)
        now = stream.now
    assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0, 60.0]
    assert again[0].attempt == 9


def test_a_slow_but_living_pipeline_is_given_four_of_its_usual_latencies() -> None:
    stream = running()
    stream.answer(stream.submit(1), after=4.0)
    stream.submit(2)
    assert not keys(stream.tick(15.5))
    assert keys(stream.tick(0.5))


def test_an_answer_after_an_outage_does_not_make_the_stream_wait_for_hours() -> None:
    stream = running()
    first = stream.submit(1)
    stream(state(CLOUD, LifeState.LOST), after=1.0)
    stream.answer(first, after=3600.0)  # tensors have a connection of their own, which may be back first
    stream(state(CLOUD, births=2))
    stream.submit(2)
    assert keys(stream.tick(2 * MAX_TIMEOUT_S))


def test_resubmissions_are_counted() -> None:
    stream = running()
    stream.submit()
    assert counted(stream.tick(TIMEOUT_S)) == ["resubmitted_total"]


def test_a_frame_is_not_submitted_while_a_node_of_its_plan_is_away() -> None:
    stream = running()
    stream.submit(1)
    stream(state(CLOUD, LifeState.LOST))
    stream.offer()
    assert not keys(stream.decode(2))
    assert not keys(stream.tick(500.0))


def test_frames_are_submitted_again_under_the_same_epoch_when_a_lost_node_is_back() -> None:
    stream = running()
    stream.submit()
    stream(state(CLOUD, LifeState.LOST))
    assert not keys(stream(state(CLOUD, session="two")))
    assert not keys(stream(applied(CLOUD, (1,), session="two")))
    assert keys(stream.tick(GRACE_S)) == [FrameKey(CAM, 1, 1, 2, 1)]
    assert not keys(stream.tick(GRACE_S))


def test_frames_are_submitted_again_when_a_node_blinked_without_being_called_lost() -> None:
    stream = running()
    stream.submit()
    stream(state(EDGE, births=2))
    assert keys(stream.tick(GRACE_S)) == [FrameKey(CAM, 1, 1, 2, 1)]


def test_frames_are_not_submitted_again_when_a_node_puts_right_what_somebody_said_in_its_name() -> None:
    stream = running()
    stream.submit()
    stream(state(EDGE, births=2))
    stream.tick(GRACE_S / 2)
    stream(state(EDGE))
    stream(state(CLOUD, LifeState.INIT))
    assert not keys(stream.tick(GRACE_S))


def test_frames_are_submitted_again_under_the_new_plan_when_a_node_is_lost_for_good() -> None:
    stream = running()
    stream.submit()
    stream(state(EDGE, LifeState.LOST))
    stream.plan(2, edge=EDGE_2)
    stream.apply(1, 2)
    assert stream.owner.active == 2
    actions = stream.tick(GRACE_S)
    assert keys(actions) == [FrameKey(CAM, 2, 1, 2, 1)]
    assert all_of(do.Release, actions) == [do.Release(CAM, 1)]


def test_a_frame_of_the_old_epoch_is_not_disturbed_by_a_node_that_only_the_new_one_has() -> None:
    stream = running()
    stream.submit()
    stream.plan(2, edge=EDGE_2)
    stream.apply(1, 2)
    stream(state(EDGE_2, births=2))
    assert not keys(stream.tick(GRACE_S))


def test_frames_are_submitted_again_when_the_devices_own_connection_is_back() -> None:
    stream = running()
    stream.submit(1)
    assert not keys(stream(ev.ConnectionRestored()))
    assert keys(stream.tick(GRACE_S)) == [FrameKey(CAM, 1, 1, 2, 1)]


def test_a_failure_is_tried_again_and_the_third_is_answered_with_an_error() -> None:
    stream = running()
    at = stream.submit()
    for failures in range(1, MAX_FAILURES):
        actions = stream.fail(at)
        assert not all_of(do.CloseFrame, actions)
        assert "frame 1 failed, trying again: no luck" in all_of(do.Log, actions)[0].text
        (at,) = keys(stream.tick(GRACE_S * failures))
        assert at.attempt == failures + 1
    (close,) = all_of(do.CloseFrame, stream.fail(at, "still no luck"))
    assert (close.error, close.outputs, close.attempt) == ("still no luck", {}, MAX_FAILURES)


def test_a_failure_on_the_device_itself_counts_as_well() -> None:
    stream = running()
    at = stream.submit()
    stream(ev.SegmentFailed(at, "no luck", ()))
    assert keys(stream.tick(GRACE_S)) == [FrameKey(CAM, 1, 1, 2, 1)]


def test_a_failure_of_an_earlier_attempt_or_of_a_closed_frame_does_not_count() -> None:
    stream = running()
    first = stream.submit()
    (second,) = keys(stream.tick(TIMEOUT_S))
    for _ in range(MAX_FAILURES):
        assert stream.fail(first) == []
    assert all_of(do.CloseFrame, stream.answer(second))
    assert stream.fail(second) == []


def test_one_attempt_fails_once_however_often_and_by_whomever_it_is_told() -> None:
    stream = running()
    at = stream.submit()
    for _ in range(MAX_FAILURES):
        assert not all_of(do.CloseFrame, stream.fail(at))


def test_a_frame_of_the_process_before_keeps_its_sequence_and_does_not_repeat_an_attempt() -> None:
    settings = StreamSettings(stream=CAM, model="chain", frame_timeout_s=TIMEOUT_S, first_sequence=1_000_001)
    stream = Stream()
    stream.machine = TierMachine(DEVICE, {"chain": GRAPH}, [settings])
    stream.plan(1)
    stream.apply(1)
    stream(ev.FrameOffered(CAM, "left over", sequence=7))
    stream.offer()
    assert set(stream.owner.open) == {7, 1_000_001}
    (old,) = keys(stream.decode(7))
    (new,) = keys(stream(ev.FrameDecoded(CAM, 1_000_001, {0: array(1)}, 0.25)))
    assert (old.sequence, old.oldest_open, new.oldest_open) == (7, 7, 7)
    assert old.attempt > 1 == new.attempt
    (close,) = all_of(do.CloseFrame, stream.answer(old))
    assert (close.sequence, close.pending_frame) == (7, "left over")


def test_a_coded_output_that_claims_more_than_its_tensor_is_refused_before_it_is_unpacked() -> None:
    stream = running(graph=chain(8, 8, 8, 1 << 16))
    asked, answer = stream.submit(), np.arange(1 << 16, dtype=np.uint8).reshape(1, -1) // 64
    into = Assembler(stream.machine.expected_output)
    (good,) = encode(asked, 3, answer, codec="shuffle-zstd")
    header, _ = msgpack.unpackb(good)
    assert header["codec"] == "shuffle-zstd"
    plane = zstandard.ZstdCompressor().compress(bytes(1 << 28))
    bomb = struct.pack("<I", len(plane)) + plane
    for claim, why in (
        ({"shape": (1, 1 << 28)}, "expected"),
        ({"nbytes": 1 << 28}, "268435456 bytes"),
        ({}, "a plane that would be 268435456 bytes, not 65536"),
    ):
        forged = msgpack.packb([header | {"nbytes": len(bomb)} | claim, bomb])
        with (
            mock.patch.object(zstandard, "ZstdDecompressor", side_effect=AssertionError("unpacked")),
            pytest.raises(WireError, match=why),
        ):
            into.add(CLOUD, forged)
        assert into.pending_bytes == 0
    received = into.add(CLOUD, good)
    assert isinstance(received, Received)
    assert np.array_equal(received.array, answer)
