"""The planner with tile workers: when it shares a stack out, to whom, and when it thinks again."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from nodes.config.plan_request import read_plan_request
from nodes.planner.machine import events as pe
from nodes.planner.machine.planner import PlannerMachine, PlannerSettings
from nodes.protocol.messages import (
    WORKER,
    Applied,
    GatherSeconds,
    LegSeconds,
    LifeState,
    LinkReport,
    NodeInfo,
    NodeState,
    Report,
    StreamApplied,
    TileSeconds,
)
from nodes.protocol.reports import LEAST_FRAMES, WHOLE
from nodes.tier.machine import events as ev
from pipeline.coding import CodecSpeed
from pipeline.models.graphs import shipped_graph
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.profiling.profile import Profile
from pipeline.tiles.split import nbytes
from pipeline.tiles.tiled_stack_cost import tile_seconds

GRAPH = shipped_graph("alexnet")
CAM = StreamId("cam")
DEVICE, EDGE = NodeId("device-1"), NodeId("edge-1")
WORKERS = tuple(NodeId(f"worker-{n}") for n in range(1, 5))
SECONDS = tuple(block.macs / 1e9 for block in GRAPH.blocks)
PATIENCE_S = 5.0
HALVED = 2.0
SLOW_BYTES_PER_S = 2e7


class Planner:
    """A machine that knows a device, ten times as slow as the edge and its workers, far from them."""

    def __init__(self, *workers: NodeId, codecs: Mapping[str, CodecSpeed] | None = None, rate: float = 1e8) -> None:
        settings = PlannerSettings(margin=0.1, min_seconds_between_plans=PATIENCE_S, settle_s=1.0, lost_after_s=1e9)
        self.machine, self.now = PlannerMachine(settings, started_at=0.0), 0.0
        self.plans: list[Plan] = []
        self.codecs, self.rate = dict(codecs or {}), rate
        self.transfer_s = self.gather_s = 0.0
        self(pe.ManifestArrived(GRAPH))
        for node in (DEVICE, EDGE, *workers):
            self.come(node)
        self.tick(1.0)

    @property
    def plan(self) -> Plan:
        """The newest."""
        return self.plans[-1]

    def __call__(self, event: pe.PlannerEvent, after: float = 0.0) -> list[Plan]:
        self.now += after
        actions = self.machine.handle(event, self.now, self.now)
        self.machine.validate()
        plans = [action.plan for action in actions if isinstance(action, pe.PublishPlan)]
        self.plans += plans
        return plans

    def tick(self, after: float) -> list[Plan]:
        return self(ev.Tick(), after)

    def come(self, node: NodeId) -> None:
        role = WORKER if node in WORKERS else ""
        streams = {CAM: GRAPH.name} if node == DEVICE else {}
        models = {GRAPH.name: GRAPH.digest}
        tier = "device" if node == DEVICE else "edge"
        seconds = tuple(s * 10 for s in SECONDS) if node == DEVICE else SECONDS
        self.state(node, LifeState.READY)
        info = NodeInfo(node, tier, "one", "1", "tf", "2", 1, "x86", models, streams, None, role, codecs=self.codecs)
        ratios = {codec: tuple(HALVED for _ in GRAPH.tensors) for codec in self.codecs}
        profile = Profile(GRAPH.name, GRAPH.digest, "tf", "2", 1, "x86", seconds, seconds, 1.0, 0.0, ratios=ratios)
        self(pe.InfoArrived(info))
        self(pe.ProfileArrived(node, profile))
        self(pe.LinkArrived(LinkReport(node, "one", self.rate, self.rate, 1e-3)))

    def state(self, node: NodeId, life: LifeState) -> list[Plan]:
        return self(ev.PeerStateArrived(NodeState(node, "device" if node == DEVICE else "edge", life, "one")))

    def report(self, slowness: Mapping[NodeId, float], frames: int = LEAST_FRAMES) -> list[Plan]:
        """The coordinator says what each tile took, in multiples of what the workers foresaw."""
        tiling = self.plan.tiles
        assert tiling is not None
        tile_map, tiles = tiling.tile_map(GRAPH), []
        for number, (node, tile) in enumerate(zip(tiling.workers, tile_map.tiles, strict=True), start=1):
            took = slowness.get(node, 1.0) * tile_seconds(GRAPH, tile_map.stack.blocks, tile, SECONDS)
            transfer_s = self.transfer_s
            tiles.append(TileSeconds(CAM, self.plan.epoch, number, node, frames, transfer_s, 0.0, took, transfer_s))
        gathers = (GatherSeconds(CAM, self.plan.epoch, frames, self.gather_s),) if self.gather_s else ()
        return self(pe.TelemetryArrived(EDGE, Report(tiles=tuple(tiles), gathers=gathers)), 1.0)

    def reports(self, slowness: Mapping[NodeId, float], times: int, frames: int = LEAST_FRAMES) -> list[Plan]:
        return [plan for _ in range(times) for plan in self.report(slowness, frames)]


def areas(plan: Plan) -> dict[NodeId, int]:
    """Places of the stack's output by worker."""
    assert plan.tiles is not None
    sizes = [rows * columns for rows in plan.tiles.rows for columns in plan.tiles.columns]
    return dict(zip(plan.tiles.workers, sizes, strict=True))


def test_without_workers_nothing_is_shared_out() -> None:
    assert Planner().plan.tiles is None


def test_workers_are_given_tiles_and_the_plan_says_what_they_save() -> None:
    plan = Planner(*WORKERS).plan
    assert plan.tiles is not None
    assert plan.predicted.tiles is not None
    assert set(plan.workers) <= set(WORKERS)
    assert len(plan.workers) >= 2
    assert all(plan.placement[b] is Tier.EDGE for b in plan.tiles.tile_map(GRAPH).stack.blocks)
    assert plan.predicted.tiles.seconds < plan.predicted.tiles.alone_seconds / 1.8
    assert [tile.worker for tile in plan.predicted.tiles.tiles] == list(plan.tiles.workers)
    assert "tiles on" in plan.reason
    assert Plan.from_json(plan.to_json(GRAPH), GRAPH) == plan


def test_a_worker_that_comes_is_in_the_next_map() -> None:
    planner = Planner(WORKERS[0])
    before = planner.plan
    for worker in WORKERS[1:]:
        planner.come(worker)
    planner.tick(PATIENCE_S)
    assert planner.plan.epoch == before.epoch + 1
    assert len(planner.plan.workers) > len(before.workers)


def test_a_worker_that_is_lost_is_not_in_the_next_map() -> None:
    planner = Planner(*WORKERS)
    lost = planner.plan.workers[0]
    planner.state(lost, LifeState.LOST)
    assert planner.tick(PATIENCE_S)
    assert planner.plan.tiles is not None
    assert lost not in planner.plan.workers


@pytest.mark.parametrize("frames", [1, LEAST_FRAMES])
def test_a_worker_that_slows_down_gets_less_and_steady_ones_change_nothing(frames: int) -> None:
    planner = Planner(*WORKERS)
    before = planner.plan
    assert not planner.reports({}, 8, frames)
    slow = before.workers[0]
    assert planner.reports({slow: 3.0}, 8, frames)
    assert planner.plan.epoch > before.epoch
    assert areas(planner.plan).get(slow, 0) < areas(before)[slow]
    assert before.tiles is not None
    assert planner.plan.tiles is not None
    assert (planner.plan.tiles.first, planner.plan.tiles.last) == (before.tiles.first, before.tiles.last)
    assert f"{slow} takes" in planner.plan.reason


def test_what_a_tiles_way_takes_beside_its_bytes_is_charged_and_drives_tiles_away_when_it_is_much() -> None:
    planner = Planner(*WORKERS)
    before = planner.plan.predicted.tiles
    assert before is not None
    planner.reports({}, 4)
    assert planner.plan.predicted.tiles == before
    planner.transfer_s = 0.05
    planner.reports({}, 8)
    planner.tick(PATIENCE_S)
    after = planner.plan.predicted.tiles
    assert after is not None
    assert max(tile.transfer_seconds for tile in after.tiles) == pytest.approx(0.05, rel=0.2)
    planner.transfer_s = 2.0
    reports = 0
    while planner.plan.tiles is not None and reports < 8:
        planner.report({})
        reports += 1
    assert planner.plan.tiles is None
    returned: list[Plan] = []
    for node in (DEVICE, EDGE, *WORKERS) * 300:
        if not returned:
            returned = [plan for plan in planner(pe.TelemetryArrived(node, Report()), 0.2) if plan.tiles]
    assert returned


def test_a_plan_with_tiles_is_priced_as_its_equations_have_it() -> None:
    planner = Planner(*WORKERS)
    learned = planner.machine.inventory.registry.learned
    terms, gather, tiles = learned.frame(planner.plan), learned.gather(planner.plan), planner.plan.predicted.tiles
    assert terms is not None
    assert gather is not None
    assert tiles is not None
    assert learned.filter.seconds(gather) == pytest.approx(tiles.seconds, rel=0.05)
    assert learned.filter.seconds(terms) == pytest.approx(planner.plan.predicted.seconds, rel=0.05)


def test_what_a_coordinator_takes_to_gather_is_charged_to_tiles_alone_and_drives_them_away_when_it_is_much() -> None:
    planner = Planner(*WORKERS)
    registry, before = planner.machine.inventory.registry, planner.plan
    tiles, gather_s = before.predicted.tiles, registry.learned.gather_s(EDGE)
    assert tiles is not None

    def gathers(more_s: float) -> None:
        seconds, whole = tiles.seconds - gather_s + more_s, before.predicted.seconds - gather_s + more_s
        planner.gather_s = seconds
        planner.reports({}, 1)
        legs = LegSeconds(CAM, before.epoch, 5, {WHOLE: whole})
        planner(pe.TelemetryArrived(DEVICE, Report(legs=(legs,))), 0.5)

    for _ in range(20):
        gathers(0.05)
    waited_s = registry.learned.frame_overhead_s(DEVICE, GRAPH.name)
    after = planner.plan.predicted.tiles
    assert after is not None
    assert registry.learned.gather_s(EDGE) == pytest.approx(0.05, rel=0.2)
    assert after.seconds == pytest.approx(tiles.seconds - gather_s + 0.05, rel=0.1)
    assert waited_s < 0.01
    for _ in range(20):
        if planner.plan.tiles is not None:
            gathers(tiles.alone_seconds)
    assert planner.plan.tiles is None


def test_a_head_that_refuses_tiles_runs_the_blocks_in_one_piece_until_it_starts_anew() -> None:
    planner = Planner(*WORKERS)
    before = planner.plan
    refusing = StreamApplied(before.epoch, (), {before.epoch: "tile 1 changes bits"})
    planner(ev.PeerAppliedArrived(Applied(EDGE, "one", {CAM: refusing})))
    assert planner.plan.epoch == before.epoch + 1
    assert planner.plan.tiles is None
    assert planner.plan.nodes[Tier.EDGE] == EDGE
    assert f"{EDGE} refuses tiles" in planner.plan.reason


def test_a_worker_that_a_person_excludes_has_no_tile() -> None:
    planner = Planner(*WORKERS)
    excluded = list(planner.plan.workers)
    planner(pe.PlanRequested(CAM, "ticket", read_plan_request({"constraints": {"exclude_nodes": excluded}})))
    assert not set(planner.plan.workers) & set(excluded)


def test_tiles_by_hand_are_priced_and_stay_when_the_workers_are_gone() -> None:
    planner = Planner(*WORKERS)
    asked = pe.TilesByHand(grid="2x1", stack="1:3", workers=WORKERS[:2])
    planner(pe.PlaceRequested(CAM, "ticket", "1", None, False, asked))
    plan = planner.plan
    assert plan.planner == "forced"
    assert plan.tiles is not None
    assert plan.workers == WORKERS[:2]
    assert plan.predicted.tiles is not None
    for worker in WORKERS:
        planner.state(worker, LifeState.LOST)
    planner.tick(PATIENCE_S)
    assert planner.plan.tiles == plan.tiles


# Codecs.

QUICK, SLOW = CodecSpeed(1e9, 1e9), CodecSpeed(1e6, 1e6)


def test_tiles_are_coded_where_that_pays_and_cost_less_so() -> None:
    coded, plain = (Planner(*WORKERS, codecs=c, rate=SLOW_BYTES_PER_S).plan for c in ({"bitmap": QUICK}, {}))
    assert coded.tiles is not None
    assert {one.codec for one in coded.tiles.codecs} == {"bitmap"}
    stack = coded.tiles.stack(GRAPH)
    assert [one.tensor for one in coded.tiles.codecs] == [*stack.inputs, stack.output]
    assert coded.predicted.seconds < plain.predicted.seconds
    assert coded.predicted.tiles is not None
    tile_map = coded.tiles.tile_map(GRAPH)
    for cost, tile in zip(coded.predicted.tiles.tiles, tile_map.tiles, strict=True):
        if cost.worker != EDGE:
            sent = sum(nbytes(GRAPH, t, tile.regions[t]) for t in stack.inputs)
            assert cost.nbytes == math.ceil(sent / HALVED)
            assert cost.coding_seconds == pytest.approx(sent * 2e-9)
    assert "tiles on" in coded.reason
    assert "by bitmap" in coded.reason
    assert Plan.from_json(coded.to_json(GRAPH), GRAPH) == coded


@pytest.mark.parametrize("codecs", [{"bitmap": SLOW}, {"of a later trisect": QUICK}])
def test_tiles_go_as_they_are_where_no_codec_pays(codecs: Mapping[str, CodecSpeed]) -> None:
    plan = Planner(*WORKERS, codecs=codecs).plan
    assert plan.tiles is not None
    assert plan.tiles.codecs == ()


def test_tiles_by_hand_are_coded_as_the_planner_sees_fit_and_go_as_they_are_when_it_is_asked_to() -> None:
    planner = Planner(*WORKERS, codecs={"bitmap": QUICK}, rate=SLOW_BYTES_PER_S)
    asked = pe.TilesByHand(grid="2x1", stack="1:3", workers=WORKERS[:2])
    planner(pe.PlaceRequested(CAM, "ticket", "1", None, False, asked))
    tiles = planner.plan.tiles
    assert tiles is not None
    assert {one.codec for one in tiles.codecs} == {"bitmap"}
    count = len(planner.plans)
    planner.reports(dict.fromkeys(WORKERS, 1.0), 5)
    assert [plan.tiles for plan in planner.plans[count:]] == []
    uncoded = read_plan_request({"codecs": False})
    planner(pe.PlanRequested(CAM, "ticket", uncoded))
    assert planner.plan.tiles is not None
    assert planner.plan.tiles.codecs == ()


def test_what_is_learned_of_tiles_goes_by_their_bytes_as_they_are_sent() -> None:
    planner = Planner(*WORKERS, codecs={"bitmap": QUICK}, rate=SLOW_BYTES_PER_S)
    shares = planner.machine.inventory.registry.blocks.tiles(planner.plan)
    assert planner.plan.predicted.tiles is not None
    for share, cost in zip(shares, planner.plan.predicted.tiles.tiles, strict=True):
        assert (share.nbytes, share.result_nbytes) == (cost.nbytes, cost.result_nbytes)
        assert (share.coding_s, share.result_coding_s) == (cost.coding_seconds, cost.result_coding_seconds)
