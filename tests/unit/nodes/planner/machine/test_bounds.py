"""What is passed over by bounds changes no decision: a planner without bounds publishes the same, word for word."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from benchmarks.fleet import Fleet, MachineRun
from nodes.planner.machine import events as pe
from nodes.planner.machine import problem, publish_rules
from nodes.planner.machine.events import PlannerAction
from nodes.protocol.messages import LifeState
from nodes.tier.machine import events as ev
from pipeline.models.graphs import shipped_graph
from tests.effort import examples

STREAMS, EDGES, CLOUDS, SECONDS = 4, 3, 2, 6


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


def _story(seed: int) -> list[PlannerAction]:
    run, draw = _Recorded(Fleet(shipped_graph("mobilenet_v2"), STREAMS, EDGES, CLOUDS, seed)), random.Random(seed)
    run.start()
    for _ in range(SECONDS):
        _change(run, draw)
        run.second()
    run.machine.validate()
    return run.said


@pytest.mark.parametrize("seed", range(examples(1)))
def test_a_planner_without_bounds_says_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _story(seed)
    assert sum(isinstance(action, pe.PublishPlan) for action in found) > STREAMS
    monkeypatch.setattr(problem, "all_cuts_of", lambda graph: None)
    rules = [rule for rule in publish_rules.RULES if rule.name != "GoesOn"]
    monkeypatch.setattr(publish_rules, "RULES", rules)
    assert _story(seed) == found
