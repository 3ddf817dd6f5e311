"""How plans follow times, rates and load: within a band not at all, beyond it when another plan wins."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from unittest import mock

import pytest

from nodes.config.plan_request import PlanRequest
from nodes.planner.costs.drift import LEAST_ROUND_TRIP_S, drift
from nodes.planner.costs.snapshot import NodeSnapshot, Utilisation
from nodes.planner.machine import events as pe
from nodes.planner.machine.lifecycle import SAME_NEWS_S
from nodes.planner.machine.planner import PlannerMachine, PlannerSettings
from nodes.planner.machine.utilisation import MOST, STALE_S, Loads, Rates, StreamLoad
from nodes.protocol.messages import LifeState, LinkMeasured, LinkReport, NodeInfo, NodeState, Report, SegmentSeconds
from nodes.protocol.reports import LEAST_FRAMES
from nodes.tier.machine.events import PeerStateArrived, Tick
from pipeline.partition import exact, hpa
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.profiling.profile import Profile
from tests.unit.nodes.planner.machine.test_planner import (
    MARGIN,
    ON_EDGE,
    PATIENCE_S,
    SETTLE_S,
    Planner,
    logged,
    planning,
    published,
)
from tests.unit.nodes.tier.machine.test_tier import CAM, CLOUD, DEVICE, EDGE, EDGE_2, GRAPH, C, D, E, plan, state

LINK = LinkReport(EDGE, "one", 1e6, 1e6, 2e-3)
PROFILE = Profile("chain", GRAPH.digest, "tf", "2", 1, "x86", (0.1,), (0.1,), 0.1, 0.0)
ASSUMED = NodeSnapshot(PROFILE, 1.0, LINK)


# What a band holds.


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (ASSUMED, []),
        (replace(ASSUMED, factor=1.19), []),
        (replace(ASSUMED, factor=1.21), ["edge-1 takes 1.21 times as long as assumed"]),
        (replace(ASSUMED, utilisation=Utilisation(compute=0.5)), ["edge-1 takes 2.00 times as long as assumed"]),
        (replace(ASSUMED, link=replace(LINK, up_bytes_per_s=0.81e6)), []),
        (replace(ASSUMED, link=replace(LINK, up_bytes_per_s=5e5)), ["edge-1 has 0.5 MB/s to the broker, not 1"]),
        (replace(ASSUMED, utilisation=Utilisation(down=0.25)), ["edge-1 has 0.75 MB/s from the broker, not 1"]),
        (replace(ASSUMED, link=replace(LINK, round_trip_s=2e-3 + LEAST_ROUND_TRIP_S)), []),
        (replace(ASSUMED, link=replace(LINK, round_trip_s=5e-3)), ["edge-1 has a round trip of 5 ms, not 2"]),
        (replace(ASSUMED, overhead_s=2e-3), []),
        (replace(ASSUMED, overhead_s=5e-3), ["edge-1 takes 5 ms to receive and send, not 0"]),
        (replace(ASSUMED, basis=replace(PROFILE, seconds=(0.2,))), ["edge-1 has been measured again"]),
    ],
)
def test_what_differs_by_more_than_the_band_is_said(now: NodeSnapshot, said: list[str]) -> None:
    assert list(drift(EDGE, ASSUMED, now, 0.2)) == said


# Links.


def test_a_link_that_becomes_slow_moves_the_plan_and_the_plan_says_why() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner.tick(PATIENCE_S)
    (second,) = published(planner.link(CLOUD, bytes_per_s=10.0))
    assert second.placement == ON_EDGE
    assert second.reason.startswith("cloud-1 has 1e-05 MB/s to the broker, not 1; ")
    assert "less than the present plan's" in second.reason


def test_a_link_that_changes_without_another_plan_being_better_is_said_once_in_the_log_and_in_the_plan() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner.tick(PATIENCE_S)
    actions = planner.link(CLOUD, bytes_per_s=0.5e6)
    (plan,), (said,) = published(actions, stays=True), logged(actions)
    assert plan.epoch == 1
    assert plan.reason.startswith(
        "cloud-1 has 0.5 MB/s to the broker, not 1; cloud-1 has 0.5 MB/s from the broker, not 1: "
        f"the present plan stays, none is better by {MARGIN:.0%}; predicted "
    )
    assert said == f"stream cam: epoch 1: {plan.reason}"
    assert planner.link(CLOUD, bytes_per_s=0.5e6) == []
    assert planner.tick(1.0) == []


def test_a_plan_that_stays_is_priced_anew_no_more_often_than_plans_may_follow_each_other() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner.tick(PATIENCE_S)
    assert len(published(planner.link(CLOUD, round_trip_s=6e-3), stays=True)) == 1
    assert planner.link(CLOUD, round_trip_s=12e-3) == []
    assert planner.tick(PATIENCE_S - 0.1) == []
    (plan,) = published(planner.tick(0.1), stays=True)
    assert plan.reason.startswith("cloud-1 has a round trip of 12 ms, not 6")


def test_a_price_that_is_still_the_same_is_not_said_again_within_a_minute() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner.tick(PATIENCE_S)
    assert len(published(planner.link(CLOUD, bytes_per_s=0.5e6), stays=True)) == 1
    for megabytes_per_s in (0.7, 0.5) * 4:
        assert planner.link(CLOUD, bytes_per_s=megabytes_per_s * 1e6) == []
        assert planner.tick(PATIENCE_S) == []
    planner.tick(SAME_NEWS_S)
    assert len(published(planner.link(CLOUD, bytes_per_s=0.7e6), stays=True)) == 1


def test_nothing_is_said_while_nothing_is_done() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner.tick(PATIENCE_S)
    draw, said = random.Random(0), list[pe.PlannerAction]()
    for _ in range(105):
        for node in (DEVICE, EDGE, CLOUD):
            link = LinkMeasured(draw.uniform(0.9e6, 1.1e6), draw.uniform(0.9e6, 1.1e6), 2e-3)
            said += planner(pe.TelemetryArrived(node, Report(link=link)))
        said += planner.tick(1.0)
    assert said == []


def test_news_wait_while_a_node_of_the_plan_may_only_blink() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    assert published(planner.link(CLOUD, bytes_per_s=0.5e6)) == []
    assert published(planner.tick(PATIENCE_S - 0.1)) == []
    assert published(planner(state(CLOUD, LifeState.LOST), 0.2)) == []
    assert any("the present plan stays" in text for text in logged(planner(state(CLOUD), 0.1)))


def test_news_within_the_time_between_plans_are_looked_into_after_it() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    assert published(planner.link(CLOUD, bytes_per_s=10.0)) == []
    assert published(planner.tick(PATIENCE_S - 0.1)) == []
    (second,) = published(planner.tick(0.1))
    assert second.placement == ON_EDGE


@pytest.mark.parametrize("seed", range(5))
def test_a_noisy_but_constant_network_changes_nothing_and_is_not_solved_for(seed: int) -> None:
    planner, chance = planning(DEVICE, EDGE, CLOUD), random.Random(seed)
    planner.tick(PATIENCE_S)
    with mock.patch.object(exact, "solve", wraps=exact.solve) as solve:
        for _ in range(300):
            for node in (DEVICE, EDGE, CLOUD):
                actions = planner.link(node, 1e6 * chance.uniform(0.85, 1.15), 2e-3 * chance.uniform(0.5, 1.5))
                assert published(actions) == []
            planner.tick(1.0)
    assert solve.call_count == 0


def test_small_steps_that_add_up_leave_the_band_in_the_end() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    rate, plans = 1e6, []
    for _ in range(80):
        rate *= 0.85
        plans += published(planner.link(CLOUD, rate)) + published(planner.tick(PATIENCE_S))
    assert [plan.placement for plan in plans] == [ON_EDGE]


# D3's local adjustment.


def test_with_hpa_news_adjust_the_present_plan_and_other_nodes_make_a_new_one() -> None:
    planner = Planner()
    settings = PlannerSettings(min_seconds_between_plans=PATIENCE_S, settle_s=SETTLE_S, lost_after_s=1e9)
    plan_request = {CAM: PlanRequest(planner="hpa")}
    planner.machine = PlannerMachine(settings, started_at=0.0, plan_requests=plan_request)
    planner.come(DEVICE, EDGE, CLOUD)
    with mock.patch.object(hpa, "adjust", wraps=hpa.adjust) as adjust:
        (first,) = published(planner.tick(SETTLE_S))
        assert first.planner == "hpa"
        assert adjust.call_count == 0
        planner.tick(PATIENCE_S)
        planner.link(CLOUD, bytes_per_s=2e6)
        assert adjust.call_count == 1
        (graph, placement, _costs, affected, *_), _ = adjust.call_args
        assert (graph, placement) == (GRAPH, first.placement)
        assert set(affected) == {
            b for edge in GRAPH.edges if first.placement[edge[0]] < first.placement[edge[1]] for b in edge
        } - {0}
        planner.come(EDGE_2)
        assert adjust.call_count == 1


# Rates and shares.


def test_rates_are_frames_over_seconds_and_fade_when_nothing_is_said() -> None:
    rates = Rates()
    rates.counted(CAM, 100, 0.0)
    assert rates.rate_of(CAM, 0.0) == 0.0
    for at, frames in ((1.0, 10), (2.0, 12), (3.0, 14)):
        rates.counted(CAM, frames, at)
    assert rates.rate_of(CAM, 3.0) == 12.0
    assert rates.rate_of(CAM, 3.0 + STALE_S + 0.1) == 0.0
    rates.counted(CAM, 10, 100.0)
    assert rates.rate_of(CAM, 100.0) == 0.0


def test_reports_that_were_held_up_and_come_at_once_are_no_higher_rate() -> None:
    rates, at = Rates(), 0.0
    for wait_s in (*[1.0] * 8, 4.0, *[0.01] * 3, *[1.0] * 8, 1e-3, 1e-3):
        at += wait_s
        rates.counted(CAM, 3, at)
        assert rates.rate_of(CAM, at) <= 5.0
    assert rates.rate_of(CAM, at) == pytest.approx(3.0 * 7 / 5, rel=1e-3)


def taken_of(loads: Loads, node: NodeId, but: StreamId | None = None) -> Utilisation:
    found = loads.left_by_others(node, "m", ASSUMED, but)
    assert loads.left_by_others(node, "m", ASSUMED, but) == found
    return found.utilisation


def test_a_stream_takes_its_frames_times_what_one_takes() -> None:
    on = plan(1, (D, E, E, C))
    stream_load, loads = StreamLoad(on, 10.0, {Tier.DEVICE: 0.01, Tier.EDGE: 0.03, Tier.CLOUD: 0.002}), Loads()
    assert loads.take(CAM, stream_load) == {DEVICE, EDGE, CLOUD}
    assert taken_of(loads, EDGE_2) == taken_of(loads, EDGE, but=CAM) == Utilisation()
    edge, cloud = taken_of(loads, EDGE), taken_of(loads, CLOUD)
    assert (edge.compute, cloud.compute) == (0.3, 0.02)
    links = on.predicted.links
    assert edge.down == pytest.approx(10.0 * links["device_edge"].nbytes / 1e6, abs=1e-3) if links else edge.down == 0.0
    for number in range(9):
        loads.take(StreamId(f"other-{number}"), stream_load)
    assert taken_of(loads, EDGE).compute == MOST
    for number in range(9):
        loads.take(StreamId(f"other-{number}"), None)
    assert taken_of(loads, EDGE) == edge
    assert loads.take(CAM, None) == {DEVICE, EDGE, CLOUD}
    assert taken_of(loads, EDGE) == Utilisation()


# Several streams.


class Streams:
    """Devices with a stream each over shared nodes, all of equal and fast links, and a clock."""

    def __init__(self, seconds: Mapping[NodeId, float], tiers: Mapping[NodeId, Tier]) -> None:
        self.seconds, self.tiers, self.now = seconds, tiers, 0.0
        settings = PlannerSettings(
            margin=MARGIN,
            min_seconds_between_plans=PATIENCE_S,
            settle_s=SETTLE_S,
            lost_after_s=1e9,
            prepare_timeout_s=1e9,
        )
        self.machine = PlannerMachine(settings, started_at=0.0)
        self.plans: dict[StreamId, Plan] = {}
        self.changes = 0

    def __call__(self, event: pe.PlannerEvent) -> None:
        actions = self.machine.handle(event, self.now, self.now)
        self.machine.validate()
        for action in actions:
            if isinstance(action, pe.PublishPlan):
                self.changes += self.plans.get(action.plan.stream) is not None
                self.plans[action.plan.stream] = action.plan

    def come(self, *nodes: NodeId) -> None:
        for node in nodes:
            tier, seconds = self.tiers[node], self.seconds[node]
            streams = {StreamId(f"of-{node}"): "chain"} if tier is Tier.DEVICE else {}
            self.live(node, LifeState.READY)
            self(
                pe.InfoArrived(
                    NodeInfo(node, tier.label, "one", "1", "tf", "2", 1, "x86", {"chain": GRAPH.digest}, streams)
                )
            )
            times = (0.0, *[seconds] * (len(GRAPH) - 1))
            self(pe.ProfileArrived(node, Profile("chain", GRAPH.digest, "tf", "2", 1, "x86", times, times, 1.0, 0.0)))
            self(pe.LinkArrived(LinkReport(node, "one", 1e9, 1e9, 1e-6)))
        self(pe.ManifestArrived(GRAPH))

    def live(self, node: NodeId, life: LifeState) -> None:
        self(PeerStateArrived(NodeState(node, self.tiers[node].label, life, "one", 1)))

    def go_on(self, seconds: int, rates_hz: Mapping[NodeId, float]) -> None:
        """Devices report, once a second, how many frames they took in."""
        for _ in range(seconds):
            self.now += 1.0
            for device, rate in rates_hz.items():
                stream = StreamId(f"of-{device}")
                if stream in self.plans and rate >= LEAST_FRAMES:
                    segment = SegmentSeconds(stream, self.plans[stream].epoch, int(rate), 1e-6)
                    self(pe.TelemetryArrived(device, Report((segment,))))
            self(Tick())

    def served_by(self) -> dict[str, str]:
        """Where each stream computes."""
        return {str(stream): str(plan.nodes[max(plan.nodes)]) for stream, plan in self.plans.items()}


CAM_1, CAM_2, CAM_3 = (NodeId(f"device-{n}") for n in (1, 2, 3))
NODES = {
    CAM_1: Tier.DEVICE,
    CAM_2: Tier.DEVICE,
    CAM_3: Tier.DEVICE,
    EDGE: Tier.EDGE,
    EDGE_2: Tier.EDGE,
    CLOUD: Tier.CLOUD,
}
TIMES = {CAM_1: 0.05, CAM_2: 0.05, CAM_3: 0.05, EDGE: 0.01, EDGE_2: 0.01, CLOUD: 0.012}


def test_streams_spread_over_the_nodes_of_a_tier_and_stay_there() -> None:
    streams = Streams({**TIMES, CLOUD: 1.0}, NODES)
    streams.come(*NODES)
    streams.go_on(60, {CAM_1: 20.0, CAM_2: 20.0})
    binding = streams.served_by()
    assert {binding["of-device-1"], binding["of-device-2"]} == {EDGE, EDGE_2}
    changes = streams.changes
    streams.go_on(300, {CAM_1: 20.0, CAM_2: 20.0})
    assert streams.changes == changes


def test_a_device_that_joins_moves_another_when_that_pays_and_one_that_leaves_lets_it_back() -> None:
    streams = Streams({**TIMES, CLOUD: 0.015}, {node: tier for node, tier in NODES.items() if node != EDGE_2})
    streams.come(CAM_1, EDGE, CLOUD)
    streams.go_on(30, {CAM_1: 20.0})
    assert streams.served_by() == {"of-device-1": EDGE}
    streams.come(CAM_2)
    streams.go_on(60, {CAM_1: 20.0, CAM_2: 20.0})
    assert set(streams.served_by().values()) == {EDGE, CLOUD}
    changes = streams.changes
    streams.go_on(200, {CAM_1: 20.0, CAM_2: 20.0})
    assert streams.changes == changes
    on_edge = next(stream for stream, node in streams.served_by().items() if node == EDGE)
    left, stays = (CAM_1, CAM_2) if on_edge == "of-device-1" else (CAM_2, CAM_1)
    streams.live(left, LifeState.STOPPED)
    streams.go_on(60, {stays: 20.0})
    assert streams.served_by()[f"of-{stays}"] == EDGE


def test_an_idle_stream_is_no_load() -> None:
    streams = Streams({**TIMES, CLOUD: 0.0101, EDGE_2: 1.0}, NODES)
    streams.come(*NODES)
    streams.go_on(60, {})
    assert set(streams.served_by().values()) == {EDGE}
