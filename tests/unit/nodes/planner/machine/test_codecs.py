"""When the planner has tensors coded: with what nodes know, for what it saves, and again when that changes."""

from __future__ import annotations

from nodes.config.plan_request import PlanRequest, as_written, read_plan_request
from nodes.planner.machine import events as pe
from nodes.protocol.messages import NodeInfo, Report, TensorRatio
from pipeline.coding import CodecSpeed, PlannedCodecs
from pipeline.plan import NodeId
from pipeline.profiling.profile import Profile
from tests.graphs import chain
from tests.unit.nodes.planner.machine.test_planner import PATIENCE_S, SECONDS, SETTLE_S, Planner, published
from tests.unit.nodes.tier.machine.test_tier import CAM, CLOUD, DEVICE, TIERS, state

QUICK = CodecSpeed(1e9, 1e9)
GRAPH = chain(80_000, 80_000, 80_000, 8)
(INPUT,), (OUTPUT,) = GRAPH.inputs, GRAPH.outputs
SLOW_BYTES_PER_S = 1e5
"""So that these tensors' bytes weigh about as much as computing."""


def come(planner: Planner, node: NodeId, codecs: dict[str, CodecSpeed], ratios: dict[str, tuple[float, ...]]) -> None:
    planner(state(node))
    streams = {CAM: "chain"} if node == DEVICE else {}
    models = {"chain": GRAPH.digest}
    info = NodeInfo(node, TIERS[node].label, "one", "1", "tf", "2", 1, "x86", models, streams, codecs=codecs)
    planner(pe.InfoArrived(info))
    times = (0.0, *[SECONDS[node]] * (len(GRAPH) - 1))
    profile = Profile("chain", GRAPH.digest, "tf", "2", 1, "x86", times, times, 1.0, 0.0, ratios=ratios)
    planner(pe.ProfileArrived(node, profile))
    planner.link(node, SLOW_BYTES_PER_S)
    planner(pe.ManifestArrived(GRAPH))


def ratios(codec: str, ratio: float) -> dict[str, tuple[float, ...]]:
    return {codec: tuple(ratio for _ in GRAPH.tensors)}


def coded(codec: str) -> PlannedCodecs:
    """The input on its way to the cloud, and the output on its way back."""
    return PlannedCodecs({INPUT: codec}, {OUTPUT: codec})


def seen(ratio: float, codec: str = "bitmap") -> pe.TelemetryArrived:
    return pe.TelemetryArrived(DEVICE, Report(ratios=(TensorRatio(CAM, INPUT, codec, 10, ratio),)))


def test_the_first_plan_codes_what_the_profile_says_is_worth_it() -> None:
    planner = Planner()
    for node in (DEVICE, CLOUD):
        come(planner, node, {"bitmap": QUICK, "shuffle-zstd": QUICK}, ratios("bitmap", 4.0))
    (plan,) = published(planner.tick(SETTLE_S))
    assert plan.codecs == coded("bitmap")
    (entry,), (answer,) = (plan.to_json(GRAPH)[name] for name in ("tensors", "results"))
    assert (entry["codec"], entry["from"], entry["to"]) == ("bitmap", "device", ["cloud"])
    assert (answer["codec"], answer["from"], answer["to"]) == ("bitmap", "cloud", ["device"])
    link = plan.predicted.links["device_edge"]
    assert (link.result_nbytes, link.result_uncoded_nbytes) == (2, 8)
    assert (link.nbytes, link.uncoded_nbytes) == (-(-entry["nbytes"] // 4), entry["nbytes"])
    assert type(plan).from_json(plan.to_json(GRAPH), GRAPH) == plan


def test_a_codec_that_one_end_does_not_know_is_not_asked_for() -> None:
    planner = Planner()
    come(planner, DEVICE, {"bitmap": QUICK}, ratios("bitmap", 4.0))
    come(planner, CLOUD, {}, ratios("bitmap", 4.0))
    (plan,) = published(planner.tick(SETTLE_S))
    assert plan.codecs == PlannedCodecs()
    assert plan.predicted.links["device_edge"].ratio == 1.0


def test_a_codec_that_takes_longer_than_it_saves_is_not_asked_for() -> None:
    planner = Planner()
    for node in (DEVICE, CLOUD):
        come(planner, node, {"bitmap": CodecSpeed(1e3, 1e3)}, ratios("bitmap", 4.0))
    (plan,) = published(planner.tick(SETTLE_S))
    assert plan.codecs == PlannedCodecs()


def test_what_frames_show_replaces_what_the_profile_said_and_a_better_codec_is_a_new_plan() -> None:
    planner = Planner()
    for node in (DEVICE, CLOUD):
        come(planner, node, {"bitmap": QUICK, "shuffle-zstd": QUICK}, ratios("bitmap", 1.2))
    (first,) = published(planner.tick(SETTLE_S))
    assert first.codecs == coded("bitmap")
    (second,) = published(planner(seen(8.0, "shuffle-zstd"), PATIENCE_S) + planner.tick(PATIENCE_S))
    assert second.codecs == PlannedCodecs({INPUT: "shuffle-zstd"}, {OUTPUT: "bitmap"})
    assert second.placement == first.placement
    assert second.epoch == first.epoch + 1


def test_a_ratio_within_its_band_changes_nothing_and_one_beyond_it_the_price() -> None:
    planner = Planner()
    for node in (DEVICE, CLOUD):
        come(planner, node, {"bitmap": QUICK}, ratios("bitmap", 4.0))
    (plan,) = published(planner.tick(SETTLE_S))
    planner(seen(4.4), PATIENCE_S)
    assert published(planner.tick(PATIENCE_S)) == published(planner.tick(PATIENCE_S), stays=True) == []
    actions = planner(seen(2.0), PATIENCE_S) + planner.tick(PATIENCE_S)
    (again,) = published(actions, stays=True)
    assert "shrinks 2 times with bitmap, not 4" in again.reason
    assert again.predicted.seconds > plan.predicted.seconds
    assert again.codecs == plan.codecs


def test_a_ratio_of_a_codec_or_a_tensor_that_does_not_exist_is_of_no_use() -> None:
    planner = Planner()
    for node in (DEVICE, CLOUD):
        come(planner, node, {"bitmap": QUICK, "lzma": QUICK}, ratios("lzma", 100.0))
    planner(seen(100.0, "lzma"))
    planner(pe.TelemetryArrived(DEVICE, Report(ratios=(TensorRatio(CAM, 99_999, "bitmap", 10, 100.0),))))
    (plan,) = published(planner.tick(SETTLE_S))
    assert plan.codecs == PlannedCodecs()


def test_who_asks_for_no_codecs_gets_a_plan_without_and_its_price_and_can_read_it_back() -> None:
    planner = Planner()
    for node in (DEVICE, CLOUD):
        come(planner, node, {"bitmap": QUICK}, ratios("bitmap", 4.0))
    (first,) = published(planner.tick(SETTLE_S))
    uncoded = PlanRequest.model_validate({"codecs": False, "constraints": {"pin": {"b3": "cloud"}}})
    assert read_plan_request(as_written(uncoded)) == uncoded
    (plan,) = published(planner(pe.PlanRequested(CAM, "ticket", uncoded)))
    assert (first.codecs, plan.codecs) == (coded("bitmap"), PlannedCodecs())
    assert plan.predicted.links["device_edge"].ratio == 1.0
