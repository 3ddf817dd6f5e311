"""The planner's machine, continued: nodes that take long to prepare a plan, or never do."""

from __future__ import annotations

from tests.unit.nodes.planner.machine.test_planner import (
    ON_CLOUD,
    ON_EDGE,
    PATIENCE_S,
    logged,
    planning,
    published,
)
from tests.unit.nodes.tier.machine.test_tier import (
    CLOUD,
    DEVICE,
    EDGE,
    applied,
    state,
)


def test_a_living_node_that_never_prepares_is_left_out_after_the_deadline() -> None:
    planner = planning(DEVICE, EDGE, CLOUD, prepare_timeout_s=120.0)
    planner.tick(0.0)
    assert published(planner.tick(119.0)) == []
    actions = planner.tick(1.0)
    assert "cloud-1 has not prepared epoch 1 within 120 s: it is left out until it has" in logged(actions)
    (without,) = published(actions)
    assert without.placement == ON_EDGE


def test_a_node_that_was_late_is_planned_with_again_when_it_is_done_and_gets_twice_as_long() -> None:
    planner = planning(DEVICE, EDGE, CLOUD, prepare_timeout_s=120.0)
    planner(applied(CLOUD, seen=1, preparing=(1,)))
    (without,) = published(planner.tick(120.0))
    planner(applied(EDGE, (without.epoch,)))
    planner(applied(CLOUD, seen=2, preparing=(1,)), 60.0)
    actions = planner(applied(CLOUD, seen=2))
    assert "cloud-1 is done with epoch 1 of stream cam, late, and is planned with again" in logged(actions)
    (again,) = published(actions)
    assert again.placement == ON_CLOUD
    planner(applied(CLOUD, seen=3, preparing=(3,)))
    assert published(planner.tick(239.0)) == []
    assert published(planner.tick(1.0))[0].placement == ON_EDGE


def test_a_node_that_neither_prepares_nor_refuses_is_left_out_until_it_restarts() -> None:
    planner = planning(DEVICE, EDGE, CLOUD, prepare_timeout_s=120.0)
    planner(applied(CLOUD, seen=1))
    actions = planner.tick(120.0)
    assert "not at work on it: it is left out until it restarts" in "".join(logged(actions))
    (without,) = published(actions)
    planner(applied(CLOUD, seen=without.epoch))
    assert published(planner.tick(100.0)) == []
    planner(state(CLOUD, session="two"))
    assert published(planner.info(CLOUD, session="two") + planner.tick(PATIENCE_S))[0].placement == ON_CLOUD


def test_a_node_that_has_prepared_is_not_overdue() -> None:
    planner = planning(DEVICE, EDGE, CLOUD, prepare_timeout_s=120.0)
    planner(applied(CLOUD, (1,)))
    assert published(planner.tick(1000.0)) == []
