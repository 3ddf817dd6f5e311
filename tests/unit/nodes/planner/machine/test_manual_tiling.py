"""Tiles as a person places them: what the planner publishes, what it refuses, and when it takes them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from nodes.planner.costs.block_seconds import BlockSeconds
from nodes.planner.costs.node_costs import NodeCosts
from nodes.planner.machine import events as pe
from nodes.planner.machine.planner import PlannerMachine, PlannerSettings
from nodes.planner.machine.stream import FORCED
from nodes.protocol.messages import (
    WORKER,
    Applied,
    LifeState,
    LinkReport,
    NodeInfo,
    NodeState,
    SegmentSeconds,
    StreamApplied,
)
from nodes.protocol.reports import LEAST_FRAMES
from nodes.tier.machine import events as ev
from pipeline.plan import NodeId, Plan
from pipeline.profiling.profile import Profile
from tests.graphs import chain
from tests.properties.symbolic import HEIGHT, MODEL, symbolic
from tests.unit.nodes.tier.machine.test_tier import CAM, CLOUD, DEVICE, EDGE

GRAPH = symbolic(chain(8, 8, 8, 8, 8))
ONE, TWO = NodeId("worker-1"), NodeId("worker-2")
ROLES = {DEVICE: ("device", ""), EDGE: ("edge", ""), CLOUD: ("cloud", ""), ONE: ("edge", WORKER), TWO: ("edge", WORKER)}


def info_of(node: NodeId, session: str = "one", digest: str = GRAPH.digest) -> NodeInfo:
    tier, role = ROLES[node]
    streams = {CAM: MODEL} if node == DEVICE else {}
    return NodeInfo(node, tier, session, "1", "tf", "2", 1, "x86", {MODEL: digest}, streams, None, role)


def profile_of() -> Profile:
    """A tenth of a second for each block."""
    times = (0.0, 0.1, 0.1, 0.1, 0.1)
    return Profile(MODEL, GRAPH.digest, "tf", "2", 1, "x86", times, times, 0.4, 0.0)


@dataclass
class Planner:
    """A planner's machine, what it has published, and its last answer."""

    machine: PlannerMachine = field(
        default_factory=lambda: PlannerMachine(
            PlannerSettings(settle_s=0.5, min_seconds_between_plans=0.0, prepare_timeout_s=60.0, lost_after_s=1e9),
            started_at=0.0,
        )
    )
    now: float = 0.0
    plans: list[Plan] = field(default_factory=list)
    answer: Mapping[str, object] = field(default_factory=dict)

    def __call__(self, *events: pe.PlannerEvent) -> None:
        for event in events:
            actions = self.machine.handle(event, self.now, self.now)
            self.machine.validate()
            for action in actions:
                if isinstance(action, pe.PublishPlan):
                    self.plans.append(action.plan)
                elif isinstance(action, pe.Reply):
                    self.answer = action.answer

    def come(self, *nodes: NodeId, session: str = "one", digest: str = GRAPH.digest) -> None:
        """All that nodes say of themselves when they start."""
        self(pe.ManifestArrived(GRAPH))
        for node in nodes:
            self(
                ev.PeerStateArrived(NodeState(node, ROLES[node][0], LifeState.READY, session)),
                pe.InfoArrived(info_of(node, session, digest)),
                pe.ProfileArrived(node, profile_of()),
                pe.LinkArrived(LinkReport(node, session, 1e9, 1e9, 1e-4)),
            )

    def place(
        self, grid: str = "2x1", stack: str = "2:3", workers: Sequence[str] = (), edge_from: str | None = "1"
    ) -> str:
        """The error that it is answered with, empty when it is done."""
        tiles = pe.TilesByHand(grid, stack, tuple(map(NodeId, workers)))
        self(pe.PlaceRequested(CAM, "ticket", edge_from, None, tiles=tiles))
        return str(self.answer.get("error", ""))

    def lose(self, node: NodeId) -> None:
        self(ev.PeerStateArrived(NodeState(node, ROLES[node][0], LifeState.LOST, "one")))
        self.wait()

    def wait(self, seconds: float = 10.0) -> None:
        self.now += seconds
        self(ev.Tick())

    @property
    def plan(self) -> Plan:
        return self.plans[-1]


@pytest.fixture
def planner() -> Planner:
    made = Planner()
    made.come(DEVICE, EDGE, CLOUD, ONE, TWO)
    made.wait()
    return made


def test_a_worker_never_gets_a_stage() -> None:
    planner = Planner()
    planner.come(DEVICE, ONE)
    planner.wait()
    assert set(planner.plan.nodes.values()) == {DEVICE}
    tiles = "there is no usable edge node (none has come)"
    assert tiles in planner.place()


def test_tiles_are_published_with_all_workers_that_can_taking_them_in_turn(planner: Planner) -> None:
    assert planner.place("3x1") == ""
    assert planner.plan.planner == FORCED
    assert planner.plan.tiles is not None
    assert planner.plan.tiles.rows == (1,) * HEIGHT
    assert planner.plan.tiles.workers == (ONE, TWO, ONE)
    epoch = planner.plan.epoch
    assert planner.place("1,2x1", workers=[TWO, EDGE]) == ""
    assert planner.plan.epoch == epoch + 1
    assert planner.plan.tiles.rows == (1, 2)
    assert planner.plan.workers == (TWO,)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"grid": "4x1"}, "ask for 3 or fewer"),
        ({"grid": "0x1"}, "grid"),
        ({"stack": "0:2"}, "the input is not computed"),
        ({"stack": "3:2"}, "exchange them"),
        ({"stack": "nonsense"}, "give FROM:TO"),
        ({"edge_from": "3"}, "stands on the device; tiles are the edge's"),
        ({"edge_from": None}, "give --edge-from"),
        ({"workers": ["worker-9"]}, "worker-9 is not there"),
        ({"workers": [DEVICE]}, "device-1 is not of the edge"),
        ({"workers": [ONE, TWO, EDGE]}, "3 workers for 2 tiles"),
    ],
)
def test_tiles_that_cannot_be_had_are_refused_and_change_nothing(
    planner: Planner, asked: dict[str, str], said: str
) -> None:
    before = planner.plan
    assert said in planner.place(**asked)
    assert planner.plan is before


def test_a_worker_with_another_model_or_that_is_lost_cannot_be_named(planner: Planner) -> None:
    planner.come(TWO, digest="another")
    assert "worker-2 has another model" in planner.place(workers=[TWO])
    planner.lose(ONE)
    assert "worker-1 is lost; those that can compute tiles: edge-1" in planner.place(workers=[ONE])
    assert "0 workers for 2 tiles" in planner.place()


def test_a_lost_worker_changes_no_plan_since_the_head_stands_in(planner: Planner) -> None:
    planner.place()
    count = len(planner.plans)
    planner.lose(ONE)
    assert len(planner.plans) == count


def test_a_placement_goes_without_its_tiles_while_a_worker_refuses_them(planner: Planner) -> None:
    planner.place()
    epoch, tiles = planner.plan.epoch, planner.plan.tiles
    planner(ev.PeerAppliedArrived(Applied(ONE, "one", {CAM: StreamApplied(epoch, (), {epoch: "no memory"})})))
    assert (planner.plan.epoch, planner.plan.planner, planner.plan.tiles) == (epoch + 1, FORCED, None)
    assert "worker-1 refuses its tiles" in planner.plan.reason
    planner.come(ONE, session="two")
    planner.wait()
    assert (planner.plan.epoch, planner.plan.tiles) == (epoch + 2, tiles)


def test_a_placement_goes_without_its_tiles_while_a_worker_drains(planner: Planner) -> None:
    planner.place()
    planner(ev.PeerStateArrived(NodeState(ONE, "edge", LifeState.DRAINING, "one")))
    assert planner.plan.tiles is None
    assert "worker-1 is draining" in planner.plan.reason
    planner(ev.PeerStateArrived(NodeState(ONE, "edge", LifeState.READY, "one")))
    assert planner.plan.tiles is not None


def test_a_placement_goes_without_its_tiles_when_a_living_worker_never_prepares(planner: Planner) -> None:
    planner.place()
    epoch = planner.plan.epoch
    for _ in range(2):
        planner(ev.Tick())
        for node in (EDGE, TWO):
            planner(ev.PeerAppliedArrived(Applied(node, "one", {CAM: StreamApplied(epoch, (epoch,))})))
        planner.wait(61.0)
    assert planner.plan.tiles is None


def test_a_head_is_held_to_the_blocks_that_it_runs_itself(planner: Planner) -> None:
    planner.place(stack="2:3")
    known = NodeCosts(BlockSeconds({EDGE: info_of(EDGE)}, {GRAPH.digest: GRAPH}))
    known.learn_profile(EDGE, profile_of())
    basis = known.blocks.basis(EDGE, MODEL, GRAPH.digest)
    assert basis is not None
    for took_s, factor in ((0.2, 1.0), (0.4, 2.0)):
        for second in range(20):
            report = SegmentSeconds(CAM, planner.plan.epoch, LEAST_FRAMES, took_s)
            known.learn_segments(EDGE, [report], [planner.plan], float(second))
        assert known.factor(EDGE, MODEL, basis) == pytest.approx(factor, rel=0.3)


def test_a_head_is_not_held_to_a_rest_that_is_next_to_nothing(planner: Planner) -> None:
    planner.place(stack="2:3")
    known, profile = NodeCosts(BlockSeconds({EDGE: info_of(EDGE)}, {GRAPH.digest: GRAPH})), profile_of()
    known.learn_profile(EDGE, replace(profile, seconds=tuple(seconds / 1e3 for seconds in profile.seconds)))
    for second in range(20):
        report = SegmentSeconds(CAM, planner.plan.epoch, LEAST_FRAMES, 0.01)
        known.learn_segments(EDGE, [report], [planner.plan], float(second))
    basis = known.blocks.basis(EDGE, MODEL, GRAPH.digest)
    assert basis is not None
    assert known.factor(EDGE, MODEL, basis) == pytest.approx(1.0, abs=0.1)


def test_a_planner_that_comes_back_goes_on_with_the_tiles(planner: Planner) -> None:
    planner.place()
    again = Planner()
    again(pe.PlanSeen(planner.plan))
    again.come(DEVICE, EDGE, CLOUD, ONE, TWO)
    again.wait()
    assert again.plan.tiles == planner.plan.tiles
    assert again.plan.epoch == planner.plan.epoch
    again(pe.PlaceRequested(CAM, "ticket", auto=True))
    assert again.plan.planner != FORCED
