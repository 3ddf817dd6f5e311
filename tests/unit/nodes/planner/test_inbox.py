"""The planner's inbox: reports that wait become one, and nothing overtakes what it must not."""

from __future__ import annotations

from nodes.planner.inbox import STOP, Inbox
from nodes.planner.machine.events import PlannerEvent, TelemetryArrived
from nodes.protocol.joined_reports import joined
from nodes.protocol.messages import LegSeconds, LifeState, LinkMeasured, NodeState, Report, SegmentSeconds
from nodes.tier.machine.events import PeerStateArrived
from pipeline.plan import NodeId, StreamId

ONE, OTHER, STREAM = NodeId("edge-1"), NodeId("edge-2"), StreamId("s")
STATE = PeerStateArrived(NodeState(ONE, "edge", LifeState.READY, "a"))


def report(node: NodeId, seconds: float, frames: int = 3, epoch: int = 1) -> TelemetryArrived:
    return TelemetryArrived(node, Report((SegmentSeconds(STREAM, epoch, frames, seconds),)))


def taken(inbox: Inbox) -> list[tuple[PlannerEvent, float]]:
    found = []
    while (item := inbox.take(0.0)) is not None:
        assert item is not STOP
        found.append(item)
    return found


def test_a_report_joins_the_one_that_waits_and_is_heard_when_it_came() -> None:
    inbox = Inbox()
    for event in (report(ONE, 0.1), report(OTHER, 0.2), report(ONE, 0.3, frames=4), report(ONE, 0.4, epoch=2)):
        inbox.put(event)
    (first, came), (second, _) = taken(inbox)
    assert isinstance(first, TelemetryArrived)
    assert first.report.segments == (SegmentSeconds(STREAM, 2, 3, 0.4), SegmentSeconds(STREAM, 1, 7, 0.3))
    assert first.heard_at is not None
    assert first.heard_at > came
    assert second == report(OTHER, 0.2)
    assert inbox.is_empty


def test_a_report_that_was_taken_and_one_behind_other_news_of_the_node_are_apart() -> None:
    inbox = Inbox()
    inbox.put(report(ONE, 0.1))
    assert [event for event, _ in taken(inbox)] == [report(ONE, 0.1)]
    for event in (report(ONE, 0.2), STATE, report(ONE, 0.3)):
        inbox.put(event)
    assert [event for event, _ in taken(inbox)] == [report(ONE, 0.2), STATE, report(ONE, 0.3)]


def test_of_two_reports_the_newer_says_what_both_say_and_the_rest_stays() -> None:
    before = Report(
        legs=(LegSeconds(STREAM, 1, 3, {"frame": 0.1}), LegSeconds(STREAM, 2, 3, {"frame": 0.2})),
        frame_overheads={STREAM: 0.01},
        link=LinkMeasured(1e6, None, 0.01),
        probe_seconds=0.5,
    )
    newer = Report(legs=(LegSeconds(STREAM, 2, 3, {"frame": 0.3}),), link=LinkMeasured(2e6, 3e6), work_watts=4.0)
    assert joined(before, newer) == Report(
        legs=(before.legs[0], newer.legs[0]),
        frame_overheads={STREAM: 0.01},
        link=LinkMeasured(2e6, 3e6, 0.01),
        probe_seconds=0.5,
        work_watts=4.0,
    )
