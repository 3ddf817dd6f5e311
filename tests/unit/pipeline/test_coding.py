"""Which codec a tensor gets on its way, and what that costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.coding import CodecCosts, CodecSpeed, CodingWorth, PlannedCodecs
from pipeline.cost import Costs, Link, predict
from pipeline.graph import ModelGraph
from pipeline.partition.priced_plan import NodeSet, priced
from pipeline.placement import Tier
from tests.graphs import chain

D, E, C = Tier
GRAPH = chain(1000, 1000, 1000, 40)
SPEED = CodecSpeed(encode_bytes_per_s=1e4, decode_bytes_per_s=2e4)
KNOWN = CodecCosts(
    {0: {"bitmap": 2.0, "bitmap-zstd": 4.0}, 1: {"bitmap": 2.0}},
    {tier: {"bitmap": SPEED, "bitmap-zstd": CodecSpeed(2e3, 2e3)} for tier in Tier},
)
COSTS = Costs({tier: [0.0] * 4 for tier in Tier}, Link(1e3, 0.0), Link(1e3, 0.0), codecs=KNOWN)


def test_a_tensor_is_sent_with_the_codec_that_takes_least_with_its_own_seconds() -> None:
    link = predict(GRAPH, (D, E, E, E), COSTS).links["device_edge"]
    # bitmap: 0.1 + 0.5 + 0.05 s; bitmap-zstd: 0.5 + 0.25 + 0.5 s; as it is: 1 s; and 40 B back
    assert (link.nbytes, link.uncoded_nbytes) == (500, 1000)
    assert [link.encode_seconds, link.decode_seconds] == pytest.approx([0.1, 0.05])
    assert link.seconds == pytest.approx(0.65 + 0.04)
    assert link.ratio == 2.0


def test_over_both_links_it_has_one_codec_encoded_at_the_first_and_decoded_at_the_last() -> None:
    # two seconds as it is; bitmap 0.1 + 1 + 0.05; bitmap-zstd 0.5 + 0.5 + 0.5
    predicted = predict(GRAPH, (D, C, C, C), COSTS)
    below, above = predicted.links["device_edge"], predicted.links["edge_cloud"]
    assert (below.nbytes, above.nbytes) == (500, 500)
    assert [below.encode_seconds, below.decode_seconds] == pytest.approx([0.1, 0.0])
    assert [above.encode_seconds, above.decode_seconds] == pytest.approx([0.0, 0.05])
    slower = replace(COSTS, device_edge=Link(2e2, 0.0), edge_cloud=Link(2e2, 0.0))
    assert predict(GRAPH, (D, C, C, C), slower).links["device_edge"].nbytes == 250


def test_another_objective_chooses_another_codec() -> None:
    backbone = replace(COSTS, worth=CodingWorth(latency=1e-6, backbone_byte=1.0))
    assert predict(GRAPH, (D, C, C, C), backbone).links["edge_cloud"].nbytes == 250
    assert predict(GRAPH, (D, E, E, E), backbone).links["device_edge"].nbytes == 500


def test_an_edge_node_on_the_way_to_the_cloud_has_to_know_the_codec_too() -> None:
    lacking = CodecCosts(KNOWN.ratios, {**KNOWN.speeds, E: {}})
    costs = replace(COSTS, codecs=lacking)
    assert predict(GRAPH, (D, C, C, C), costs).links["device_edge"].nbytes == 1000
    without_edge = {tier: speeds for tier, speeds in lacking.speeds.items() if tier is not E}
    costs = replace(costs, codecs=CodecCosts(KNOWN.ratios, without_edge))
    assert predict(GRAPH, (D, C, C, C), costs).links["device_edge"].nbytes == 500


def test_the_period_counts_whoever_encodes_or_decodes_longest() -> None:
    slow = CodecSpeed(encode_bytes_per_s=500, decode_bytes_per_s=1e9)
    costs = replace(COSTS, codecs=CodecCosts({0: {"bitmap": 100.0}}, {tier: {"bitmap": slow} for tier in Tier}))
    fixed = replace(costs, fixed=PlannedCodecs({0: "bitmap"}))
    assert predict(GRAPH, (D, E, E, E), fixed).period_s == pytest.approx(2.0)


def test_a_plan_in_force_is_priced_with_the_codecs_that_it_has() -> None:
    as_it_is = replace(COSTS, fixed=PlannedCodecs())
    assert predict(GRAPH, (D, E, E, E), as_it_is).links["device_edge"].nbytes == 1000
    of_nobody = replace(COSTS, fixed=PlannedCodecs({0: "lzma"}))
    assert predict(GRAPH, (D, E, E, E), of_nobody).links["device_edge"].nbytes == 1000
    given = replace(COSTS, fixed=PlannedCodecs({0: "bitmap-zstd"}))
    choice = priced(GRAPH, (D, E, E, E), NodeSet({D: "d", E: "e"}, given))
    assert choice.codecs(GRAPH) == PlannedCodecs({0: "bitmap-zstd"})
    chosen = priced(GRAPH, (D, E, C, C), NodeSet({D: "d", E: "e", C: "c"}, COSTS)).codecs(GRAPH)
    assert chosen == PlannedCodecs({0: "bitmap", 1: "bitmap"})


def test_an_output_has_a_codec_of_its_own_on_its_way_back_from_each_tier() -> None:
    both = ModelGraph("both", "0", GRAPH.tensors, GRAPH.blocks, (0,), (1, 3))  # the first map is read, and an output
    without_edge = CodecCosts(KNOWN.ratios, {D: KNOWN.speeds[D], E: {}, C: KNOWN.speeds[C]})
    costs = replace(COSTS, codecs=without_edge)
    nodes = NodeSet({D: "d", E: "e", C: "c"}, costs)
    # from the cloud over both links; a node on the edge sees nothing of it
    from_cloud = priced(both, (D, C, C, C), nodes)
    assert from_cloud.codecs(both) == PlannedCodecs({}, {1: "bitmap"})
    below, above = from_cloud.predicted.links["device_edge"], from_cloud.predicted.links["edge_cloud"]
    assert (below.result_nbytes, below.result_uncoded_nbytes, above.result_nbytes) == (540, 1040, 540)
    assert (below.result_encode_seconds, below.result_decode_seconds) == (0.0, 0.0)
    assert [above.result_encode_seconds, above.result_decode_seconds] == pytest.approx([0.1, 0.05])
    assert from_cloud.predicted.seconds == pytest.approx(2 * 1.0 + 2 * 0.54 + 0.15)
    assert below.result_ratio == pytest.approx(1040 / 540)
    # up with a codec, and back without: the edge knows none
    assert priced(both, (D, E, C, C), nodes).codecs(both) == PlannedCodecs()
    assert priced(both, (D, D, C, C), nodes).codecs(both) == PlannedCodecs()
    known = replace(nodes, costs=replace(COSTS, worth=CodingWorth(latency=1e-6, backbone_byte=1.0)))
    assert priced(both, (D, E, C, C), known).codecs(both) == PlannedCodecs({0: "bitmap", 1: "bitmap"}, {1: "bitmap"})


def test_who_encodes_results_and_tensors_or_decodes_results_is_a_coder_of_the_period() -> None:
    both = ModelGraph("both", "0", GRAPH.tensors, GRAPH.blocks, (0,), (1, 2))
    slow = CodecSpeed(encode_bytes_per_s=500, decode_bytes_per_s=1e9)
    known = CodecCosts({1: {"bitmap": 100.0}}, {tier: {"bitmap": slow} for tier in Tier})
    fixed = replace(COSTS, codecs=known, fixed=PlannedCodecs({1: "bitmap"}, {1: "bitmap"}))
    assert predict(both, (D, E, E, E), fixed).period_s == pytest.approx(2.01)  # the link's, with both outputs
    assert predict(both, (D, E, C, C), fixed).period_s == pytest.approx(4.0)  # the edge encodes it twice
    slow = CodecSpeed(encode_bytes_per_s=1e9, decode_bytes_per_s=200)
    known = CodecCosts({1: {"bitmap": 100.0}, 2: {"bitmap": 100.0}}, {tier: {"bitmap": slow} for tier in Tier})
    fixed = replace(COSTS, codecs=known, fixed=PlannedCodecs({}, {1: "bitmap", 2: "bitmap"}))
    assert predict(both, (D, E, C, C), fixed).period_s == pytest.approx(10.0)  # the device decodes both
