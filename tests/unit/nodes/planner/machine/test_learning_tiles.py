"""What the planner learns, continued."""

from __future__ import annotations

import json
import random
from unittest import mock

import pytest

from nodes.planner.machine import events as pe
from nodes.protocol.messages import LegSeconds, Report, SegmentSeconds
from nodes.protocol.reports import LEAST_FRAMES
from pipeline.partition import exact
from pipeline.plan import NodeId, Plan
from tests.effort import examples
from tests.unit.nodes.planner.machine.test_learning import (
    PIPELINE,
    ROUNDS,
    Load,
    estimated,
    loaded,
    only,
    with_profiles,
)
from tests.unit.nodes.planner.machine.test_planner import (
    ON_CLOUD,
    ON_DEVICE,
    ON_EDGE,
    PATIENCE_S,
    SECONDS,
    SETTLE_S,
    Planner,
    planning,
    published,
)
from tests.unit.nodes.tier.machine.test_tier import CAM, CLOUD, DEVICE, EDGE, EDGE_2, GRAPH, C, D, E

MOST_COLD = 1.5
"""Frames of a slow stream find cold caches: up to so much more may be what all nodes take."""


@pytest.mark.parametrize("cold", [1.2, 1.3, 1.4])
def test_coldness_that_all_nodes_share_does_not_move_the_plan(cold: float) -> None:
    pipeline = loaded(edge=0.011, cloud=0.01)
    pipeline.rounds(ROUNDS, lambda node: cold)
    assert pipeline.changes == []


def test_coldness_does_not_move_a_plan_over_several_nodes_either() -> None:
    planner = Planner()
    planner.come(DEVICE, EDGE, CLOUD)
    pipeline = Load(planner, SECONDS)
    planner.tick(SETTLE_S)
    planner.place("b1", "b3")
    planner.place(auto=True)
    pipeline.rounds(ROUNDS, lambda node: 1.3)
    assert pipeline.changes == []
    stream = planner.machine.inventory.streams[CAM]
    costs = planner.machine.inventory.registry.costs(stream.binding, {D: DEVICE, E: EDGE, C: CLOUD}, stream.assumed)
    assert [seconds[1] for seconds in costs.seconds.values()] == pytest.approx([1.3, 0.13, 0.013], rel=0.1)


@pytest.mark.parametrize("true", [1.0, 1.1, 1.3, 1.5, 1.6, 2.0])
@pytest.mark.parametrize("seed", range(examples(3)))
def test_noise_does_not_move_the_plan_to_and_fro(true: float, seed: int) -> None:
    """Of two nodes that are as good as equal. What is more than cold is tried elsewhere, and perhaps comes back."""
    chance = random.Random(seed)
    pipeline = loaded(edge=0.0102, cloud=0.01)
    pipeline.rounds(ROUNDS, lambda node: true * chance.uniform(0.92, 1.08))
    assert len(pipeline.changes) <= (2 if true > MOST_COLD else 0)


def test_noise_is_not_solved_for() -> None:
    pipeline, chance = loaded(edge=0.02, cloud=0.01), random.Random(0)
    with mock.patch.object(exact, "solve", wraps=exact.solve) as solve:
        pipeline.rounds(ROUNDS, lambda node: chance.uniform(0.92, 1.08))
    assert solve.call_count == 0


@pytest.mark.parametrize(
    "report",
    [
        SegmentSeconds(CAM, 1, LEAST_FRAMES - 1, 0.01),
        SegmentSeconds(CAM, 99, LEAST_FRAMES, 10.0),
        SegmentSeconds(type(CAM)("porch"), 1, LEAST_FRAMES, 10.0),
    ],
)
def test_a_report_of_few_frames_or_of_another_plan_says_nothing(report: SegmentSeconds) -> None:
    planner = planning(*PIPELINE)
    for node in (*PIPELINE, NodeId("stranger")):
        for _ in range(10):
            assert published(planner(pe.TelemetryArrived(node, Report((report,))))) == []
    assert published(planner.tick(100.0)) == []


def test_a_segment_too_short_to_tell_says_nothing_of_the_nodes_speed() -> None:
    planner = Planner()
    planner.come(*PIPELINE)
    planner.profile(CLOUD, 5e-5)
    assert published(planner.tick(SETTLE_S))[0].placement == ON_CLOUD
    for _ in range(10):
        planner(pe.TelemetryArrived(CLOUD, Report((SegmentSeconds(CAM, 1, LEAST_FRAMES, 0.01),))), 1.0)
    registry = planner.machine.inventory.registry
    basis = registry.blocks.basis(CLOUD, "chain", GRAPH.digest)
    assert basis is not None
    assert registry.learned.factor(CLOUD, "chain", basis) < 1.5
    assert registry.learned.overhead_s(CLOUD) == pytest.approx(0.01, rel=0.25)


def test_telemetry_also_corrects_an_estimate_and_a_profile_begins_anew() -> None:
    planner, first = estimated()
    for _ in range(5):
        planner(pe.TelemetryArrived(CLOUD, Report((SegmentSeconds(CAM, first.epoch, LEAST_FRAMES, 3 * 0.01 * 50),))))
    (second,) = published(planner.tick(PATIENCE_S))
    assert second.placement == ON_EDGE
    planner.profile(CLOUD, 0.01)
    (third,) = published(planner.tick(PATIENCE_S))
    assert third.placement == ON_CLOUD


def test_a_telemetry_of_a_node_that_serves_no_plan_changes_nothing() -> None:
    planner = planning(DEVICE, EDGE, EDGE_2, CLOUD)
    assert planner(pe.TelemetryArrived(EDGE_2, Report((SegmentSeconds(CAM, 1, LEAST_FRAMES, 9.0),)))) == []


def test_a_plan_with_estimates_is_plain_json() -> None:
    _, first = estimated()
    assert Plan.from_json(json.loads(json.dumps(first.to_json(GRAPH)))) == first


def test_what_frames_take_between_nodes_beside_their_bytes_is_charged_to_them() -> None:
    planner, first = with_profiles(device=0.1, edge=0.06, cloud=0.05)
    assert first.placement == ON_CLOUD
    legs = LegSeconds(CAM, first.epoch, LEAST_FRAMES, {"device_cloud": 0.3, "return": 0.3})
    changes: list[Plan] = []
    stayed: list[float] = []
    while not changes and planner.now < ROUNDS:
        told = planner(pe.TelemetryArrived(DEVICE, Report(legs=(legs,))), 1.0)
        changes, stayed = published(told), stayed + [p.predicted.seconds for p in published(told, stays=True)]
    (moved,) = changes
    assert moved.placement == ON_DEVICE
    assert "device-1 takes" in moved.reason
    assert "to receive and send" in moved.reason
    assert all(first.predicted.seconds < seconds for seconds in stayed)


def test_what_the_device_takes_to_read_a_frame_is_in_every_price() -> None:
    planner = Planner()
    planner.come(*PIPELINE)
    (first,) = published(planner.tick(SETTLE_S))
    planner.now += PATIENCE_S
    changes: list[Plan] = []
    for _ in range(ROUNDS):
        told = planner(pe.TelemetryArrived(DEVICE, Report(frame_overheads={CAM: 0.05})), 1.0)
        assert published(told) == []
        changes += published(told, stays=True)
        planner(pe.TelemetryArrived(EDGE, Report(frame_overheads={CAM: 9.0})))  # not its stream
    assert changes[-1].epoch == first.epoch
    assert changes[-1].predicted.frame_overhead_seconds == pytest.approx(0.05, rel=0.2)
    more = changes[-1].predicted.seconds - first.predicted.seconds
    before = first.predicted.frame_overhead_seconds
    assert more == pytest.approx(changes[-1].predicted.frame_overhead_seconds - before)
    runner_up = changes[-1].runner_up
    assert runner_up is not None
    assert runner_up["predicted"]["frame_overhead_seconds"] == changes[-1].predicted.frame_overhead_seconds


def test_ways_of_other_epochs_and_of_nodes_without_a_link_teach_nothing() -> None:
    planner = Planner()
    planner.come(*PIPELINE)
    planner.tick(SETTLE_S)
    planner.now += PATIENCE_S
    for _ in range(ROUNDS):
        late = LegSeconds(CAM, 77, LEAST_FRAMES, {"device_cloud": 9.0, "return": 9.0})
        unknown = LegSeconds(CAM, 1, LEAST_FRAMES, {"device_edge": 9.0})
        assert not published(planner(pe.TelemetryArrived(DEVICE, Report(legs=(late, unknown))), 1.0))


def test_a_short_segment_says_how_long_a_call_takes_and_nothing_of_the_nodes_speed() -> None:
    planner, first = with_profiles(device=1.0, edge=0.001, cloud=0.5)
    assert first.placement == ON_EDGE
    foreseen_s, took_s = 0.001 * 3, 0.02
    for _ in range(ROUNDS):
        report = SegmentSeconds(CAM, first.epoch, LEAST_FRAMES, took_s)
        assert not [p for p in published(planner(pe.TelemetryArrived(EDGE, Report((report,))), 1.0)) if p.epoch > 1]
    stream = planner.machine.inventory.streams[CAM]
    costs = planner.machine.inventory.registry.costs(stream.binding, {D: DEVICE, E: EDGE}, stream.assumed)
    assert costs.seconds[E][1] == pytest.approx(0.001, rel=0.3)
    assert costs.send_receive_overhead[E] == pytest.approx(took_s - foreseen_s, rel=0.25)
    assert 1e-3 < costs.send_receive_overhead[D] < took_s  # it shares what may be coldness


def test_a_long_segment_says_how_fast_the_node_computes_and_little_of_calls() -> None:
    pipeline = loaded(edge=0.2, cloud=0.1)
    pipeline.rounds(ROUNDS, only(CLOUD, 1.8))
    registry, stream = pipeline.planner.machine.inventory.registry, pipeline.planner.machine.inventory.streams[CAM]
    costs = registry.costs(stream.binding, {D: DEVICE, C: CLOUD}, stream.assumed)
    assert costs.seconds[C][1] == pytest.approx(0.18, rel=0.06)
    assert costs.send_receive_overhead[C] < 5e-3
