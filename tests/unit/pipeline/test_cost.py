"""The price of a placement, worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cost import Costs, Link, LinkCost, Prediction, predict
from pipeline.critical_path import critical_path_s
from pipeline.errors import PlanError
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.placement import Tier
from tests.graphs import costs, graphs, placements

D, E, C = Tier

# input (600 B) -> stem (1000 B) -+-> left (200 B) --+-> join (40 B), the result
#                                 +-> right (300 B) -+
SIZES = (600, 1000, 200, 300, 40)
GRAPH = ModelGraph(
    "fork",
    "0",
    tuple(Tensor(i, f"t{i}", (1, n), "uint8") for i, n in enumerate(SIZES)),
    (
        Block(0, "input", "input", (), (), (0,)),
        Block(1, "stem", "Conv2D", (), (0,), (1,)),
        Block(2, "left", "Conv2D", (), (1,), (2,)),
        Block(3, "right", "Conv2D", (), (1,), (3,)),
        Block(4, "join", "Add", (), (2, 3), (4,)),
    ),
    (0,),
    (4,),
)
COSTS = Costs(
    {D: [0.0, 5.0, 2.0, 3.0, 1.0], E: [0.0, 0.5, 0.2, 0.3, 0.1], C: [0.0, 0.05, 0.02, 0.03, 0.01]},
    device_edge=Link(1000.0, 0.25),
    edge_cloud=Link(100.0, 0.5),
)


def about(seconds: float, nbytes: int, result_nbytes: int, busy_seconds: float) -> Any:
    """A LinkCost to compare with, its seconds within rounding."""
    within: list[Any] = [pytest.approx(seconds), pytest.approx(busy_seconds)]
    return LinkCost(within[0], nbytes, result_nbytes, within[1], nbytes, result_uncoded_nbytes=result_nbytes)


def test_a_placement_on_the_device_pays_no_link() -> None:
    assert predict(GRAPH, (D,) * 5, COSTS) == Prediction(11.0, {"device": 11.0}, {})


def test_a_placement_on_the_edge_pays_the_way_there_and_back() -> None:
    price = predict(GRAPH, (D, E, E, E, E), COSTS)
    # 600 B up and 40 B down at 1000 B/s, and the latency twice
    assert price.links == {"device_edge": LinkCost(0.64 + 0.5, 600, 40, 0.64, 600, result_uncoded_nbytes=40)}
    assert price.seconds == pytest.approx(1.1 + 1.14)


def test_the_way_to_the_cloud_pays_both_links() -> None:
    price = predict(GRAPH, (D, C, C, C, C), COSTS)
    assert price.links["device_edge"] == about(0.64 + 0.5, 600, 40, 0.64)
    assert price.links["edge_cloud"] == about(6.4 + 1.0, 600, 40, 6.4)
    assert price.seconds == pytest.approx(0.11 + 1.14 + 7.4)


@pytest.mark.parametrize(
    ("placement", "handled"),
    [
        ((D,) * 5, {}),
        ((D, E, E, E, E), {"device_edge": 1.1}),
        ((D, C, C, C, C), {"device_edge": 1.0, "edge_cloud": 5}),
        ((D, D, E, C, C), {"device_edge": 1.1, "edge_cloud": 5}),
    ],
)
def test_the_nodes_that_a_frame_passes_are_charged_for_handling_it_once(
    placement: tuple[Tier, ...], handled: dict[str, float]
) -> None:
    without = predict(GRAPH, placement, COSTS)
    price = predict(GRAPH, placement, replace(COSTS, send_receive_overhead={D: 1.0, E: 0.1, C: 5.0}))
    for name, cost in price.links.items():
        assert cost.seconds == pytest.approx(without.links[name].seconds + handled[name])
        assert cost.busy_seconds == without.links[name].busy_seconds
    assert price.seconds == pytest.approx(without.seconds + sum(handled.values()))
    assert price.period_s == without.period_s


def test_a_tensor_with_readers_on_two_tiers_crosses_each_link_once() -> None:
    price = predict(GRAPH, (D, D, E, C, C), COSTS)
    assert price.stages == {"device": 5.0, "edge": 0.2, "cloud": pytest.approx(0.04)}
    # the stem's 1000 B go up for left (edge) and right (cloud); left's 200 B join them to the cloud
    assert price.links["device_edge"] == about(1.04 + 0.5, 1000, 40, 1.04)
    assert price.links["edge_cloud"] == about(12.4 + 1.0, 1200, 40, 12.4)
    assert price.seconds == pytest.approx(5.24 + 1.54 + 13.4)


def test_the_critical_path_overlaps_branches_and_is_the_sum_of_a_chain() -> None:
    # stem on the device; left and right on the edge at once, each tensor's way on its own; join after the later one
    placement = (D, D, E, E, E)
    assert critical_path_s(GRAPH, placement, COSTS) == pytest.approx(5.0 + (1.0 + 0.25) + 0.3 + 0.1)
    assert critical_path_s(GRAPH, (D,) * 5, COSTS) == pytest.approx(5.0 + 3.0 + 1.0)
    assert critical_path_s(GRAPH, (D, C, C, C, C), COSTS) == pytest.approx(0.6 + 0.25 + 6.0 + 0.5 + 0.05 + 0.03 + 0.01)


def test_a_link_whose_result_is_made_below_it_pays_its_latency_once() -> None:
    early = ModelGraph("early", "0", GRAPH.tensors, GRAPH.blocks, (0,), (1,))
    price = predict(early, (D, D, E, E, E), COSTS)
    assert price.links["device_edge"] == LinkCost(1.25, 1000, 0, 1.0, 1000)


@given(st.data())
def test_the_price_is_the_sum_of_its_parts_and_comes_back_from_json(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    priced = data.draw(costs(graph))
    placement = data.draw(placements(graph))
    if not set(placement) <= set(priced.seconds):
        with pytest.raises(PlanError, match="which has no node"):
            predict(graph, placement, priced)
        return
    price = predict(graph, placement, priced)
    parts = [price.frame_overhead_seconds, *price.stages.values(), *(link.seconds for link in price.links.values())]
    assert price.seconds == pytest.approx(sum(parts))
    assert Prediction.from_json(json.loads(json.dumps(price.to_json()))) == price


def test_costs_that_cannot_be_are_refused_with_the_block() -> None:
    link = Link(1.0, 0.0)
    with pytest.raises(PlanError, match="no costs for the device"):
        Costs({E: [0.0] * 5}, link, link).check(GRAPH)
    with pytest.raises(PlanError, match="4 block times on the edge for 5 blocks"):
        Costs({D: [0.0] * 5, E: [0.0] * 4}, link, link).check(GRAPH)
    with pytest.raises(PlanError, match="block 'left' takes nan s on the device"):
        Costs({D: [0.0, 0.0, float("nan"), 0.0, 0.0]}, link, link).check(GRAPH)
    with pytest.raises(PlanError, match=r"the edge takes -1\.0 s to receive and send"):
        replace(COSTS, send_receive_overhead={E: -1.0}).check(GRAPH)
    with pytest.raises(PlanError, match="the device takes nan s to read a frame"):
        replace(COSTS, frame_overhead_s=float("nan")).check(GRAPH)
    with pytest.raises(PlanError, match="bandwidth above 0"):
        Link(0.0, 0.0)


@pytest.mark.parametrize("length", [0, 4, 6])
def test_a_placement_of_another_graph_has_no_price(length: int) -> None:
    with pytest.raises(PlanError, match=f"a placement of {length} blocks, and fork has 5"):
        predict(GRAPH, (D,) * length, COSTS)
