"""Which stream is looked at next, and which rest."""

from __future__ import annotations

from nodes.planner.machine.agenda import Agenda, Need
from nodes.planner.machine.planner import REST, PlannerMachine
from nodes.planner.machine.settings import PlannerSettings
from nodes.tier.machine import events as ev
from pipeline.plan import StreamId
from tests.unit.nodes.planner.machine.test_planner import SETTLE_S, Planner
from tests.unit.nodes.tier.machine.test_tier import CAM, CLOUD, DEVICE, EDGE

DOOR = StreamId("door")


def test_a_stream_that_rests_is_passed_over_and_keeps_its_need() -> None:
    agenda = Agenda()
    agenda.mark([CAM], Need.URGENT)
    agenda.mark([DOOR])
    agenda.rest(CAM, 5.0)
    assert agenda.next(4.9) == (DOOR, Need.CHANGED)
    assert agenda.next(4.9) is None
    assert agenda.next(5.0) == (CAM, Need.URGENT)
    agenda.mark([CAM])
    assert agenda.next(5.0) == (CAM, Need.CHANGED)


def test_a_decision_is_followed_by_a_rest_in_proportion_to_what_it_took() -> None:
    planner, spent = Planner(), iter([0.0, 0.5, 0.5, 0.6])
    settings = PlannerSettings(settle_s=SETTLE_S, lost_after_s=1e9)
    planner.machine = PlannerMachine(settings, started_at=0.0, processor_s=lambda: next(spent))
    planner.come(DEVICE, EDGE, CLOUD)
    planner.tick(SETTLE_S)
    agenda, decided_at = planner.machine.inventory.agenda, planner.now
    agenda.mark([CAM], Need.URGENT)
    assert planner.machine.learn(ev.Tick(), decided_at + REST * 0.5 - 0.1, 0.0) == []
    assert planner.machine.decide_next(decided_at + REST * 0.5 - 0.1, 0.0) is None
    assert planner.machine.decide_next(decided_at + REST * 0.5, 0.0) is not None


def test_words_come_last_and_rest_together() -> None:
    agenda = Agenda()
    agenda.mark([CAM, DOOR], Need.WORDS)
    agenda.mark([DOOR], Need.UNPROVED)
    agenda.rest_words(5.0)
    assert agenda.next(1.0) == (DOOR, Need.UNPROVED)
    assert agenda.next(1.0) is None
    assert agenda.next(5.0) == (CAM, Need.WORDS)
