"""A coordinator and its workers: who is asked for a tile, who is asked instead, and what the coordinator does with the
answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from nodes.protocol.messages import Applied, LifeState, NodeState, StreamApplied
from nodes.protocol.work import Work
from nodes.tier.machine import actions as do
from nodes.tier.machine import events as ev
from nodes.tier.machine.stream import StreamSettings
from nodes.tier.machine.tier import TierMachine
from nodes.tier.machine.tile_gather import LEAST_WAIT_S, PATIENCE, SHUN_S
from pipeline.cost import Prediction
from pipeline.plan import NodeId, Plan
from pipeline.tiles.arrays import merge
from pipeline.tiles.tiling import TensorCodec, Tiling
from pipeline.wire import Array, FrameKey, Hop
from tests.graphs import chain
from tests.properties.symbolic import HEIGHT, MODEL, WIDTH, model_inputs, run_blocks, symbolic
from tests.unit.nodes.tier.machine.test_tier import CAM, DEVICE, EDGE, A, D, E, all_of, counted, work

GRAPH = symbolic(chain(8, 8, 8, 8))
ONE, TWO, THREE = map(NodeId, ("worker-1", "worker-2", "worker-3"))
VALUES = run_blocks(GRAPH, range(4), model_inputs(GRAPH, 7))
PREDICTED_S = 0.1
LATE_S = max(LEAST_WAIT_S, PATIENCE * PREDICTED_S)


def tiled_plan(*workers: NodeId, epoch: int = 1) -> Plan:
    """Block 2 in as many rows as there are workers named."""
    rows = (HEIGHT - len(workers) + 1, *[1] * (len(workers) - 1))
    return Plan(
        stream=CAM,
        epoch=epoch,
        model=MODEL,
        digest=GRAPH.digest,
        nodes={D: DEVICE, E: EDGE},
        placement=(D, E, E, E),
        predicted=Prediction(PREDICTED_S, {}, {}),
        planner="forced",
        reason="because",
        created_ts=1.0,
        tiles=Tiling(2, 2, rows, (WIDTH,), workers, (TensorCodec(1, "bitmap"), TensorCodec(2, "shuffle-zstd"))),
    )


def come(machine: TierMachine, *nodes: NodeId, session: str = "one", births: int = 1) -> list[do.Action]:
    """These are there and have prepared the plan."""
    actions = []
    for node in nodes:
        said = NodeState(node, "edge", LifeState.READY, session, births)
        actions += machine.handle(ev.PeerStateArrived(said), 0.0)
        actions += machine.handle(ev.PeerAppliedArrived(Applied(node, session, {CAM: StreamApplied(1, (1,))})), 0.0)
    return actions


def lost(node: NodeId) -> ev.PeerStateArrived:
    return ev.PeerStateArrived(NodeState(node, "edge", LifeState.LOST, "one", 1))


def coordinator(*workers: NodeId, there: Sequence[NodeId] | None = None) -> TierMachine:
    """An edge that is ready to share out, of whose workers some are there."""
    machine = TierMachine(EDGE, {MODEL: GRAPH})
    machine.handle(ev.PlanArrived(tiled_plan(*workers)), 0.0)
    machine.handle(ev.Prepared(CAM, 1), 0.0)
    come(machine, *(workers if there is None else there))
    return machine


def key(tile: int = 0, *, attempt: int = 1, sequence: int = 5, oldest_open: int = 1) -> FrameKey:
    return FrameKey(CAM, 1, sequence, attempt, oldest_open, tile)


def begin(machine: TierMachine, now: float = 0.0, at: FrameKey | None = None) -> list[do.Action]:
    """The first part of the stage ran."""
    return machine.handle(ev.SegmentRan(at or key(), {1: VALUES[1]}, (Hop(EDGE, "edge", 0.0),), Work.BEFORE), now)


def tile_of(machine: TierMachine, tile: int) -> Array:
    """What a worker makes of a tile."""
    held = machine.epochs.find(CAM, 1)
    assert held is not None
    assert held.tiled is not None
    rows = held.tiled.tile_map.tiles[tile - 1].regions[2].rows
    return VALUES[2][:, rows.start : rows.stop]


def back(
    machine: TierMachine, tile: int, worker: NodeId, now: float = 0.0, *, attempt: int = 1, sequence: int = 5
) -> list[do.Action]:
    hop = Hop(worker, "edge", 0.0, queue_seconds=0.002, compute_seconds=0.005)
    at = key(tile, attempt=attempt, sequence=sequence)
    return machine.handle(ev.TileArrived(at, worker, tile_of(machine, tile), (hop,)), now)


def asked(actions: Sequence[do.Action]) -> dict[int, NodeId]:
    """Who is asked for which tile; the coordinator itself where it computes one."""
    found = {action.key.tile: action.worker for action in all_of(do.SendTile, actions)}
    return found | {run.key.tile: EDGE for run in all_of(do.Run, actions) if run.work is Work.TILE}


def the(kind: type[A], actions: Sequence[do.Action]) -> A:
    (only,) = all_of(kind, actions)
    return only


# Asking.


def test_a_tensor_at_a_head_begins_with_what_comes_before_the_tiles() -> None:
    actions = coordinator(ONE, TWO).handle(ev.TensorArrived(key(), 0, VALUES[0], (), 0.5), 0.0)
    assert the(do.Run, actions).work is Work.BEFORE


def test_each_worker_is_asked_for_its_tile_and_given_its_region_only() -> None:
    actions = begin(coordinator(ONE, TWO))
    assert asked(actions) == {1: ONE, 2: TWO}
    for sent in all_of(do.SendTile, actions):
        rows = slice(0, 2) if sent.key.tile == 1 else slice(2, 3)
        assert np.array_equal(sent.array, VALUES[1][:, rows])
        assert sent.codec == "bitmap"


def test_the_tile_of_a_worker_that_is_not_ready_goes_to_the_one_with_the_least_to_do() -> None:
    assert asked(begin(coordinator(ONE, TWO, THREE, there=[ONE, THREE]))) == {1: ONE, 2: THREE, 3: THREE}


def test_a_head_without_workers_computes_all_tiles() -> None:
    assert asked(begin(coordinator(ONE, TWO, there=[]))) == {1: EDGE, 2: EDGE}


def test_a_head_that_is_named_computes_its_own_tile() -> None:
    assert asked(begin(coordinator(ONE, EDGE))) == {1: ONE, 2: EDGE}


# Answers.


def test_with_the_last_tile_the_rest_of_the_stage_runs_on_all_of_them_in_order() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine)
    assert all_of(do.Run, back(machine, 2, TWO)) == []
    run = the(do.Run, back(machine, 1, ONE))
    held = machine.epochs.find(CAM, 1)
    assert held is not None
    assert held.tiled is not None
    assert run.work is Work.AFTER
    assert np.array_equal(merge(held.tiled.tile_map, run.parts), VALUES[2])
    ran = ev.SegmentRan(run.key, {3: VALUES[3]}, run.trace, Work.AFTER)
    assert the(do.SendOutput, machine.handle(ran, 0.0)).tensor == 3


def test_a_tile_tells_what_it_took_on_the_heads_clock() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine, 10.0)
    note = the(do.NoteTile, back(machine, 1, ONE, 10.02))
    assert (note.worker, note.queue_seconds, note.compute_seconds) == (ONE, 0.002, 0.005)
    assert abs(note.transfer_seconds - 0.013) < 1e-9


def test_a_tile_tells_whether_other_frames_tiles_were_out_too() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine, 10.0)
    assert the(do.NoteTile, back(machine, 1, ONE, 10.02)).was_alone
    begin(machine, 10.03, key(sequence=6))
    assert not the(do.NoteTile, back(machine, 2, TWO, 10.04)).was_alone
    for number, worker in enumerate((ONE, TWO), start=1):
        assert not the(do.NoteTile, back(machine, number, worker, 10.05, sequence=6)).was_alone
    begin(machine, 10.06, key(sequence=7))
    assert the(do.NoteTile, back(machine, 1, ONE, 10.07, sequence=7)).was_alone


def test_a_second_answer_and_one_for_a_frame_that_nobody_waits_for_are_counted_and_ignored() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine)
    back(machine, 1, ONE)
    assert counted(back(machine, 1, ONE)) == ["duplicate_tiles_ignored_total"]
    stranger = ev.TileArrived(key(1, sequence=99), ONE, tile_of(machine, 1), ())
    assert counted(machine.handle(stranger, 0.0)) == ["stale_tiles_total"]
    beyond = ev.TileArrived(key(3), ONE, tile_of(machine, 1), ())
    assert counted(machine.handle(beyond, 0.0)) == ["stale_tiles_total"]


# Asking again.


def test_a_late_tile_is_asked_of_another_worker_then_of_the_head_and_of_nobody_twice() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine, 1.0)
    back(machine, 2, TWO, 1.01)
    assert work(machine.handle(ev.Tick(), 1.0 + LATE_S - 0.01)) == []
    again = machine.handle(ev.Tick(), 1.0 + LATE_S)
    assert asked(again) == {1: TWO}
    assert counted(again) == ["tiles_asked_again_total"]
    assert asked(machine.handle(ev.Tick(), 100.0)) == {1: EDGE}
    assert work(machine.handle(ev.Tick(), 1e6)) == []
    assert the(do.Run, back(machine, 1, ONE, 1e6)).work is Work.AFTER


def test_a_lost_or_reborn_workers_tile_is_asked_of_its_deputy_at_once_and_then_of_the_one_with_least_to_do() -> None:
    machine = coordinator(ONE, TWO, THREE)
    begin(machine)
    back(machine, 3, THREE)
    assert asked(machine.handle(lost(ONE), 0.01)) == {1: TWO}
    assert asked(come(machine, TWO, births=2)) == {1: THREE, 2: THREE}


def test_what_a_worker_took_while_it_compiled_is_not_noted() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine)
    hop = Hop(ONE, "edge", 0.0, compute_seconds=0.005, is_compiling=True)
    assert not all_of(do.NoteTile, machine.handle(ev.TileArrived(key(1), ONE, tile_of(machine, 1), (hop,)), 0.01))


def test_a_worker_that_was_late_comes_last_until_it_answers_or_some_time_has_passed() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine)
    back(machine, 2, TWO)
    machine.handle(ev.Tick(), LATE_S)
    back(machine, 1, TWO, LATE_S)
    assert asked(begin(machine, LATE_S, key(sequence=6))) == {1: TWO, 2: TWO}
    for tile in (1, 2):
        machine.handle(ev.TileArrived(key(tile, sequence=6), TWO, tile_of(machine, tile), ()), LATE_S)
    assert asked(begin(machine, LATE_S + SHUN_S, key(sequence=7))) == {1: ONE, 2: TWO}


def test_a_worker_that_answers_late_is_asked_again() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine)
    back(machine, 2, TWO)
    machine.handle(ev.Tick(), LATE_S)
    back(machine, 1, ONE, LATE_S)
    assert asked(begin(machine, LATE_S, key(sequence=6))) == {1: ONE, 2: TWO}


def test_a_slow_worker_is_given_more_time() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine)
    back(machine, 2, TWO, 0.01)
    back(machine, 1, ONE, 2.0)
    begin(machine, 10.0, key(sequence=6))
    machine.handle(ev.TileArrived(key(2, sequence=6), TWO, tile_of(machine, 2), ()), 10.01)
    assert asked(machine.handle(ev.Tick(), 10.0 + 2.0 * PATIENCE - 0.01)) == {}
    assert asked(machine.handle(ev.Tick(), 10.0 + 2.0 * PATIENCE)) == {1: TWO}


def test_another_attempt_asks_for_the_tiles_that_are_not_back() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine)
    back(machine, 2, TWO)
    assert asked(begin(machine, 1.0, key(attempt=2))) == {1: ONE}
    run = the(do.Run, back(machine, 1, ONE, attempt=1))
    assert run.key.attempt == 2


def test_a_frame_that_is_gathered_already_is_gathered_anew_when_it_is_submitted_again() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine)
    for tile, worker in ((1, ONE), (2, TWO)):
        back(machine, tile, worker)
    assert asked(begin(machine, 1.0, key(attempt=2))) == {1: ONE, 2: TWO}


def test_frames_that_are_closed_are_forgotten() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine)
    begin(machine, 0.0, key(sequence=6, oldest_open=6))
    assert len(machine.tile_gathers) == 1
    assert counted(back(machine, 1, ONE)) == ["stale_tiles_total"]


def test_an_epoch_that_is_let_go_takes_its_frames_along() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine)
    gone = ev.PeerAppliedArrived(Applied(DEVICE, "one", {CAM: StreamApplied(2, (), {}, 2, (2,))}))
    machine.handle(ev.PeerStateArrived(NodeState(DEVICE, "device", LifeState.READY, "one", 1)), 0.0)
    machine.handle(gone, 0.0)
    machine.handle(ev.PlanArrived(tiled_plan(ONE, epoch=2)), 0.0)
    assert len(machine.tile_gathers) == 0


# Failures.


def test_a_tile_that_a_worker_cannot_compute_is_asked_of_another_and_at_last_fails_the_frame() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine)
    back(machine, 2, TWO)
    assert asked(machine.handle(ev.TileFailed(key(1), ONE, "no memory"), 0.0)) == {1: TWO}
    assert asked(machine.handle(ev.TileFailed(key(1), TWO, "no memory"), 0.0)) == {1: EDGE}
    failed = the(do.SendFailure, machine.handle(ev.SegmentFailed(key(1), "no memory", ()), 0.0))
    assert (failed.key, failed.message) == (key(), "no memory")
    assert len(machine.tile_gathers) == 0


def test_a_failure_of_an_earlier_attempt_is_no_news() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine)
    begin(machine, 0.0, key(attempt=2))
    assert asked(machine.handle(ev.TileFailed(key(1), ONE, "no memory"), 0.0)) == {}


# What is expected.


def test_a_head_expects_the_outputs_of_its_tiles_and_a_worker_their_inputs() -> None:
    edge, worker = coordinator(ONE, TWO), TierMachine(ONE, {MODEL: GRAPH})
    worker.handle(ev.PlanArrived(tiled_plan(ONE, TWO)), 0.0)
    for tile, rows in ((1, 2), (2, 1)):
        made, read = edge.expected_tile(key(tile), 2), worker.expected(key(tile), 1)
        assert made is not None
        assert read is not None
        assert made.shape == read.shape == (1, rows, WIDTH, 1)
        assert made.name == f"tile {tile} of t2"
    for tile, tensor in ((0, 2), (3, 2), (1, 1), (1, 0)):
        assert edge.expected_tile(key(tile), tensor) is None
    for tile, tensor in ((0, 1), (3, 1), (1, 2), (1, 0)):
        assert worker.expected(key(tile), tensor) is None
    for machine, tile in product((edge, worker), (0, 1)):
        assert machine.expected(replace(key(tile), epoch=2), 1) is None
        assert machine.expected_tile(replace(key(tile), epoch=2), 2) is None


# Workers.


def test_a_worker_computes_its_tile_and_answers_the_head() -> None:
    worker = TierMachine(ONE, {MODEL: GRAPH})
    prepare = the(do.Prepare, worker.handle(ev.PlanArrived(tiled_plan(ONE, TWO)), 0.0))
    assert prepare.stage is None
    assert prepare.tiled is not None
    worker.handle(ev.Prepared(CAM, 1), 0.0)
    region = VALUES[1][:, :2]
    run = the(do.Run, worker.handle(ev.TensorArrived(key(1), 1, region, (), 0.0), 0.0))
    assert run.work is Work.TILE
    ran = ev.SegmentRan(run.key, {2: VALUES[2][:, :2]}, (Hop(ONE, "edge", 0.0),), Work.TILE)
    sent = the(do.SendOutput, worker.handle(ran, 0.0))
    assert (sent.key, sent.tensor) == (key(1), 2)
    assert the(do.SendFailure, worker.handle(ev.SegmentFailed(key(2), "no", ()), 0.0)).key == key(2)


def test_a_worker_refuses_tiles_that_its_model_does_not_have() -> None:
    wrong = Tiling(2, 2, (HEIGHT, 1), (WIDTH,), (ONE, TWO))
    for tiles, said in ((wrong, "do not cover 0 to 3"), (Tiling(2, 9, (3,), (2,), (ONE,)), "has blocks 1 to 3")):
        worker = TierMachine(ONE, {MODEL: GRAPH})
        actions = worker.handle(ev.PlanArrived(replace(tiled_plan(ONE, TWO), tiles=tiles)), 0.0)
        assert said in the(do.AnnounceApplied, actions).streams[CAM].refused[1]


# The device.


def test_a_plan_becomes_active_when_the_workers_that_live_are_ready_and_goes_on_without_them() -> None:
    device = TierMachine(DEVICE, {MODEL: GRAPH}, [StreamSettings(stream=CAM, model=MODEL)])
    device.handle(ev.PlanArrived(tiled_plan(ONE, TWO)), 0.0)
    device.handle(ev.Prepared(CAM, 1), 0.0)
    device.handle(ev.PeerStateArrived(NodeState(ONE, "edge", LifeState.READY, "one", 1)), 0.0)
    device.handle(lost(TWO), 0.0)
    assert "plan_changes_total" not in counted(come(device, EDGE))
    assert "plan_changes_total" in counted(come(device, ONE))
    device.handle(lost(ONE), 0.0)
    device.handle(ev.FrameOffered(CAM, "ticket"), 0.0)
    assert the(do.Run, device.handle(ev.FrameDecoded(CAM, 1, {0: VALUES[0]}, 0.0), 0.0)).key.sequence == 1


def test_an_answer_to_an_earlier_attempt_took_as_long_as_since_then_and_was_not_alone() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine, 0.0)
    begin(machine, 3.0, key(attempt=2))
    (note,) = all_of(do.NoteTile, back(machine, 1, ONE, 3.001, attempt=1))
    assert 2.9 < note.transfer_seconds < 3.001
    assert not note.was_alone
    machine.validate()


def test_a_tile_counts_from_a_worker_that_was_asked_only() -> None:
    machine = coordinator(ONE, TWO)
    begin(machine, 0.0)
    for worker, attempt in ((NodeId("evil"), 1), (TWO, 1), (ONE, 7)):
        assert back(machine, 1, worker, 0.1, attempt=attempt) == [do.Count("unasked_answers_total")]
    assert all_of(do.NoteTile, back(machine, 1, ONE, 0.1))
