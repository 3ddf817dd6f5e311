"""Many streams on shared nodes: once each has the plan that follows from the others' load, none changes any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.fleet import SETTLING, Fleet, MachineRun, Member
from nodes.planner.machine import events as pe
from nodes.protocol.messages import SegmentSeconds
from pipeline.models.graphs import shipped_graph
from pipeline.placement import Tier
from pipeline.plan import Plan, StreamId

STREAMS, EDGES, CLOUDS = 8, 3, 1
MANY = 4
"""First plans that are made while others wait, so that they are not compared with others at once."""
FRAMES_PER_S = 12
STEADY = 12


class _BusyFleet(Fleet):
    """Streams that take more than one edge has."""

    def telemetry(self, member: Member, plans: dict[StreamId, Plan]) -> pe.TelemetryArrived:
        event = super().telemetry(member, plans)
        busy: tuple[SegmentSeconds, ...] = tuple(replace(s, frames=FRAMES_PER_S) for s in event.report.segments)
        return replace(event, report=replace(event.report, segments=busy))


class _Recorded(MachineRun):
    """Keeps the reasons of plans in the order in which they came."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet)
        self.reasons: list[str] = []

    def _perform(self, actions: Sequence[pe.PlannerAction]) -> None:
        super()._perform(actions)
        self.reasons += [action.plan.reason for action in actions if isinstance(action, pe.PublishPlan)]


def test_after_settling_no_plan_changes_though_reports_are_noisy_or_held_up_and_come_at_once() -> None:
    run = _Recorded(_BusyFleet(shipped_graph("mobilenet_v2"), STREAMS, EDGES, CLOUDS))
    run.start()
    assert not any("alone" in reason for reason in run.reasons[:MANY])
    assert all("device alone" in plan.reason and plan.runner_up for plan in run.plans.values())
    for _ in range(SETTLING):
        run.second()
    edges = {plan.nodes[Tier.EDGE] for plan in run.plans.values() if Tier.EDGE in plan.nodes}
    assert len(edges) > 1, "one edge has not enough for all"
    before = run.changed
    for _ in range(STEADY // 2):
        run.second()
    held_up = [run.fleet.telemetry(member, run.plans) for member in run.fleet.members.values() for _ in range(3)]
    run.now += 3.0
    for event in held_up:
        run.now += 1e-3
        run.send(event)
    for _ in range(STEADY // 2):
        run.second()
    run.machine.validate()
    assert run.changed == before
