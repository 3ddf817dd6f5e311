"""Prices of placements and plan requests, asked of the running planner: as in earnest, but nothing changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from nodes.config.plan_request import PlanRequest
from nodes.planner.machine import events as pe
from pipeline.plan import Plan
from tests.unit.nodes.planner.machine.test_plan_requests import IMPOSSIBLE, NOT_IN_CLOUD, PRIVATE
from tests.unit.nodes.planner.machine.test_planner import ON_CLOUD, ON_EDGE, Planner, planning, published
from tests.unit.nodes.tier.machine.test_tier import CAM, CLOUD, DEVICE, EDGE, GRAPH, D


def price(planner: Planner, **asked: Any) -> Mapping[str, Any]:
    (reply,) = planner(pe.PriceRequested(CAM, "ticket", **asked))
    assert isinstance(reply, pe.Reply)
    return reply.answer


def test_a_cut_is_priced_beside_the_plan_that_runs_and_nothing_is_published() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    answer = price(planner, edge_from="b1")
    assert answer["ok"]
    assert Plan.from_json(answer["plan"], GRAPH).placement == ON_EDGE
    assert answer["value"] > answer["present"]["value"]
    assert answer["plan"]["predicted"]["seconds"] > answer["present"]["predicted"]["seconds"]
    assert published(planner.tick(100.0)) == []


def test_the_price_of_a_cut_is_that_of_the_plan_when_it_is_placed() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    asked = price(planner, edge_from="b1")
    *actions, reply = planner(pe.PlaceRequested(CAM, "ticket", edge_from="b1"))
    (plan,) = published(actions)
    assert isinstance(reply, pe.Reply)
    assert reply.answer["ok"]
    assert plan.predicted.seconds == pytest.approx(asked["plan"]["predicted"]["seconds"])
    assert plan.placement == ON_EDGE


def test_the_whole_on_the_device_has_a_price_too() -> None:
    answer = price(planning(DEVICE, EDGE, CLOUD))
    assert Plan.from_json(answer["plan"], GRAPH).placement == (D,) * len(GRAPH)


def test_a_request_is_priced_by_the_best_plan_under_it() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    answer = price(planner, plan_request=NOT_IN_CLOUD)
    assert Plan.from_json(answer["plan"], GRAPH).placement == ON_EDGE
    assert planner.machine.inventory.streams[CAM].requested is None
    assert Plan.from_json(price(planner, plan_request=PlanRequest())["plan"], GRAPH).placement == ON_CLOUD


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"edge_from": "conv99"}, "conv99"),
        ({"edge_from": "b3", "cloud_from": "b1"}, "would begin"),
        ({"plan_request": IMPOSSIBLE}, "b1"),
    ],
)
def test_what_cannot_be_is_refused_in_words(asked: dict[str, Any], why: str) -> None:
    answer = price(planning(DEVICE, EDGE, CLOUD), **asked)
    assert not answer["ok"]
    assert why in answer["error"]


def test_a_cut_that_breaks_a_constraint_is_refused_as_in_earnest() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner(pe.PlanRequested(CAM, "ticket", PRIVATE))
    assert "it breaks" in price(planner, edge_from="b1")["error"]


def test_an_unknown_stream_is_named() -> None:
    (reply,) = planning(DEVICE, EDGE)(pe.PriceRequested(type(CAM)("none"), "ticket"))
    assert isinstance(reply, pe.Reply)
    assert "unknown stream 'none'" in reply.answer["error"]
