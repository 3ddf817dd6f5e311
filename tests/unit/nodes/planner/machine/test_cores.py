"""Nodes that share their machine's cores are planned so, and the plan says where that bounds it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nodes.config.plan_request import PlanRequest
from nodes.planner.machine import events as pe
from nodes.planner.machine.cores import shared_cores
from nodes.protocol.messages import NodeInfo
from pipeline.plan import NodeId, Plan
from pipeline.shared_cores import SharedCores
from tests.unit.nodes.planner.machine.test_planner import PATIENCE_S, SETTLE_S, Planner, published
from tests.unit.nodes.tier.machine.test_tier import CAM, CLOUD, DEVICE, EDGE, C, D, E


def info(machine: str, cores: float, busy_cores: float) -> NodeInfo:
    known = {"machine": machine, "cores": cores, "busy_cores": busy_cores}
    return NodeInfo(DEVICE, "device", "s", "1", "tf", "2", 1, "x", {}, **known)  # type: ignore[arg-type]


def planned(*machines: str) -> Plan:
    """For throughput, by nodes of equal speed with a thread each, on machines of two cores."""
    planner, nodes = Planner(), (DEVICE, EDGE, CLOUD)
    planner.come(*nodes)
    for node, machine in zip(nodes, machines, strict=True):
        planner.profile(node, 1.0)
        planner.info(node, cores=(machine, 2.0, 1.0))
    planner.tick(SETTLE_S)
    asked = pe.PlanRequested(CAM, "ticket", PlanRequest(objective="throughput"))
    return published([*planner(asked, PATIENCE_S), *planner.tick(PATIENCE_S)])[-1]


def test_three_nodes_on_two_cores_are_no_quicker_than_two() -> None:
    apart, together = planned("a", "b", "c"), planned("a", "a", "a")
    assert len(apart.nodes) == 3
    assert apart.predicted.bottleneck == "the device"
    assert apart.predicted.period_s == pytest.approx(1.0)
    assert together.predicted.period_s >= 1.5, "three blocks of a second on two cores"
    assert len(together.nodes) == 2 or together.predicted.bottleneck.startswith("the 2 cores that device")


def test_the_reason_names_the_cores_that_bound_the_period() -> None:
    plan = planned("a", "a", "a")
    assert f"the period is that of {plan.predicted.bottleneck}" in plan.reason


def test_a_node_that_does_not_say_its_cores_shares_none() -> None:
    one, other = info("here", 4.0, 1.0), info("here", 4.0, 2.0)
    shared = SharedCores("here", 4.0, {D: 0.25, C: 0.5})
    assert shared_cores({D: one, E: info("here", 0.0, 0.0), C: other}) == (shared,)
    assert shared_cores({D: one, E: info("", 4.0, 1.0)}) == ()
    assert shared_cores({D: one, E: info("there", 4.0, 1.0)}) == ()


def test_workers_of_tiles_share_the_cores_of_their_machine() -> None:
    worker = replace(info("here", 4.0, 1.0), node=NodeId("w"))
    alone, apart = replace(worker, node=NodeId("x"), machine="there"), replace(worker, node=NodeId("y"), cores=0.0)
    assert shared_cores({E: info("here", 4.0, 2.0)}, [worker, alone, apart]) == (
        SharedCores("here", 4.0, {E: 0.5}, ("w",)),
    )
