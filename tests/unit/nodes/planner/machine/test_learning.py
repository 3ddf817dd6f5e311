"""How the planner prices nodes: by profiles, without one by estimates, and corrected by what telemetry measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from nodes.planner.machine import events as pe
from nodes.protocol.messages import Report, SegmentSeconds
from nodes.protocol.reports import LEAST_FRAMES
from pipeline.estimator import Speed, estimate
from pipeline.plan import NodeId, Plan
from tests.unit.nodes.planner.machine.test_planner import (
    ON_CLOUD,
    ON_DEVICE,
    ON_EDGE,
    PATIENCE_S,
    SECONDS,
    SETTLE_S,
    Planner,
    logged,
    planning,
    published,
)
from tests.unit.nodes.tier.machine.test_tier import CAM, CLOUD, DEVICE, EDGE, GRAPH, plan, state

PIPELINE = (DEVICE, EDGE, CLOUD)
ROUNDS = 100


def speed(seconds_per_block: float) -> dict[str, float]:
    """Of a node that is estimated to take so long for each of the graph's blocks."""
    slow = Speed(macs_per_s=1.0, depthwise_macs_per_s=1.0, bytes_per_s=1.0, weight_bytes_per_s=1.0, operation_s=1.0)
    return replace(slow, operation_s=seconds_per_block / estimate(GRAPH, slow)[1]).to_json()


def come_unmeasured(planner: Planner, *nodes: NodeId, times: Mapping[NodeId, float] = SECONDS) -> None:
    """Nodes that are ready, and have not profiled the model."""
    for node in nodes:
        planner.info(node, speed=speed(times[node]))
        planner.link(node)
        planner(state(node))
    planner(pe.ManifestArrived(GRAPH))


def estimated() -> tuple[Planner, Plan]:
    """The first plan, all of it by estimates."""
    planner = Planner()
    come_unmeasured(planner, *PIPELINE)
    (first,) = published(planner.tick(SETTLE_S))
    return planner, first


# Estimates.


def test_a_first_plan_is_made_from_estimates_and_says_for_whom() -> None:
    _, first = estimated()
    assert (first.epoch, first.placement) == (1, ON_CLOUD)
    assert first.predicted.stages["cloud"] == pytest.approx(3 * SECONDS[CLOUD])
    assert first.reason.endswith("; estimated, not measured, for device-1, edge-1, cloud-1")


def test_only_nodes_without_a_profile_are_estimated() -> None:
    planner = Planner()
    come_unmeasured(planner, *PIPELINE)
    planner.profile(DEVICE, SECONDS[DEVICE])
    planner.profile(CLOUD, SECONDS[CLOUD])
    (first,) = published(planner.tick(SETTLE_S))
    assert first.reason.endswith("; estimated, not measured, for edge-1")
    planner = planning(*PIPELINE)
    assert "estimated" not in (planner.machine.inventory.streams[CAM].plan or first).reason


def test_a_profile_that_says_otherwise_is_planned_anew() -> None:
    planner, _ = estimated()
    planner.profile(CLOUD, 5.0)
    (second,) = published(planner.tick(PATIENCE_S))
    assert (second.epoch, second.placement) == (2, ON_EDGE)


def test_a_profile_that_says_the_same_leaves_the_plan_and_mends_its_price() -> None:
    planner, first = estimated()
    for node in (DEVICE, EDGE):
        assert published(planner.profile(node, SECONDS[node])) == []
    (again,) = published(planner.profile(CLOUD, 0.0102), stays=True)
    assert (again.epoch, again.created_ts, again.placement) == (first.epoch, first.created_ts, first.placement)
    assert again.predicted.stages["cloud"] == pytest.approx(3 * 0.0102)
    was = f"estimated at {first.predicted.seconds * 1e3:.1f} ms a frame at first, measured since; predicted "
    assert again.reason.startswith(was)
    assert "not measured" not in again.reason
    assert published(planner.tick(100.0)) == []


def test_a_profile_that_comes_late_mends_the_price_once_too() -> None:
    planner = Planner()
    come_unmeasured(planner, *PIPELINE)
    planner.profile(DEVICE, SECONDS[DEVICE])
    planner.profile(CLOUD, SECONDS[CLOUD])
    planner.tick(SETTLE_S)
    planner.tick(PATIENCE_S)
    (again,) = published(planner.profile(EDGE, SECONDS[EDGE]), stays=True)
    assert again.reason.startswith("estimated at ")
    assert published(planner.tick(PATIENCE_S), stays=True) == []


def test_a_mended_price_changes_nothing_on_the_nodes() -> None:
    from nodes.tier.machine.epochs import EpochTable
    from nodes.tier.machine.events import PlanArrived

    table = EpochTable(CLOUD, {"chain": GRAPH})
    assert table.plan_arrived(PlanArrived(plan(1, ON_CLOUD)))
    assert table.plan_arrived(PlanArrived(replace(plan(1, ON_CLOUD), reason="measured since"))) == []


def test_what_an_estimate_was_off_on_one_node_is_expected_of_the_others() -> None:
    """Else blocks would go to the node that is measured first, or away from it, for no other reason."""
    planner, _ = estimated()
    for node in (CLOUD, EDGE, DEVICE):
        assert all(found.placement == ON_CLOUD for found in published(planner.profile(node, 4 * SECONDS[node])))
        assert published(planner.tick(100.0)) == []


def test_a_node_that_joins_with_an_estimate_is_used_if_it_is_better_by_the_margin() -> None:
    planner = planning(DEVICE, EDGE)
    come_unmeasured(planner, CLOUD)
    (second,) = published(planner.tick(PATIENCE_S))
    assert second.placement == ON_CLOUD
    assert second.reason.endswith("estimated, not measured, for cloud-1")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"digest": "beef"}, "beef, not c0ffee00"),
        ({"engine_version": "1"}, "1, not 2"),
        ({"threads": 8}, "8, not 1"),
        ({"hardware": "abacus"}, "abacus, not x86"),
        ({"seconds": (0.0, 9.0), "spread": (0.0, 9.0)}, "cloud-1 has a profile of 2 blocks for 4"),
    ],
)
def test_a_profile_that_does_not_fit_is_said_and_the_estimate_used(change: dict[str, object], said: str) -> None:
    planner = Planner()
    planner.come(DEVICE, EDGE)
    come_unmeasured(planner, CLOUD)
    planner.profile(CLOUD, 9.0)
    profile = planner.machine.inventory.registry.blocks._profiles[CLOUD, "chain"]
    planner(pe.ProfileArrived(CLOUD, replace(profile, **change)))  # type: ignore[arg-type]  # its own fields
    actions = planner.tick(SETTLE_S)
    assert published(actions)[0].placement == ON_CLOUD
    assert published(actions)[0].reason.endswith("estimated, not measured, for cloud-1")
    assert sum(said in text for text in logged(actions)) == 1
    assert logged(planner.tick(1.0)) == []


@pytest.mark.parametrize("nonsense", [{}, {"macs_per_s": 1.0}, {**speed(0.1), "operation_s": -1.0}])
def test_a_speed_that_cannot_be_is_said_and_the_node_waits_for_its_profile(nonsense: dict[str, float]) -> None:
    planner = Planner()
    planner.come(DEVICE, EDGE)
    planner(state(CLOUD))
    planner.link(CLOUD)
    (said,) = logged(planner.info(CLOUD, speed=nonsense))
    assert said.startswith("cloud-1: ")
    assert published(planner.tick(SETTLE_S))[0].placement == ON_EDGE
    assert published([*planner.profile(CLOUD, 0.01), *planner.tick(PATIENCE_S)])[0].placement == ON_CLOUD


def test_a_speed_at_which_it_would_take_forever_is_as_good_as_none() -> None:
    planner = Planner()
    planner.come(DEVICE)
    planner.info(EDGE, speed={**speed(0.1), "operation_s": 1e308})
    planner(state(EDGE))
    planner.link(EDGE)
    assert published(planner.tick(SETTLE_S))[0].placement == ON_DEVICE


# Telemetry.


class Load:
    """Nodes that compute the present plan, each so much slower than its profile as `load` says, and report it."""

    def __init__(self, planner: Planner, seconds: Mapping[NodeId, float]) -> None:
        self.planner, self.seconds = planner, seconds
        self.changes: list[Plan] = []

    @property
    def plan(self) -> Plan:
        found = self.planner.machine.inventory.streams[CAM].plan
        assert found is not None
        return found

    def rounds(self, count: int, load: Callable[[NodeId], float]) -> list[NodeId]:
        """So many seconds; returns who on the last stage in each."""
        on = []
        for _ in range(count):
            for node in self.seconds:
                self.changes += published(
                    self.planner(pe.TelemetryArrived(node, Report(self._report(node, load(node)))))
                )
            self.changes += published(self.planner.tick(1.0))
            on.append(self.plan.nodes[max(self.plan.nodes)])
        return on

    def _report(self, node: NodeId, load: float) -> tuple[SegmentSeconds, ...]:
        tier = self.plan.tier_of(node)
        blocks = sum(placed is tier for placed in self.plan.placement[1:])
        if not blocks:
            return ()
        return (SegmentSeconds(CAM, self.plan.epoch, LEAST_FRAMES, blocks * self.seconds[node] * load),)


def loaded(**seconds: float) -> Load:
    times = {DEVICE: 1.0, EDGE: seconds["edge"], CLOUD: seconds["cloud"]}
    planner = Planner()
    planner.come(*PIPELINE)
    for node, taken in times.items():
        planner.profile(node, taken)
    (first,) = published(planner.tick(SETTLE_S))
    assert first.placement == ON_CLOUD
    planner.now += PATIENCE_S
    return Load(planner, times)


def only(slow: NodeId, by: float) -> Callable[[NodeId], float]:
    return lambda node: by if node == slow else 1.0


def test_a_node_that_slows_down_loses_its_blocks_and_gets_them_back_though_no_probe_says_that_it_came_back() -> None:
    pipeline = loaded(edge=0.02, cloud=0.01)
    on = pipeline.rounds(ROUNDS // 2, only(CLOUD, 3.0))
    assert EDGE in on[:10], "it took longer than ten reports to see"
    on = pipeline.rounds(ROUNDS, only(CLOUD, 1.0))
    assert on[-1] == CLOUD
    assert set(on[on.index(CLOUD) :]) == {CLOUD}


def test_a_lasting_load_is_tried_again_ever_more_rarely() -> None:
    pipeline = loaded(edge=0.02, cloud=0.01)
    on = pipeline.rounds(10 * ROUNDS, only(CLOUD, 3.0))
    assert on.count(CLOUD) < ROUNDS
    assert len(pipeline.changes) <= 16
    assert on[-2 * ROUNDS :].count(CLOUD) < ROUNDS / 5


# What nodes take to send and receive.


def with_profiles(**seconds: float) -> tuple[Planner, Plan]:
    """A planner that may plan again, and its first plan; seconds a block by tier."""
    planner = Planner()
    planner.come(*PIPELINE)
    for node, taken in zip(PIPELINE, (seconds["device"], seconds["edge"], seconds["cloud"]), strict=True):
        planner.profile(node, taken)
    (first,) = published(planner.tick(SETTLE_S))
    planner.now += PATIENCE_S
    return planner, first
