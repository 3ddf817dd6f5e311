"""What plans take up of a running node's link: what two reports agree on, and nothing that makes no difference."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.planner.costs.links import LEAST_AGREEING, MOST_AGREEING, Links
from nodes.protocol.messages import LinkMeasured, LinkReport
from nodes.protocol.reports import FAST_BYTES_PER_S
from pipeline.plan import NodeId

EDGE = NodeId("edge-1")
FIRST = LinkReport(EDGE, "one", 1e7, 2e7, 0.01)


def links() -> Links:
    known = Links()
    known.learn_report(FIRST)
    return known


def test_a_rate_is_taken_up_when_the_next_report_agrees_with_it() -> None:
    known = links()
    known.learn_measured(EDGE, LinkMeasured(up_bytes_per_s=1e6))
    assert known.known[EDGE] == FIRST
    known.learn_measured(EDGE, LinkMeasured(up_bytes_per_s=1.2e6, round_trip_s=0.5))
    assert (known.known[EDGE].up_bytes_per_s, known.known[EDGE].round_trip_s) == (1.2e6, 0.01)


def test_one_bad_moment_is_forgotten() -> None:
    known = links()
    for up in (1e6, 1e7, 1e6, 1e7, 1e9, 1e6):
        known.learn_measured(EDGE, LinkMeasured(up_bytes_per_s=up))
        assert known.known[EDGE] == FIRST


def test_a_value_that_goes_to_and_fro_is_followed_less_and_less_but_a_lasting_change_is() -> None:
    known, chance, changes = links(), random.Random(1), 0
    for _ in range(600):
        before = known.known[EDGE]
        known.learn_measured(EDGE, LinkMeasured(up_bytes_per_s=1e7 * chance.lognormvariate(0.0, 0.6)))
        changes += known.known[EDGE] != before
    assert changes <= 60
    for _ in range(LEAST_AGREEING):
        known.learn_measured(EDGE, LinkMeasured(up_bytes_per_s=1e5))
    assert known.known[EDGE].up_bytes_per_s == 1e5


def test_a_lasting_change_within_what_is_usual_is_taken_up_in_the_end() -> None:
    known = links()
    for number in range(200):
        known.learn_measured(EDGE, LinkMeasured(up_bytes_per_s=6e6 if number // 3 % 2 else 14e6))
    for _ in range(MOST_AGREEING):
        known.learn_measured(EDGE, LinkMeasured(up_bytes_per_s=8e6))
    assert known.known[EDGE].up_bytes_per_s == 8e6


@given(st.lists(st.floats(FAST_BYTES_PER_S, 1e12), min_size=1))
def test_between_fast_rates_nothing_changes(rates: list[float]) -> None:
    known = Links()
    known.learn_report(LinkReport(EDGE, "one", 1e9, 6e7, 0.01))
    for rate in rates:
        known.learn_measured(EDGE, LinkMeasured(rate, rate, None))
    assert (known.known[EDGE].up_bytes_per_s, known.known[EDGE].down_bytes_per_s) == (1e9, 6e7)


def test_a_report_that_is_said_again_at_a_connect_is_no_news() -> None:
    known = links()
    for _ in range(2):
        known.learn_measured(EDGE, LinkMeasured(up_bytes_per_s=1e6))
    known.learn_report(FIRST)
    assert known.known[EDGE].up_bytes_per_s == 1e6
    known.learn_report(LinkReport(EDGE, "two", 1e7, 2e7, 0.01))
    assert known.known[EDGE].up_bytes_per_s == 1e7


@pytest.mark.parametrize("report", [None, LinkReport(EDGE, "one", -1.0, 2e7, 0.01)])
def test_a_node_that_has_no_sound_link_gets_none_by_what_crosses(report: LinkReport | None) -> None:
    known = Links({EDGE: report} if report else {})
    for _ in range(2):
        known.learn_measured(EDGE, LinkMeasured(1e6, 1e6, 0.1))
    assert known.known.get(EDGE) == report
