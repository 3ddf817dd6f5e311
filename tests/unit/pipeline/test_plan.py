"""Stages and crossings follow from a placement; a plan survives JSON, and any other JSON is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cost import Costs, Link, Prediction, predict
from pipeline.errors import PlanError, TrisectError
from pipeline.graph import ModelGraph
from pipeline.placement import Crossing, Placement, Stage, Tier, check, crossings, split_at, stages
from pipeline.plan import MAX_BLOCKS, NodeId, Plan, StreamId
from tests.graphs import chain, graphs, placements
from tests.unit.pipeline.test_graph import values

D, E, C = Tier


def plan_of(graph: ModelGraph, placement: Placement) -> Plan:
    link = Link(1e6, 1e-3)
    priced = Costs({tier: [1e-3] * len(graph) for tier in Tier}, link, link)
    return Plan(
        stream=StreamId("camera"),
        epoch=3,
        model=graph.name,
        digest=graph.digest,
        nodes={tier: NodeId(f"{tier.label}-1") for tier in sorted({*placement})},
        placement=placement,
        predicted=predict(graph, placement, priced),
        planner="exact",
        reason="because",
        created_ts=1.5,
    )


@given(st.data())
def test_every_block_is_in_one_stage_and_every_input_was_sent_before(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    placement = data.draw(placements(graph))
    check(graph, placement)
    sent: set[int] = set()
    done: list[int] = []
    results: list[int] = []
    for stage in stages(graph, placement):
        assert set(stage.inputs) <= sent
        made = {t for b in stage.blocks for t in graph.blocks[b].outputs}
        read = {t for b in stage.blocks for t in graph.blocks[b].inputs}
        assert read <= made | set(stage.inputs)
        assert set(stage.inputs) <= read
        assert set(stage.outputs) <= made
        sent |= set(stage.sends)
        done += stage.blocks
        results += stage.results
    assert sorted(done) == list(range(len(graph)))
    assert sorted(results) == sorted(set(graph.outputs))


@given(st.data())
def test_a_tensor_crosses_exactly_the_links_between_its_maker_and_its_furthest_reader(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    placement = data.draw(placements(graph))
    crossing = {c.tensor: c for c in crossings(graph, placement)}
    for tensor in graph.tensors:
        source = placement[graph.producer[tensor.id]]
        furthest = max((placement[b] for b in graph.consumers[tensor.id]), default=source)
        for lower in (D, E):
            crosses = tensor.id in crossing and crossing[tensor.id].crosses(lower)
            assert crosses == (source <= lower < furthest)


def test_a_fork_over_three_tiers_gives_these_stages() -> None:
    graph = chain(8, 8, 8, 8)
    assert stages(graph, (D, D, E, C)) == (
        Stage(D, (0, 1), (), (1,), ()),
        Stage(E, (2,), (1,), (2,), ()),
        Stage(C, (3,), (2,), (), (3,)),
    )
    assert crossings(graph, (D, D, D, C)) == (Crossing(2, D, (C,)),)


def test_data_that_would_flow_backwards_is_refused() -> None:
    graph = chain(8, 8, 8)
    with pytest.raises(PlanError, match="block 'b1' on the edge feeds 'b2' on the device"):
        check(graph, (D, E, D))
    with pytest.raises(PlanError, match="input block stands on the device"):
        check(graph, (E, E, E))
    with pytest.raises(PlanError, match="placement of 2 blocks for a model of 3"):
        check(graph, (D, E))


def test_a_model_is_split_by_the_names_of_blocks() -> None:
    graph = chain(8, 8, 8, 8)
    assert split_at(graph, "b1", "b3") == (D, E, E, C)
    assert split_at(graph, None, "layer2") == (D, D, C, C)
    assert split_at(graph, "2", None) == (D, D, E, E)
    assert split_at(graph, "b0", None) == (D, E, E, E)
    assert split_at(graph, None, None) == (D, D, D, D)
    with pytest.raises(PlanError, match="the cloud would begin at block 1, before the edge at 2"):
        split_at(graph, "b2", "b1")


@given(st.data())
def test_a_plan_comes_back_from_its_json(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    plan = plan_of(graph, data.draw(placements(graph)))
    assert Plan.from_json(json.loads(json.dumps(plan.to_json(graph))), graph) == plan


def reads_or_refuses(value: object, graph: ModelGraph | None) -> None:
    try:
        assert isinstance(Plan.from_json(value, graph), Plan)  # type: ignore[arg-type]  # what a peer may send
    except PlanError:
        pass


@given(values)
def test_any_json_is_a_plan_or_a_plan_error(value: object) -> None:
    reads_or_refuses(value, None)


@given(st.data())
def test_a_mutated_plan_is_a_plan_or_a_plan_error(data: st.DataObject) -> None:
    graph = data.draw(graphs(max_blocks=4))
    message = json.loads(json.dumps(plan_of(graph, data.draw(placements(graph))).to_json(graph)))
    targets = [message, message["predicted"], message["predicted"]["stages"], *message["stages"]]
    target = data.draw(st.sampled_from(targets))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(values)
    reads_or_refuses(message, data.draw(st.sampled_from([None, graph])))


def test_a_plan_that_claims_many_blocks_is_refused_before_it_costs_memory() -> None:
    graph = chain(8, 8)
    message = plan_of(graph, (D, E)).to_json(graph)
    message["stages"][0]["blocks"] = [[0, 10**12]]
    with pytest.raises(PlanError, match=f"not within 0 to {MAX_BLOCKS}"):
        Plan.from_json(message)


def test_a_plan_that_repeats_a_range_is_refused() -> None:
    graph = chain(8, 8)
    message = plan_of(graph, (D, E)).to_json(graph)
    message["stages"][0]["blocks"] = [[0, 1]] * 2
    with pytest.raises(PlanError, match="placed twice"):
        Plan.from_json(message)


@pytest.mark.parametrize("key", ["epoch", "created_ts"])
def test_a_plan_with_a_number_beyond_all_bounds_is_refused(key: str) -> None:
    graph = chain(8, 8)
    message = plan_of(graph, (D, E)).to_json(graph)
    message[key] = float("inf") if key == "epoch" else 10**400
    with pytest.raises(PlanError):
        Plan.from_json(message)


def test_a_plan_knows_its_device_and_who_serves_which_tier() -> None:
    graph = chain(8, 8, 8)
    plan = plan_of(graph, (D, D, C))
    assert plan.device == "device-1"
    assert plan.tier_of(NodeId("cloud-1")) == C
    assert plan.tier_of(NodeId("edge-1")) is None
    assert plan.stages(graph) == stages(graph, plan.placement)
    assert plan.crossings(graph) == crossings(graph, plan.placement)


def test_blocks_placed_twice_or_not_at_all_are_refused() -> None:
    graph = chain(8, 8, 8)
    good = plan_of(graph, (D, E, C)).to_json(graph)
    for blocks, said in (([[0, 2]], "block 1 is placed twice"), ([[5, 6]], "place every block from 0 on")):
        message = json.loads(json.dumps(good))
        message["stages"][0]["blocks"] = blocks
        with pytest.raises(PlanError, match=said):
            Plan.from_json(message, graph)


def test_a_plan_error_is_a_trisect_error_without_a_traceback_for_people() -> None:
    assert issubclass(PlanError, TrisectError)
    assert Prediction.from_json(Prediction(1.0, {"device": 1.0}, {}).to_json()).seconds == 1.0
