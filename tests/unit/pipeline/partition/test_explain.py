"""Why a plan is as it is: every claim checked by planning again."""

from __future__ import annotations

import json

import pytest

from pipeline.cost import Costs, Link
from pipeline.errors import Infeasible, PlanError
from pipeline.graph import ModelGraph
from pipeline.models.graphs import shipped_graph
from pipeline.partition import PLANNERS, exact
from pipeline.partition.constraints import MemoryLimit, RawStays, TimeLimit
from pipeline.partition.explain import decision_map, explain, kind_of, with_bandwidth
from pipeline.partition.objective import LATENCY, THROUGHPUT, Objective, parse
from pipeline.partition.priced_plan import NodeSet
from pipeline.partition.search import choose
from pipeline.placement import Tier

GRAPH = shipped_graph("resnet18")
SPEEDS = {Tier.DEVICE: 5e9, Tier.EDGE: 3e10, Tier.CLOUD: 2e11}
NAMES = {Tier.DEVICE: "pi", Tier.EDGE: "box", Tier.CLOUD: "server"}


def costs_of(
    graph: ModelGraph, mbit: tuple[float, float] = (85.0, 30.0), prices: dict[Tier, float] | None = None
) -> Costs:
    seconds = {tier: [block.macs / speed for block in graph.blocks] for tier, speed in SPEEDS.items()}
    links = [Link(rate * 125_000, 1e-3) for rate in mbit]
    return Costs(seconds, links[0], links[1], prices or {})


NODE_SET = NodeSet(NAMES, costs_of(GRAPH))


@pytest.mark.parametrize("objective", [LATENCY, THROUGHPUT])
def test_all_planners_are_priced_beside_the_best_and_none_is_better(objective: Objective) -> None:
    found = explain(GRAPH, [NODE_SET], (), objective)
    assert [a.planner for a in found.alternatives] == list(PLANNERS)
    assert all(a.priced_plan and a.priced_plan.value >= found.best.value * (1 - 1e-6) for a in found.alternatives)
    assert found.runner_up is not None
    assert found.runner_up.value >= found.best.value
    text = json.loads(json.dumps(found.to_json(GRAPH)))
    assert {b["planner"]: b["ratio"] for b in text["baselines"]}["exact"] == pytest.approx(1.0)
    assert text["best"]["predicted"]["period_seconds"] > 0


def test_the_decision_turns_where_it_says() -> None:
    found = explain(GRAPH, [NODE_SET])
    kind = kind_of(GRAPH, found.best.placement)
    assert found.breakpoints
    for point in found.breakpoints:
        away = (
            1.02 if point.bandwidth_bytes_per_s > found.best.costs.link(point.lower).bandwidth_bytes_per_s else 1 / 1.02
        )
        there = with_bandwidth(NODE_SET, point.lower, point.bandwidth_bytes_per_s)
        before = with_bandwidth(NODE_SET, point.lower, point.bandwidth_bytes_per_s / away)
        assert kind_of(GRAPH, choose(GRAPH, [there])[0].placement) == point.kind != kind
        assert kind_of(GRAPH, choose(GRAPH, [before])[0].placement) == kind


def test_a_single_tier_that_wins_is_told_with_what_splitting_loses() -> None:
    near = NodeSet(NAMES, costs_of(GRAPH, (10_000.0, 0.1)))
    found = explain(GRAPH, [near])
    assert kind_of(GRAPH, found.best.placement) == "edge"
    assert found.split is not None
    assert found.split.value > found.best.value
    assert found.sentence().startswith("The edge alone is best with")
    assert f"{found.split.value / found.best.value:.3g} times as much" in found.sentence()


def test_what_a_binding_constraint_costs_is_said_and_of_others_nothing() -> None:
    stays, loose = RawStays(Tier.DEVICE), TimeLimit(Tier.DEVICE, 1e3)
    found = explain(GRAPH, [NODE_SET], [stays, loose])
    assert [shadow_price.constraint for shadow_price in found.shadow_prices] == [stays.describe(GRAPH)]
    assert found.shadow_prices[0].value_without == pytest.approx(explain(GRAPH, [NODE_SET]).best.value)
    # what a tier alone would take is said also where it may not
    alone, free = ({a.planner: a for a in one.alternatives} for one in (found, explain(GRAPH, [NODE_SET])))
    forbidden, allowed = alone["cloud-only"].forbidden, free["cloud-only"].priced_plan
    assert alone["cloud-only"].priced_plan is None
    assert "the raw input stays on the device" in alone["cloud-only"].why_not
    assert forbidden is not None
    assert allowed is not None
    assert forbidden.value == allowed.value
    assert alone["device-only"].forbidden is None


def test_the_best_of_several_nodes_is_chosen_and_a_small_memory_passes_a_node_over() -> None:
    costs = costs_of(GRAPH, (1000.0, 1.0))
    slow = Costs(
        {**costs.seconds, Tier.EDGE: [2 * s for s in costs.seconds[Tier.EDGE]]}, costs.device_edge, costs.edge_cloud
    )
    fast_one = NodeSet({**NAMES, Tier.EDGE: "fast"}, costs)
    slow_one = NodeSet({**NAMES, Tier.EDGE: "slow"}, slow)
    assert choose(GRAPH, [slow_one, fast_one])[0].nodes[Tier.EDGE] == "fast"
    small = NodeSet(fast_one.nodes, costs, (MemoryLimit(Tier.EDGE, 1e6),))
    assert choose(GRAPH, [slow_one, small])[0].nodes.get(Tier.EDGE) == "slow"


def test_a_price_moves_blocks_away_from_the_dear_node() -> None:
    dear = NodeSet(NAMES, costs_of(GRAPH, (1000.0, 1000.0), {Tier.CLOUD: 1.0}))
    fast = choose(GRAPH, [dear], (), LATENCY)[0]
    cheap = choose(GRAPH, [dear], (), parse("price"))[0]
    assert Tier.CLOUD in fast.placement
    assert Tier.CLOUD not in cheap.placement
    assert cheap.predicted.price == 0.0 < fast.predicted.price


def test_the_map_agrees_with_planning_at_each_point() -> None:
    below, above = [1e5, 1e7, 1e9], [1e5, 1e8]
    graph = shipped_graph("alexnet")
    kinds, values = decision_map(graph, [NodeSet(NAMES, costs_of(graph))], (), LATENCY, below, above)
    for row, device_edge in enumerate(below):
        for column, edge_cloud in enumerate(above):
            costs = costs_of(graph, (device_edge / 125_000, edge_cloud / 125_000))
            best = exact.partition(graph, costs)
            assert kinds[row][column] == kind_of(graph, best)
            assert values[row][column] > 0


@pytest.mark.parametrize(
    "text", ["", "speed", "latency=", "latency=-1", "latency=1,latency=2", "latency=nan", "period"]
)
def test_an_objective_that_is_none_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(PlanError, match="objective"):
        parse(text)


def test_an_objective_is_read_back_from_its_text() -> None:
    for text in ("latency", "throughput", "backbone", "price", "latency=1,backbone=0.05", "period=2,price=3"):
        assert str(parse(text)) == text


def test_nothing_but_raw_pixels_passes_a_padding_or_a_scaling() -> None:
    """The first blocks of MobileNetV3 scale the input: what leaves the device must have passed a convolution."""
    graph = shipped_graph("mobilenet_v3_small")
    found = choose(graph, [NodeSet(NAMES, costs_of(graph))], [RawStays(Tier.DEVICE)])[0]
    first = next(block for block in graph.blocks if block.kind == "Conv2D")
    assert found.placement[first.index] == Tier.DEVICE


def test_no_candidate_at_all_is_infeasible_with_the_conflict() -> None:
    with pytest.raises(Infeasible, match="the device computes for at most 0 s"):
        choose(GRAPH, [NODE_SET], [RawStays(Tier.DEVICE), TimeLimit(Tier.DEVICE, 0.0)])
