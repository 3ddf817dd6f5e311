"""A stream as its device decides on it: epochs become active, frames are stamped, submitted again, and closed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from nodes.protocol.messages import LifeState, StreamApplied
from nodes.tier.machine import actions as do
from nodes.tier.machine import events as ev
from nodes.tier.machine.stream import StreamOwner, StreamSettings
from nodes.tier.machine.tier import TierMachine
from pipeline.graph import ModelGraph
from pipeline.placement import Placement
from pipeline.plan import NodeId
from pipeline.wire import FrameKey, Hop
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
    assert all_of(do.DecodeFrame, actions) == [do.DecodeFrame(CAM, 3, "ticket 3", "chain")]
    assert counted(actions) == ["results_total", "frames_in_total"]


def test_who_sends_more_than_others_makes_only_its_own_frames_wait() -> None:
    stream = running(window=1)
    at = stream.submit(1)
    for publisher in ("flood", "flood", "flood", "ann", "flood", "bob"):
        stream.pending_frames += 1
        stream(ev.FrameOffered(CAM, f"{publisher} {stream.pending_frames}", publisher=publisher))
    order = []
    for sequence in range(2, 8):
        (entered,) = all_of(do.DecodeFrame, stream.answer(at))
        order.append(entered.pending_frame)
        (run,) = all_of(do.Run, stream.decode(sequence))
        at = run.key
    assert order == ["flood 2", "ann 5", "flood 3", "bob 7", "flood 4", "flood 6"]


def test_a_live_frame_that_waits_gives_way_to_a_fresher_one_and_is_counted() -> None:
    stream = running(window=1)
    at = stream.submit(1)
    assert stream.offer(live=True) == []
    assert stream.offer(live=True) == [do.DropFrame(CAM, "ticket 2"), do.Count("dropped_at_source_total", CAM)]
    assert all_of(do.DecodeFrame, stream.answer(at)) == [do.DecodeFrame(CAM, 2, "ticket 3", "chain")]


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


# Again.


# Failures.
