"""Objectives and constraints in the running planner: from the configuration, changed live, kept over a restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from nodes.config.plan_request import PlanRequest, as_written
from nodes.planner.machine import events as pe
from nodes.planner.machine.planner import PlannerMachine, PlannerSettings
from nodes.planner.machine.static_costs import StaticCosts
from nodes.planner.machine.stream import FORCED
from nodes.protocol.messages import Report
from pipeline.cost import Link
from pipeline.placement import Tier
from pipeline.plan import Plan
from tests.unit.nodes.planner.machine.test_planner import (
    ON_CLOUD,
    ON_DEVICE,
    ON_EDGE,
    PATIENCE_S,
    SETTLE_S,
    Planner,
    logged,
    planning,
    published,
)
from tests.unit.nodes.tier.machine.test_tier import CAM, CLOUD, DEVICE, EDGE, EDGE_2, GRAPH, C, D, E

PRIVATE = PlanRequest.model_validate({"constraints": {"raw_stays_on": "device"}})
AT_HOME = PlanRequest.model_validate({"constraints": {"pin": {"b3": "device"}}})
NOT_IN_CLOUD = PlanRequest.model_validate({"constraints": {"exclude_nodes": [CLOUD]}})
IMPOSSIBLE = PlanRequest.model_validate({"constraints": {"pin": {"b1": "cloud", "b3": "device"}}})
NO_SUCH_BLOCK = PlanRequest.model_validate({"constraints": {"pin": {"conv99": "edge"}}})


def asked(
    planner: Planner, plan_request: PlanRequest | None, stream: str = "cam"
) -> tuple[list[Plan], Mapping[str, Any]]:
    """What was published, and the answer."""
    *actions, reply = planner(pe.PlanRequested(type(CAM)(stream), "ticket", plan_request))
    assert isinstance(reply, pe.Reply)
    return published(actions), reply.answer


def configured(plan_request: PlanRequest, static_costs: StaticCosts | None = None) -> Planner:
    planner = Planner()
    settings = PlannerSettings(min_seconds_between_plans=PATIENCE_S, settle_s=SETTLE_S, lost_after_s=1e9)
    planner.machine = PlannerMachine(
        settings, started_at=0.0, plan_requests={CAM: plan_request}, static_costs=static_costs
    )
    planner.come(DEVICE, EDGE, CLOUD)
    return planner


def test_the_first_plan_respects_what_the_configuration_asks_for() -> None:
    (plan,) = published(configured(PRIVATE).tick(SETTLE_S))
    assert plan.placement == (D, D, C, C)
    assert plan.plan_request is None


def test_wishes_change_the_plan_at_once_and_stay() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    (plan,), answer = asked(planner, NOT_IN_CLOUD)
    assert (plan.epoch, plan.placement) == (2, ON_EDGE)
    assert answer["plan"]["plan_request"] == as_written(NOT_IN_CLOUD)
    assert published(planner.tick(100.0)) == []
    (back,), _ = asked(planner, None)
    assert (back.placement, back.plan_request) == (ON_CLOUD, None)


def test_another_objective_judges_by_another_value_and_says_so() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    (plan,), _ = asked(planner, PlanRequest(objective="backbone"))
    assert (plan.placement, plan.objective) == (ON_EDGE, "backbone")
    assert "asked for backbone; predicted 0 MB a frame" in plan.reason


def test_a_single_tier_that_the_constraints_forbid_has_its_price_too() -> None:
    (free,) = published(configured(PlanRequest()).tick(SETTLE_S))
    (bound,) = published(configured(AT_HOME).tick(SETTLE_S))
    price = free.reason.partition("cloud alone ")[2].partition(" ms")[0]
    assert "forbid" not in free.reason
    assert f"cloud alone, which the constraints forbid, {price} ms" in bound.reason


def test_a_period_is_not_called_a_frames_seconds() -> None:
    (plan,) = published(configured(PlanRequest(objective="throughput")).tick(SETTLE_S))
    assert f"predicted a period of {plan.predicted.period_s * 1e3:.1f} ms, " in plan.reason
    assert f", {plan.predicted.seconds * 1e3:.1f} ms latency" in plan.reason


def test_every_plan_carries_its_runner_up() -> None:
    (plan,) = published(configured(PlanRequest()).tick(SETTLE_S))
    assert plan.runner_up is not None
    assert plan.runner_up["value"] >= plan.predicted.seconds
    assert plan.runner_up["nodes"] != {tier.label: node for tier, node in plan.nodes.items()} or (
        plan.runner_up["kind"] != "cloud"
    )


def test_another_planner_than_the_exact_one_may_be_asked_for() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    (plan,), _ = asked(planner, PlanRequest(planner="device-only"))
    assert (plan.placement, plan.planner) == (ON_DEVICE, "device-only")


def test_what_cannot_be_is_refused_with_the_conflict_and_changes_nothing() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    for plan_request, said in (
        (IMPOSSIBLE, "these 2 constraints conflict: block 'b1' runs on the cloud; block 'b3' runs on the device"),
        (NO_SUCH_BLOCK, "no block 'conv99'"),
    ):
        plans, answer = asked(planner, plan_request)
        assert plans == []
        assert not answer["ok"]
        assert said in answer["error"]
    assert published(planner.tick(100.0)) == []
    assert "unknown stream 'porch'" in asked(planner, PRIVATE, "porch")[1]["error"]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"constraints": {"exclude_nodes": [DEVICE]}}, "where the frames enter"),
        ({"objective": "price"}, "all plans cost the same"),
        ({"objective": "latency=1,energy=0.1"}, "no plan's energy is known"),
        ({"constraints": {"energy_limit_j": 2.0}}, "no plan's energy is known"),
    ],
)
def test_a_request_that_could_change_nothing_is_refused(request_: dict[str, Any], said: str) -> None:
    plans, answer = asked(planning(DEVICE, EDGE, CLOUD), PlanRequest.model_validate(request_))
    assert not plans
    assert said in answer["error"]


def test_a_configuration_that_leaves_no_plan_is_told_once() -> None:
    planner = configured(IMPOSSIBLE)
    (said,) = logged(planner.tick(SETTLE_S))
    assert "no plan for stream cam yet: no placement: these 2 constraints conflict" in said
    assert planner.tick(1.0) == []


def test_a_placement_by_hand_may_not_break_a_constraint() -> None:
    planner = configured(PRIVATE)
    planner.tick(SETTLE_S)
    plans, answer = planner.place("b1")
    assert plans == []
    assert "it breaks: the raw input stays on the device" in str(answer["error"])


def test_wishes_that_a_placement_by_hand_breaks_are_refused_with_the_way_out() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    planner.place("b1")
    plans, answer = asked(planner, AT_HOME)
    assert plans == []
    assert "`trisect place --auto` hands it back" in answer["error"]
    planner.place(auto=True)
    (plan,), _ = asked(planner, AT_HOME)
    assert plan.placement == ON_DEVICE


def test_a_planner_that_comes_back_goes_on_with_what_a_person_asked_for() -> None:
    planner = planning(DEVICE, EDGE, CLOUD)
    (plan,), _ = asked(planner, NOT_IN_CLOUD)
    again = Planner()
    again(pe.PlanSeen(Plan.from_json(plan.to_json(GRAPH))))
    again.come(DEVICE, EDGE, CLOUD)
    (adopted,) = published(again.tick(SETTLE_S))
    assert (adopted.epoch, adopted.placement) == (plan.epoch, ON_EDGE)
    assert published(again.tick(100.0)) == []


def test_a_plan_that_breaks_a_limit_since_its_node_slowed_down_is_replaced_however_little_is_gained() -> None:
    planner = planning(DEVICE, EDGE, EDGE_2, CLOUD)
    limited = PlanRequest.model_validate({"constraints": {"exclude_nodes": [CLOUD], "time_limit": {"edge": 0.5}}})
    (plan,), _ = asked(planner, limited)
    assert plan.nodes == {D: DEVICE, E: EDGE}
    planner.profile(EDGE, 0.18)
    (moved,) = published(planner.tick(PATIENCE_S))
    assert "the present plan breaks what is asked: the edge computes for at most 0.5 s a frame" in moved.reason
    assert sum(tier is E for tier in moved.placement) < 3 or moved.nodes[E] != EDGE


def test_given_links_prices_and_memory_are_the_terms_of_a_plan() -> None:
    slow_backbone = StaticCosts(links={Tier.EDGE: Link(10.0, 0.0)})
    (plan,) = published(configured(PlanRequest(), slow_backbone).tick(SETTLE_S))
    assert plan.placement == ON_EDGE
    dear = StaticCosts(prices={CLOUD: 1.0})
    (plan,) = published(configured(PlanRequest(objective="price"), dear).tick(SETTLE_S))
    assert C not in plan.placement
    small = StaticCosts(memory_bytes={CLOUD: 1.0, EDGE: 1.0})
    (plan,) = published(configured(PlanRequest(), small).tick(SETTLE_S))
    assert plan.placement == ON_DEVICE
    assert plan.planner != FORCED


def test_watts_that_a_node_measures_count_in_plans_by_energy_once_they_leave_their_band() -> None:
    planner = configured(PlanRequest(objective="energy"))
    planner(pe.TelemetryArrived(DEVICE, Report(work_watts=2.0)))
    (plan,) = published(planner.tick(SETTLE_S))
    assert D not in plan.placement[1:], "others have measured nothing, and draw nothing"
    for node in (EDGE, CLOUD):
        planner(pe.TelemetryArrived(node, Report(work_watts=2000.0)))
    planner.tick(PATIENCE_S)
    present = planner.machine.inventory.streams[CAM].plan
    assert present is not None
    assert set(present.placement) == {Tier.DEVICE}
    assert present.predicted.joules == pytest.approx(2.0 * present.predicted.seconds, rel=0.2)
    before = planner.machine.inventory.static_costs
    planner(pe.TelemetryArrived(DEVICE, Report(work_watts=2.1)))
    assert planner.machine.inventory.static_costs is before
