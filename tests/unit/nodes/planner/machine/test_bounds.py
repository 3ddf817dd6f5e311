"""What is passed over by bounds changes no decision: a planner without bounds publishes the same, word for word."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.fleet import Fleet, MachineRun, Member
from nodes.config.plan_request import PlanRequest
from nodes.planner.machine import events as pe
from nodes.planner.machine import problem, publish_rules
from nodes.planner.machine.events import PlannerAction
from nodes.planner.machine.static_costs import StaticCosts
from nodes.protocol.messages import LifeState
from nodes.tier.machine import events as ev
from pipeline.codecs import CODECS
from pipeline.coding import CodecSpeed
from pipeline.energy import Draw
from pipeline.models.graphs import shipped_graph
from tests.effort import examples, in_longer_runs

STREAMS, EDGES, CLOUDS, SECONDS = 3, 3, 2, 5


class _Recorded(MachineRun):
    """All that was said, in order."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet)
        self.said: list[PlannerAction] = []

    def _perform(self, actions: list[PlannerAction]) -> None:  # type: ignore[override]
        self.said += actions
        super()._perform(actions)


def _change(run: MachineRun, draw: random.Random) -> None:
    """Something happens to a node: its link or its processor changes, it goes, or comes back."""
    node = draw.choice(sorted(run.fleet.members))
    member, what = run.fleet.members[node], draw.choice(["rate", "speed", "life"])
    if what == "life" and member.stream is None:
        run.gone ^= {node}
        life = LifeState.LOST if node in run.gone else LifeState.READY
        run.send(ev.PeerStateArrived(run.fleet.state(member, life)))
    else:
        slower = draw.choice([0.03, 0.3, 0.8, 1.25, 3.0, 30.0])
        changed = replace(member, rate=member.rate * slower), replace(member, speed=member.speed * slower)
        run.fleet.members[node] = changed[what == "speed"]


class _CodedFleet(Fleet):
    """Nodes with codecs that shrink tensors, each by another ratio."""

    def joins(self, member: Member) -> Iterator[pe.PlannerEvent]:
        draw = random.Random(0)
        fewer = {codec: tuple(draw.uniform(1, 4) for _ in self.graph.tensors) for codec in CODECS}
        for event in super().joins(member):
            if isinstance(event, pe.InfoArrived):
                yield replace(event, info=replace(event.info, codecs=dict.fromkeys(CODECS, CodecSpeed(3e8, 5e8))))
            elif isinstance(event, pe.ProfileArrived):
                yield replace(event, profile=replace(event.profile, ratios=fewer))
            else:
                yield event


def _story(seed: int, fleet: type[Fleet], objective: str) -> list[PlannerAction]:
    run, draw = _Recorded(fleet(shipped_graph("mobilenet_v2"), STREAMS, EDGES, CLOUDS, seed)), random.Random(seed)
    inventory = run.machine.inventory
    members = run.fleet.members.values()
    inventory.plan_requests = {member.stream: PlanRequest(objective=objective) for member in members if member.stream}
    inventory.static_costs = StaticCosts(draws={node: Draw(10.0, 1e-7) for node in run.fleet.members})
    run.start()
    for _ in range(SECONDS):
        _change(run, draw)
        run.second()
    run.machine.validate()
    return run.said


@pytest.mark.parametrize("seed", range(examples(1)))
@pytest.mark.parametrize(
    ("fleet", "objective"),
    [
        (Fleet, "latency"),
        (_CodedFleet, "latency=1,energy=0.1"),
        pytest.param(_CodedFleet, "latency", marks=in_longer_runs),
        pytest.param(Fleet, "backbone", marks=in_longer_runs),
        pytest.param(Fleet, "latency=1,backbone=0.1,period=0.5", marks=in_longer_runs),
    ],
)
def test_a_planner_without_bounds_says_the_same(
    seed: int, fleet: type[Fleet], objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _story(seed, fleet, objective)
    assert sum(isinstance(action, pe.PublishPlan) for action in found) > STREAMS
    monkeypatch.setattr(problem, "all_cuts_of", lambda graph: None)
    rules = [rule for rule in publish_rules.RULES if rule.name != "GoesOn"]
    monkeypatch.setattr(publish_rules, "RULES", rules)
    assert _story(seed, fleet, objective) == found
