"""A tier's machine, continued: what it does with tensors and failures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nodes.protocol.messages import LifeState, StreamApplied
from nodes.protocol.peers import Peers
from nodes.tier.machine import actions as do
from nodes.tier.machine import events as ev
from nodes.tier.machine.joins import Joins, merge
from nodes.tier.machine.tier import TierMachine
from pipeline.coding import PlannedCodecs
from pipeline.wire import Hop
from tests.graphs import chain
from tests.unit.nodes.tier.machine.test_tier import (
    CAM,
    CLOUD,
    DEVICE,
    EDGE,
    GRAPH,
    PORCH,
    C,
    D,
    all_of,
    applied,
    array,
    edge_with,
    key,
    plan,
    state,
    tensor,
)


def test_a_plan_that_comes_after_the_device_has_let_it_go_is_not_held() -> None:
    machine = TierMachine(EDGE, {"chain": GRAPH})
    machine.handle(state(DEVICE), 0.0)
    machine.handle(applied(DEVICE, seen=2, holds=(2,)), 0.0)
    machine.handle(ev.PlanArrived(plan(1)), 0.0)
    machine.handle(ev.PlanArrived(plan(2, (D, D, D, C))), 0.0)
    machine.handle(ev.Prepared(CAM, 1), 0.0)
    assert machine.epochs.applied() == {CAM: StreamApplied(2)}


def test_a_node_expects_exactly_the_inputs_of_the_epochs_it_holds() -> None:
    machine = edge_with(1)
    assert machine.expected(key(), 1) == GRAPH.tensors[1]
    assert machine.expected(key(), 2) is None
    assert machine.expected(key(epoch=2), 1) is None
    assert machine.expected(replace(key(), stream=PORCH), 1) is None
    assert machine.expected(replace(key(), tile=1), 1) is None


def test_a_tensor_is_computed_and_its_outputs_go_to_the_next_tier() -> None:
    machine = edge_with(1)
    hop = Hop("device-1", "device", 1.0)
    (run,) = machine.handle(tensor(1, key(), 5, hop), 0.0)
    assert isinstance(run, do.Run)
    assert (run.key, run.trace, run.decode_seconds) == (key(), (hop,), 0.5)
    assert np.array_equal(run.inputs[1], array(5))
    (sent,) = machine.handle(ev.SegmentRan(key(), {2: array(6)}, (hop,)), 0.0)
    assert isinstance(sent, do.SendTensor)
    assert (sent.key, sent.tensor, sent.trace) == (key(), 2, (hop,))
    assert np.array_equal(sent.array, array(6))


def test_the_last_nodes_output_goes_to_the_device() -> None:
    machine = TierMachine(CLOUD, {"chain": GRAPH})
    machine.handle(ev.PlanArrived(plan(1)), 0.0)
    machine.handle(ev.Prepared(CAM, 1), 0.0)
    (sent,) = machine.handle(ev.SegmentRan(key(), {3: array(6)}, ()), 0.0)
    assert isinstance(sent, do.SendOutput)
    assert (sent.key, sent.tensor) == (key(), 3)


def test_a_tensor_that_is_both_sent_on_and_a_result_goes_both_ways() -> None:
    graph = chain(8, 8, 8, 8, outputs=(2, 3))
    machine = TierMachine(EDGE, {"chain": graph})
    for epoch, codecs in ((1, PlannedCodecs()), (2, PlannedCodecs({2: "bitmap"}, {2: "shuffle-zstd"}))):
        machine.handle(ev.PlanArrived(replace(plan(epoch, graph=graph), codecs=codecs)), 0.0)
        sent, output = machine.handle(ev.SegmentRan(key(epoch=epoch), {2: array(6)}, ()), 0.0)
        assert isinstance(sent, do.SendTensor)
        assert isinstance(output, do.SendOutput)
        assert sent.codec == codecs.tensors.get(2, "none"), "each way has its own codec"
        assert output.codec == codecs.results.get(2, "none")


def test_a_frame_that_cannot_be_computed_is_told_to_the_device() -> None:
    assert edge_with(1).handle(ev.SegmentFailed(key(), "no luck", ()), 0.0) == [do.SendFailure(key(), "no luck", ())]


@pytest.mark.parametrize(
    "event",
    [
        tensor(1, key(epoch=2)),
        ev.SegmentRan(key(epoch=2), {2: array(1)}, ()),
        ev.OutputArrived(key(), CLOUD, 3, array(1), ()),
        ev.OutputFailed(key(), CLOUD, "no luck", ()),
    ],
)
def test_what_belongs_to_no_epoch_or_stream_of_this_node_is_counted_and_ignored(event: ev.Event) -> None:
    assert edge_with(1).handle(event, 0.0) == [do.Count("stale_tensors_total")]


def test_a_tensor_for_an_epoch_that_is_not_ready_yet_is_stale() -> None:
    machine = TierMachine(EDGE, {"chain": GRAPH})
    machine.handle(ev.PlanArrived(plan(1)), 0.0)
    assert machine.handle(tensor(1, key()), 0.0) == [do.Count("stale_tensors_total")]


def test_what_waits_is_forgotten_with_its_epoch() -> None:
    joins = Joins()
    joins.add(tensor(1, key(epoch=1)), (1, 2))
    joins.add(tensor(1, key(epoch=2)), (1, 2))
    joins.drop_epoch("cam", 1)
    assert len(joins) == 1
    joins.drop_epoch("porch", 2)
    assert len(joins) == 1


def test_a_segment_runs_once_all_inputs_are_there_with_both_ways_traces() -> None:
    joins = Joins()
    device, edge = Hop("device-1", "device", 9.0), Hop("edge-1", "edge", 1.0)
    assert joins.add(tensor(2, key(), 2, device, edge), (1, 2)) is None
    assert len(joins) == 1
    run = joins.add(tensor(1, key(), 1, device), (1, 2))
    assert run is not None
    assert run.trace == (device, edge)
    assert run.decode_seconds == 1.0
    assert {number: int(held[0, 0]) for number, held in run.inputs.items()} == {1: 1, 2: 2}
    assert len(joins) == 0


def test_a_repeated_tensor_does_not_run_again() -> None:
    joins = Joins()
    assert joins.add(tensor(1, key()), (1,)) is not None
    assert joins.add(tensor(1, key()), (1,)) is None
    assert len(joins) == 0


def test_a_later_attempt_runs_again_and_an_earlier_one_never_mixes_in() -> None:
    joins = Joins()
    assert joins.add(tensor(1, key(attempt=1), 1), (1, 2)) is None
    assert joins.add(tensor(1, key(attempt=2), 3), (1, 2)) is None
    assert joins.add(tensor(2, key(attempt=1), 2), (1, 2)) is None
    run = joins.add(tensor(2, key(attempt=2), 4), (1, 2))
    assert run is not None
    assert run.key.attempt == 2
    assert {number: int(held[0, 0]) for number, held in run.inputs.items()} == {1: 3, 2: 4}
    assert joins.add(tensor(1, key(attempt=1)), (1,)) is None
    assert joins.add(tensor(1, key(attempt=3)), (1,)) is not None


def test_what_is_older_than_the_oldest_open_frame_is_forgotten() -> None:
    joins = Joins()
    for sequence in (1, 2, 3):
        joins.add(tensor(1, key(sequence)), (1, 2))
    joins.add(tensor(1, key(4, oldest_open=3)), (1, 2))
    assert len(joins) == 2
    joins.add(tensor(1, key(5, oldest_open=2)), (1, 2))
    assert len(joins) == 3


def test_two_ways_traces_are_merged_in_tier_order_each_node_once() -> None:
    device, edge, cloud = (Hop(f"{tier}-1", tier, ts) for tier, ts in (("device", 9.0), ("edge", 5.0), ("cloud", 1.0)))
    assert merge((device, cloud), (device, edge)) == (device, edge, cloud)
    assert merge((), ()) == ()


def test_a_state_is_news_for_people_when_life_or_session_changed_and_always_taken() -> None:
    peers = Peers()
    ready = state(EDGE).state
    assert peers.learn_state(ready)
    assert not peers.learn_state(replace(ready, ts=5.0))
    assert peers.learn_state(replace(ready, state=LifeState.DRAINING))
    assert peers.learn_state(replace(ready, session="two"))
    peers.learn_state(replace(ready, session="two", births=2))
    assert peers.incarnation(EDGE) == ("two", 2)


def test_an_old_sessions_will_says_nothing_about_the_present_one() -> None:
    peers = Peers()
    peers.learn_state(state(EDGE, session="two").state)
    assert not peers.learn_state(state(EDGE, LifeState.LOST, session="one").state)
    assert peers.alive(EDGE)
    assert peers.learn_state(state(EDGE, LifeState.LOST, session="two").state)
    assert not peers.alive(EDGE)


@pytest.mark.parametrize("life", LifeState)
def test_a_node_takes_part_while_ready_or_draining(life: LifeState) -> None:
    peers = Peers()
    peers.learn_state(state(EDGE, life, births=3).state)
    takes_part = life in (LifeState.READY, LifeState.DRAINING)
    assert peers.alive(EDGE) is takes_part
    assert peers.incarnation(EDGE) == (("one", 3) if takes_part else None)


def test_a_node_is_ready_for_a_plan_only_in_its_present_session() -> None:
    peers = Peers()
    peers.applied[EDGE] = applied(EDGE, (1, 2)).applied
    assert not peers.ready_for(EDGE, plan(2))
    peers.learn_state(state(EDGE).state)
    assert peers.ready_for(EDGE, plan(2))
    assert not peers.ready_for(EDGE, plan(3))
    peers.learn_state(state(EDGE, session="two").state)
    assert not peers.ready_for(EDGE, plan(2))
    assert peers.stream_applied(EDGE, CAM) is None
    peers.applied[EDGE] = applied(EDGE, (2,), session="two").applied
    assert peers.ready_for(EDGE, plan(2))
    peers.learn_state(state(EDGE, LifeState.LOST, session="two").state)
    assert not peers.ready_for(EDGE, plan(2))


def test_news_of_another_node_is_logged_once_and_its_own_is_not() -> None:
    machine = TierMachine(EDGE, {"chain": GRAPH})
    assert [log.text for log in all_of(do.Log, machine.handle(state(CLOUD), 0.0))] == ["cloud-1 (cloud) is ready"]
    assert machine.handle(state(CLOUD), 0.0) == []
    assert machine.handle(state(EDGE), 0.0) == []
