"""A tier node's decisions: which epochs it holds, when it computes, what it sends, and what it knows of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest

from nodes.protocol.messages import Applied, LifeState, NodeState, StreamApplied
from nodes.protocol.peers import EPOCHS_AHEAD
from nodes.tier.machine import actions as do
from nodes.tier.machine import events as ev
from nodes.tier.machine.epochs import TRANSITIONS, EpochTable, Phase
from nodes.tier.machine.joins import NEAR, Joins
from nodes.tier.machine.tier import TierMachine
from pipeline.cost import Prediction
from pipeline.graph import ModelGraph
from pipeline.placement import Placement, Stage, Tier
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.wire import Array, FrameKey, Hop
from tests.graphs import chain

D, E, C = Tier
CAM, PORCH = StreamId("cam"), StreamId("porch")
DEVICE, EDGE, EDGE_2, CLOUD = map(NodeId, ("device-1", "edge-1", "edge-2", "cloud-1"))
GRAPH = chain(8, 8, 8, 8)
TIERS = {DEVICE: D, EDGE: E, EDGE_2: E, CLOUD: C}
SPLIT: Placement = (D, D, E, C)
A = TypeVar("A", bound=do.Action)


def plan(epoch: int, placement: Placement = SPLIT, *, edge: NodeId = EDGE, graph: ModelGraph = GRAPH) -> Plan:
    names = {D: DEVICE, E: edge, C: CLOUD}
    return Plan(
        stream=CAM,
        epoch=epoch,
        model="chain",
        digest=graph.digest,
        nodes={tier: names[tier] for tier in sorted({*placement})},
        placement=placement,
        predicted=Prediction(0.1, {}, {}),
        planner="exact",
        reason="because",
        created_ts=1.0,
    )


def state(
    node: NodeId, life: LifeState = LifeState.READY, *, session: str = "one", births: int = 1
) -> ev.PeerStateArrived:
    return ev.PeerStateArrived(NodeState(node, TIERS[node].label, life, session, births))


def applied(
    node: NodeId,
    ready: Iterable[int] = (),
    *,
    seen: int | None = None,
    holds: Iterable[int] = (),
    session: str = "one",
    refused: Mapping[int, str] | None = None,
    active: int | None = None,
    preparing: Iterable[int] = (),
) -> ev.PeerAppliedArrived:
    ready = tuple(ready)
    newest = max(ready, default=0) if seen is None else seen
    held = StreamApplied(newest, ready, refused or {}, active, tuple(holds), tuple(preparing))
    return ev.PeerAppliedArrived(Applied(node, session, {CAM: held}))


def key(sequence: int = 1, *, epoch: int = 1, attempt: int = 1, oldest_open: int = 1) -> FrameKey:
    return FrameKey(CAM, epoch, sequence, attempt, oldest_open)


def array(value: int) -> Array:
    return np.full((1, 8), value, np.uint8)


def tensor(number: int, at: FrameKey, value: int = 0, *hops: Hop) -> ev.TensorArrived:
    return ev.TensorArrived(at, number, array(value), hops, 0.5)


def all_of(kind: type[A], actions: Sequence[do.Action]) -> list[A]:
    return [action for action in actions if isinstance(action, kind)]


def counted(actions: Sequence[do.Action]) -> list[str]:
    return [count.name for count in all_of(do.Count, actions)]


def work(actions: Sequence[do.Action]) -> list[do.Action]:
    """What is neither counted nor logged."""
    return [action for action in actions if not isinstance(action, do.Count | do.Log)]


def edge_with(*epochs: int) -> TierMachine:
    """An edge that has prepared these epochs of `plan`."""
    machine = TierMachine(EDGE, {"chain": GRAPH})
    for epoch in epochs:
        machine.handle(ev.PlanArrived(plan(epoch)), 0.0)
        machine.handle(ev.Prepared(CAM, epoch), 0.0)
    return machine


# Epochs.


def table_in(phase: Phase | None) -> EpochTable:
    table = EpochTable(EDGE, {"chain": GRAPH})
    if phase is not None:
        table.plan_arrived(ev.PlanArrived(plan(1)))
    if phase is Phase.READY:
        table.prepared(ev.Prepared(CAM, 1))
    if phase is Phase.REFUSED:
        table.prepared(ev.PrepareFailed(CAM, 1, "no memory"))
    return table


def test_of_many_plans_a_few_are_prepared_and_then_the_newest() -> None:
    machine = TierMachine(EDGE, {"chain": GRAPH})
    asked = []
    for epoch in range(1, 2_001):
        asked += all_of(do.Prepare, machine.handle(ev.PlanArrived(plan(epoch)), 0.0))
        machine.validate()
    assert [prepare.plan.epoch for prepare in asked] == [1, 2, 3]
    (then,) = all_of(do.Prepare, machine.handle(ev.Prepared(CAM, 1), 0.0))
    assert then.plan.epoch == 2_000
    machine.validate()
    assert not all_of(do.Prepare, machine.handle(ev.PrepareFailed(CAM, 2, "no memory"), 0.0))


def test_an_epoch_far_beyond_all_that_is_known_is_refused_and_changes_nothing() -> None:
    machine = edge_with(1)
    for epoch in (EPOCHS_AHEAD + 2, 10**12):
        (refused,) = machine.handle(ev.PlanArrived(plan(epoch)), 0.0)
        assert isinstance(refused, do.Refuse)
        assert refused.about == "plan/cam"
        assert str(EPOCHS_AHEAD + 1) in refused.why
    assert all_of(do.Prepare, machine.handle(ev.PlanArrived(plan(2)), 0.0))


def test_a_plan_that_replaces_one_of_its_epoch_is_not_ready_because_the_other_is() -> None:
    machine = TierMachine(EDGE, {"chain": GRAPH})
    machine.handle(ev.PlanArrived(plan(1)), 0.0)
    machine.handle(ev.PlanArrived(replace(plan(1), created_ts=9.0)), 0.0)
    assert not machine.epochs.applied()[CAM].ready, "the first of the two was prepared"
    machine.handle(ev.Prepared(CAM, 1), 0.0)
    assert not machine.epochs.applied()[CAM].ready
    machine.handle(ev.Prepared(CAM, 1), 0.0)
    assert machine.epochs.applied()[CAM].ready == (1,)


@pytest.mark.parametrize("attempt", [2 + NEAR, 10**12])
def test_an_attempt_out_of_nowhere_does_not_keep_the_real_ones_from_being_run(attempt: int) -> None:
    joins = Joins()
    assert not joins.add(tensor(1, key(attempt=attempt)), (1, 2))
    assert not joins.add(tensor(1, key()), (1, 2))
    assert joins.add(tensor(2, key()), (1, 2))
    assert joins.add(tensor(2, key(attempt=attempt)), (1, 2))
    assert joins.add(tensor(1, key(attempt=2)), (1,))
    joins.validate()


def test_a_low_water_mark_out_of_nowhere_makes_nothing_forgotten_or_kept_for_ever() -> None:
    joins = Joins()
    joins.add(tensor(1, key()), (1, 2))
    joins.add(tensor(1, replace(key(), sequence=10**14, oldest_open=10**14)), (1,))
    assert len(joins) == 1
    assert joins.add(tensor(2, key()), (1, 2))


def test_a_device_that_counts_from_one_again_leaves_nothing_behind() -> None:
    joins = Joins()
    for first in (1_000_000, 1):
        for sequence in range(first, first + 10_000):
            joins.add(tensor(1, replace(key(), sequence=sequence, oldest_open=sequence)), (1,))
        joins.validate()
    assert len(joins._ran) <= 2 * (1 + 1)


def test_what_waits_is_bounded_in_bytes() -> None:
    joins = Joins(limit_bytes=10 * array(1).nbytes)
    for sequence in range(1, 100):
        joins.add(tensor(1, replace(key(), sequence=sequence, oldest_open=1)), (1, 2))
        joins.validate()
    assert len(joins) == 10


def phase_of(table: EpochTable) -> Phase | None:
    said = table.applied().get(CAM)
    if said is not None and 1 in said.refused:
        return Phase.REFUSED
    held = table.find(CAM, 1)
    return held.phase if held else None


@pytest.mark.parametrize("phase", [None, *(phase for phase in Phase if phase is not Phase.WAITING)])
@pytest.mark.parametrize("event", [ev.PlanArrived(plan(1)), ev.Prepared(CAM, 1), ev.PrepareFailed(CAM, 1, "no memory")])
def test_an_epoch_moves_as_the_table_says_and_stays_otherwise(
    phase: Phase | None, event: ev.PlanArrived | ev.Prepared | ev.PrepareFailed
) -> None:
    table = table_in(phase)
    assert phase_of(table) is phase
    if isinstance(event, ev.PlanArrived):
        table.plan_arrived(event)
    else:
        table.prepared(event)
    assert phase_of(table) is TRANSITIONS.get((phase, type(event)), phase)


def test_a_plan_is_prepared_then_announced_ready() -> None:
    machine = TierMachine(EDGE, {"chain": GRAPH})
    assert machine.handle(ev.PlanArrived(plan(1)), 0.0) == [
        do.Prepare(plan(1), Stage(E, (2,), (1,), (2,), ())),
        do.AnnounceApplied({CAM: StreamApplied(1, preparing=(1,))}),
    ]
    assert machine.handle(ev.Prepared(CAM, 1), 0.0) == [do.AnnounceApplied({CAM: StreamApplied(1, (1,))})]
    assert machine.handle(ev.PlanArrived(plan(1)), 0.0) == []
    assert machine.handle(ev.Tick(), 9.0) == []


def test_a_plan_without_this_node_is_seen_and_nothing_else() -> None:
    machine = TierMachine(EDGE_2, {"chain": GRAPH})
    assert machine.handle(ev.PlanArrived(plan(4)), 0.0) == [do.AnnounceApplied({CAM: StreamApplied(4)})]


def test_an_older_plan_than_the_newest_is_ignored() -> None:
    machine = edge_with(3)
    assert machine.handle(ev.PlanArrived(plan(2)), 0.0) == []
    assert machine.expected(key(epoch=2), 1) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (plan(1, graph=replace(GRAPH, digest="beef")), "differs between nodes: edge-1 has c0ffee00, the plan has beef"),
        (plan(1, (D, D, E)), "placement of 3 blocks for a model of 4"),
        (plan(1, (D, E, D, C)), "data would flow backwards"),
        (replace(plan(1), model="vgg"), "node edge-1 has no model 'vgg', it has: chain"),
    ],
)
def test_a_plan_that_cannot_be_this_nodes_is_refused_with_the_reason(wrong: Plan, said: str) -> None:
    actions = TierMachine(EDGE, {"chain": GRAPH}).handle(ev.PlanArrived(wrong), 0.0)
    assert not all_of(do.Prepare, actions)
    assert counted(actions) == ["refused_plans_total"]
    refused = all_of(do.AnnounceApplied, actions)[0].streams[CAM].refused
    assert said in refused[1]


def test_a_plan_whose_model_comes_later_is_prepared_then() -> None:
    machine = TierMachine(EDGE, {"chain": GRAPH})
    refused = machine.handle(ev.PlanArrived(replace(plan(1), model="chain.2")), 0.0)
    assert "has no model" in all_of(do.AnnounceApplied, refused)[0].streams[CAM].refused[1]
    actions = machine.handle(ev.ModelArrived("chain.2", GRAPH, ()), 0.0)
    assert [action.plan.model for action in all_of(do.Prepare, actions)] == ["chain.2"]
    assert machine.epochs.applied()[CAM].refused == {}
    machine.handle(ev.PlanArrived(plan(2)), 0.0)
    assert not all_of(do.Prepare, machine.handle(ev.ModelArrived("chain.2", GRAPH, ()), 0.0))


def test_a_plan_that_cannot_be_prepared_is_released_and_refused_until_a_newer_one() -> None:
    machine = TierMachine(EDGE, {"chain": GRAPH})
    machine.handle(ev.PlanArrived(plan(1)), 0.0)
    assert work(machine.handle(ev.PrepareFailed(CAM, 1, "no memory"), 0.0)) == [
        do.Release(CAM, 1),
        do.AnnounceApplied({CAM: StreamApplied(1, (), {1: "no memory"})}),
    ]
    machine.handle(ev.PlanArrived(plan(2)), 0.0)
    assert machine.epochs.applied() == {CAM: StreamApplied(2, preparing=(2,))}


def test_an_old_epoch_is_held_for_as_long_as_the_device_holds_it() -> None:
    machine = edge_with(1, 2)
    assert machine.handle(applied(DEVICE, seen=2, holds=(1, 2)), 0.0) == []
    assert machine.handle(applied(DEVICE, seen=2, holds=(2,)), 0.0) == [
        do.Release(CAM, 1),
        do.AnnounceApplied({CAM: StreamApplied(2, (2,))}),
    ]


def test_a_plan_that_the_device_has_not_seen_yet_is_held() -> None:
    machine = edge_with(1, 2)
    assert machine.handle(applied(DEVICE, seen=1, holds=(1,)), 0.0) == []
    assert machine.handle(applied(DEVICE, seen=0), 0.0) == []


def test_the_newest_plan_is_kept_whatever_is_said_in_the_devices_name() -> None:
    machine = edge_with(1)
    assert machine.handle(applied(DEVICE, seen=9), 0.0) == []
    assert machine.epochs.applied() == {CAM: StreamApplied(1, (1,))}


def test_only_the_streams_device_lets_an_epoch_go() -> None:
    machine = edge_with(1, 2)
    assert machine.handle(applied(CLOUD, seen=9), 0.0) == []


def test_an_epoch_let_go_while_it_is_prepared_is_released_again_when_that_ends() -> None:
    machine = TierMachine(EDGE, {"chain": GRAPH})
    machine.handle(ev.PlanArrived(plan(1)), 0.0)
    machine.handle(state(DEVICE), 0.0)
    machine.handle(applied(DEVICE, seen=2, holds=(2,)), 0.0)
    elsewhere = ev.PlanArrived(plan(2, edge=EDGE_2))
    assert all_of(do.Release, machine.handle(elsewhere, 0.0)) == [do.Release(CAM, 1)]
    assert machine.epochs.applied()[CAM].preparing == (1,)  # it is still at it
    gone = do.AnnounceApplied({CAM: StreamApplied(machine.epochs.applied()[CAM].seen)})
    assert machine.handle(ev.Prepared(CAM, 1), 0.0) == [do.Release(CAM, 1), gone]


# Tensors.


# Joins.


# Peers.
