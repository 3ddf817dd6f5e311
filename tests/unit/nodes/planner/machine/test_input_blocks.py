"""Where the planner has frames decoded: by what frames take, as nodes say, and only where all make the same bits."""

from __future__ import annotations

import math

import pytest

from nodes.config.plan_request import PlanRequest
from nodes.planner.costs.equations import PRIORS
from nodes.planner.machine import events as pe
from nodes.protocol.messages import NodeInfo, Report, SegmentSeconds, TensorRatio
from nodes.protocol.reports import FRAME_WORK
from pipeline.codecs import NONE
from pipeline.frames.input_blocks import DECODE, MOST_FRAME_BYTES, frame_tensor, with_input
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.plan import NodeId, Plan
from pipeline.profiling.profile import Profile
from tests.unit.nodes.planner.machine.test_planner import PATIENCE_S, SECONDS, SETTLE_S, Planner, published
from tests.unit.nodes.tier.machine.test_tier import CAM, CLOUD, DEVICE, TIERS, C, D, state

SIDE = 300
TENSORS = (Tensor(0, "image", (1, SIDE, SIDE, 3), "float32"), Tensor(1, "out", (1, 10), "float32"))
BLOCKS = (Block(0, "image", "input", (), (), (0,)), Block(1, "net", "Conv2D", (), (0,), (1,)))
GRAPH = with_input(ModelGraph("chain", "c0ffee00", TENSORS, BLOCKS, (0,), (1,)))
FRAME = frame_tensor(GRAPH).id
BYTES_PER_S = 1e7
DECODE_S, NORMALISE_S = 1e-3, 1e-4
INPUT_S, CALL_S = DECODE_S + NORMALISE_S, math.exp(PRIORS["call"].mean)


def come(planner: Planner, node: NodeId, pictures: str = "abc", session: str = "one") -> list[pe.PlannerAction]:
    actions = planner(state(node, session=session))
    streams, models = {CAM: "chain"} if node == DEVICE else {}, {"chain": GRAPH.digest}
    actions += planner(
        pe.InfoArrived(
            NodeInfo(
                *(node, TIERS[node].label, session, "1", "tf", "2", 1, "x86", models, streams),
                pictures={"chain": pictures},
                picture_libraries=f"Pillow of {node}",
            )
        )
    )
    times = (0.0, DECODE_S, NORMALISE_S, SECONDS[node])
    profile = Profile("chain", GRAPH.digest, "tf", "2", 1, "x86", times, times, 1.0, 0.0, ratios={"bitmap": (1.0,) * 4})
    actions += planner(pe.ProfileArrived(node, profile))
    actions += planner.link(node, BYTES_PER_S)
    return actions + planner(pe.ManifestArrived(GRAPH))


def first_plan(planner: Planner) -> Plan:
    (plan,) = published(planner.tick(SETTLE_S))
    return plan


def seen(codec: str, ratio: float, node: NodeId = DEVICE) -> pe.TelemetryArrived:
    return pe.TelemetryArrived(node, Report(ratios=(TensorRatio(CAM, FRAME, codec, 10, ratio),)))


def test_a_frame_goes_to_the_cloud_as_it_came_and_as_its_picture_once_frames_are_seen_to_be_large() -> None:
    planner = Planner()
    for node in (DEVICE, CLOUD):
        come(planner, node)
    plan = first_plan(planner)
    assert plan.placement == (D, C, C, C)
    assert plan.predicted.links["device_edge"].nbytes == 50_000
    (other,) = published(planner(seen(NONE, MOST_FRAME_BYTES / 5e6), PATIENCE_S) + planner.tick(PATIENCE_S))
    assert other.placement == (D, D, C, C)
    assert other.predicted.links["device_edge"].nbytes == 3 * SIDE**2


def test_frames_that_take_long_to_decode_are_priced_so_on_all_nodes() -> None:
    planner = Planner()
    for node in (DEVICE, CLOUD):
        come(planner, node)
    before = first_plan(planner)
    actions = planner(seen(FRAME_WORK, 1 / 50, CLOUD), PATIENCE_S) + planner.tick(PATIENCE_S)
    (again,) = published(actions, stays=True)
    assert "frames take 50 times the test picture to decode, not 1" in again.reason
    assert again.predicted.seconds - before.predicted.seconds > 40 * DECODE_S


def test_a_node_that_makes_other_bits_of_pictures_does_not_decode_and_the_plan_says_so() -> None:
    planner = Planner()
    come(planner, DEVICE)
    come(planner, CLOUD, pictures="other")
    plan = first_plan(planner)
    assert plan.placement[: DECODE + 2] == (D, D, D)
    assert plan.placement[-1] is C
    said = (
        "cloud-1 makes other bits of a picture than device-1 and does not decode frames (cloud-1 has Pillow of cloud-1"
    )
    assert said in plan.reason


def test_a_node_that_comes_back_with_other_libraries_loses_the_frames_at_once() -> None:
    planner = Planner()
    for node in (DEVICE, CLOUD):
        come(planner, node)
    assert first_plan(planner).placement == (D, C, C, C)
    planner.now += PATIENCE_S
    actions = come(planner, CLOUD, pictures="other", session="two") + planner.tick(PATIENCE_S)
    *_, other = published(actions)
    assert other.placement == (D, D, D, C)


def test_a_node_that_decodes_slowly_is_not_thought_to_be_slow_at_networks() -> None:
    planner = Planner()
    for node in (DEVICE, CLOUD):
        come(planner, node)
    decodes = PlanRequest.model_validate({"constraints": {"pin": {"frame_normalise": "device"}}})
    (plan,) = published(planner.tick(SETTLE_S) and planner(pe.PlanRequested(CAM, "ticket", decodes)))
    assert plan.placement == (D, D, D, C)
    planner(seen(FRAME_WORK, 1 / 50))
    foreseen_s = 50 * DECODE_S + 1e-4
    for _ in range(10):
        segment = SegmentSeconds(CAM, plan.epoch, 20, 3 * foreseen_s)
        planner(pe.TelemetryArrived(DEVICE, Report(segments=(segment,))), 1.0)
    inventory = planner.machine.inventory
    snapshot = inventory.registry.snapshot(inventory.streams[CAM].binding, DEVICE, CAM)
    assert snapshot.input_factor > 2
    assert snapshot.factor < 1.2
    decode_s, _, network_s = snapshot.seconds((0.0, DECODE_S, 1e-4, SECONDS[DEVICE]), GRAPH)[1:]
    assert decode_s > 2 * DECODE_S
    assert network_s < 1.2 * SECONDS[DEVICE]


def test_what_decoding_took_by_itself_is_charged_to_no_network() -> None:
    def factors(input_seconds: float) -> tuple[float, float]:
        """Of the device, where nothing was computed, and of the cloud, which decodes for five times as long."""
        planner = Planner()
        for node in (DEVICE, CLOUD):
            come(planner, node)
        plan = first_plan(planner)
        assert plan.placement == (D, C, C, C)
        taken_s = CALL_S + 5 * INPUT_S + SECONDS[CLOUD]
        segment = SegmentSeconds(CAM, plan.epoch, 20, taken_s, input_seconds=input_seconds)
        for _ in range(10):
            planner(pe.TelemetryArrived(CLOUD, Report(segments=(segment,))), 1.0)
        inventory = planner.machine.inventory
        binding = inventory.streams[CAM].binding
        device, cloud = (inventory.registry.snapshot(binding, node, CAM).factor for node in (DEVICE, CLOUD))
        return device, cloud

    assert min(factors(0.0)) > 1.1
    assert factors(5 * INPUT_S) == pytest.approx((1.0, 1.0), rel=0.05)
