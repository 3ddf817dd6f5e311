"""A stream as its device decides on it: epochs become active, frames are stamped, submitted again, and closed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from nodes.protocol.messages import LifeState, StreamApplied
from nodes.tier.machine import actions as do
from nodes.tier.machine import events as ev
from nodes.tier.machine.stream import GRACE_S, MAX_FAILURES, MAX_TIMEOUT_S, StreamOwner, StreamSettings
from nodes.tier.machine.tier import TierMachine
from pipeline.graph import ModelGraph
from pipeline.placement import Placement
from pipeline.plan import NodeId
from pipeline.ranges import MOST_REASON
from pipeline.wire import FrameKey, Hop
from tests.graphs import chain
from tests.unit.nodes.tier.machine.test_tier import (
    CAM,
    CLOUD,
    DEVICE,
    EDGE,
    EDGE_2,
    GRAPH,
    C,
    D,
    E,
    all_of,
    applied,
    array,
    counted,
    plan,
    state,
    work,
)

TIMEOUT_S = 5.0


class Stream:
    """A device's machine with one stream, and what the others would say to it."""

    def __init__(self, *, window: int = 4, graph: ModelGraph = GRAPH) -> None:
        settings = StreamSettings(stream=CAM, model="chain", window=window, frame_timeout_s=TIMEOUT_S)
        self.machine = TierMachine(DEVICE, {"chain": graph}, [settings])
        self.graph = graph
        self.now = 0.0
        self.pending_frames = 0

    @property
    def owner(self) -> StreamOwner:
        return self.machine.owners[CAM]

    def __call__(self, event: ev.Event, after: float = 0.0) -> list[do.Action]:
        self.now += after
        actions = self.machine.handle(event, self.now)
        self.machine.validate()
        return actions

    def tick(self, after: float) -> list[do.Action]:
        return self(ev.Tick(), after)

    def plan(self, epoch: int, placement: Placement = (D, D, E, C), *, edge: NodeId = EDGE) -> list[do.Action]:
        return self(ev.PlanArrived(plan(epoch, placement, edge=edge, graph=self.graph)))

    def apply(self, *epochs: int) -> list[do.Action]:
        """All say that they are ready for exactly these."""
        actions = [action for epoch in epochs for action in self(ev.Prepared(CAM, epoch))]
        for node in (EDGE, EDGE_2, CLOUD):
            actions += self(state(node)) if node not in self.machine.peers.states else []
            actions += self(applied(node, epochs))
        return actions

    def offer(self, *, live: bool = False) -> list[do.Action]:
        self.pending_frames += 1
        return self(ev.FrameOffered(CAM, f"ticket {self.pending_frames}", live))

    def decode(self, sequence: int) -> list[do.Action]:
        return self(ev.FrameDecoded(CAM, sequence, {0: array(sequence)}, 0.25))

    def submit(self, sequence: int = 1) -> FrameKey:
        """A frame enters and is decoded; returns the key it was submitted with."""
        self.offer()
        (run,) = all_of(do.Run, self.decode(sequence))
        return run.key

    def answer(self, at: FrameKey, tensor: int = 3, after: float = 0.0, *hops: Hop) -> list[do.Action]:
        return self(ev.OutputArrived(at, self.maker(at, tensor), tensor, array(tensor), hops), after)

    def maker(self, at: FrameKey, tensor: int) -> NodeId:
        """The node that was asked for this output."""
        frame = self.owner.open.get(at.sequence)
        asked = frame.submitted.get(at.attempt) if frame is not None else None
        return asked.nodes[asked.placement[self.graph.producer[tensor]]] if asked is not None else CLOUD

    def fail(self, at: FrameKey, text: str = "no luck", *, sender: NodeId = CLOUD) -> list[do.Action]:
        return self(ev.OutputFailed(at, sender, text, ()))


def running(*, window: int = 4, graph: ModelGraph = GRAPH) -> Stream:
    """Epoch 1 is active."""
    stream = Stream(window=window, graph=graph)
    stream.plan(1)
    stream.apply(1)
    assert stream.owner.active == 1
    return stream


def keys(actions: Sequence[do.Action]) -> list[FrameKey]:
    return [run.key for run in all_of(do.Run, actions)]


def said(actions: Sequence[do.Action]) -> StreamApplied:
    return all_of(do.AnnounceApplied, actions)[-1].streams[CAM]


# Epochs.


@pytest.mark.parametrize("last", [DEVICE, EDGE, CLOUD])
def test_an_epoch_becomes_active_once_the_last_of_its_nodes_has_applied_it(last: str) -> None:
    stream = Stream()
    stream.plan(1)
    ready: dict[NodeId, Callable[[], list[do.Action]]] = {
        DEVICE: lambda: stream(ev.Prepared(CAM, 1)),
        EDGE: lambda: stream(state(EDGE)) + stream(applied(EDGE, (1,))),
        CLOUD: lambda: stream(state(CLOUD)) + stream(applied(CLOUD, (1,))),
    }
    for node in sorted(ready, key=lambda node: node == last):
        assert stream.owner.active is None
        actions = ready[node]()
    assert stream.owner.active == 1
    assert said(actions) == StreamApplied(1, (1,), {}, 1, (1,))
    assert counted(actions) == ["plan_changes_total"]


def test_a_node_that_applied_an_epoch_in_an_earlier_session_does_not_count() -> None:
    stream = Stream()
    stream.plan(1)
    stream(state(EDGE, session="two"))
    stream.apply(1)
    assert stream.owner.active is None
    stream(applied(EDGE, (1,), session="two"))
    assert stream.owner.active == 1


@pytest.mark.parametrize("life", [LifeState.LOST, LifeState.INIT, LifeState.STOPPED])
def test_a_node_that_is_not_there_keeps_an_epoch_from_becoming_active(life: LifeState) -> None:
    stream = Stream()
    stream.plan(1)
    stream(state(EDGE, life))
    stream.apply(1)
    assert stream.owner.active is None
    stream(state(EDGE, births=2))
    assert stream.owner.active == 1


def test_a_plan_on_the_device_alone_needs_nobody() -> None:
    stream = Stream()
    stream.plan(1, (D, D, D, D))
    stream(ev.Prepared(CAM, 1))
    at = stream.submit()
    (close,) = all_of(do.CloseFrame, stream(ev.SegmentRan(at, {3: array(9)}, (Hop("device-1", "device", 1.0),))))
    assert np.array_equal(close.outputs[3], array(9))
    assert [hop.node for hop in close.trace] == ["device-1"]


def test_a_plan_that_was_never_active_is_superseded_by_the_next() -> None:
    stream = running()
    assert said(stream.plan(2)).holds == (1, 2)
    actions = stream.plan(3)
    assert all_of(do.Release, actions) == [do.Release(CAM, 2)]
    assert said(actions).holds == (1, 3)
    stream.apply(2)
    assert stream.owner.active == 1
    stream.apply(1, 3)
    assert stream.owner.active == 3


def test_a_plan_of_another_device_is_none_of_its_own() -> None:
    stream = running()
    other = plan(2)
    nodes = {**other.nodes, D: EDGE_2}
    stream(ev.PlanArrived(type(other)(**{**vars(other), "nodes": nodes})))
    assert stream.owner.active == 1
    assert stream.submit().epoch == 1


def test_a_node_that_refuses_keeps_the_old_epoch_going() -> None:
    stream = running()
    stream.plan(2)
    stream(ev.Prepared(CAM, 2))
    stream(applied(EDGE, (1,), seen=2, refused={2: "no memory"}))
    assert stream.owner.active == 1
    assert stream.submit().epoch == 1


def test_frames_are_stamped_with_the_epoch_that_is_active_when_they_are_submitted() -> None:
    stream = running()
    assert stream.submit(1) == FrameKey(CAM, 1, 1, 1, 1)
    stream.plan(2)
    assert stream.submit(2).epoch == 1
    stream.apply(1, 2)
    assert stream.submit(3) == FrameKey(CAM, 2, 3, 1, 1)


def test_the_old_epoch_is_drained_and_then_let_go() -> None:
    stream = running()
    first, second = stream.submit(1), stream.submit(2)
    stream.plan(2)
    assert said(stream.apply(1, 2)).holds == (1, 2)
    stream.submit(3)
    assert not all_of(do.Release, stream.answer(first))
    actions = stream.answer(second)
    assert all_of(do.CloseFrame, actions)[0].epoch == 1
    assert all_of(do.Release, actions) == [do.Release(CAM, 1)]
    assert said(actions) == StreamApplied(2, (2,), {}, 2, (2,))


def test_an_old_epoch_with_no_open_frame_is_let_go_at_once() -> None:
    stream = running()
    stream.plan(2)
    assert all_of(do.Release, stream.apply(1, 2)) == [do.Release(CAM, 1)]


def test_without_news_nothing_is_said_again() -> None:
    stream = running()
    assert stream.tick(100.0) == []
    assert stream(applied(EDGE, (1,))) == []
    assert stream(state(EDGE)) == []


# Entering.


def test_frames_before_any_plan_wait_and_go_when_there_is_one() -> None:
    stream = Stream()
    assert [type(action) for action in work(stream.offer())] == [do.DecodeFrame]
    assert not all_of(do.Run, stream.decode(1))
    stream.plan(1)
    assert keys(stream.apply(1)) == [FrameKey(CAM, 1, 1, 1, 1)]


def test_no_more_frames_than_the_window_are_open() -> None:
    stream = running(window=2)
    first = stream.submit(1)
    stream.submit(2)
    assert stream.offer() == []
    assert stream.offer() == []
    assert len(stream.owner.backlog) == 2
    actions = stream.answer(first)
    assert all_of(do.DecodeFrame, actions) == [do.DecodeFrame(CAM, 3, "ticket 3")]
    assert counted(actions) == ["results_total", "frames_in_total"]


def test_a_live_frame_that_waits_gives_way_to_a_fresher_one_and_is_counted() -> None:
    stream = running(window=1)
    at = stream.submit(1)
    assert stream.offer(live=True) == []
    assert stream.offer(live=True) == [do.DropFrame(CAM, "ticket 2"), do.Count("dropped_at_source_total", CAM)]
    assert all_of(do.DecodeFrame, stream.answer(at)) == [do.DecodeFrame(CAM, 2, "ticket 3")]


def test_a_frame_that_is_not_live_never_gives_way() -> None:
    stream = running(window=1)
    stream.submit(1)
    for live in (False, True, False, True):
        stream.offer(live=live)
    assert [waiting.pending_frame for waiting in stream.owner.backlog] == ["ticket 2", "ticket 4", "ticket 5"]


def test_sequences_go_on_from_the_first_one_given() -> None:
    settings = StreamSettings(stream=CAM, model="chain", first_sequence=1_000_001)
    machine = TierMachine(DEVICE, {"chain": GRAPH}, [settings])
    offered = [machine.handle(ev.FrameOffered(CAM, number), 0.0) for number in range(2)]
    assert [all_of(do.DecodeFrame, actions)[0].sequence for actions in offered] == [1_000_001, 1_000_002]


def test_a_frame_that_is_no_input_is_answered_with_an_error_and_counted() -> None:
    stream = running()
    stream.offer()
    actions = stream(ev.FrameUndecodable(CAM, 1, "a GIF image"))
    (close,) = all_of(do.CloseFrame, actions)
    assert (close.sequence, close.pending_frame, close.error, close.outputs) == (1, "ticket 1", "a GIF image", {})
    assert counted(actions) == ["error_results_total"]
    assert not stream.owner.open


# Closing.


def test_a_frame_closes_with_its_outputs_ticket_and_way() -> None:
    stream = running()
    at = stream.submit()
    device, cloud = Hop("device-1", "device", 1.0), Hop("cloud-1", "cloud", 2.0)
    (close,) = all_of(do.CloseFrame, stream.answer(at, 3, 0.0, device, cloud))
    assert (close.stream, close.sequence, close.pending_frame, close.epoch, close.attempt) == (CAM, 1, "ticket 1", 1, 1)
    assert close.trace == (device, cloud)
    assert close.outputs.keys() == {3}
    assert not close.error


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


# Again.


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


# Failures.


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
