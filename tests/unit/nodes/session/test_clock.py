"""A clock's offset is within the bound that is told with it, however the ways of the echoes differ."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.session.clock import STEP_S, PipelineClock
from nodes.session.clock_offset import DRIFT, ClockOffset
from nodes.tier.result_json import link_seconds
from pipeline.wire import Hop

WAYS = st.floats(0.0, 10.0)


@given(st.floats(-1e6, 1e6), st.lists(st.tuples(WAYS, WAYS), min_size=1, max_size=80), st.floats(0.0, 1e4))
def test_the_offset_is_within_its_bound(truth: float, ways: list[tuple[float, float]], rest: float) -> None:
    offset, now = ClockOffset(), 0.0
    for there, back in ways:
        offset.learn(now, now + there + back, now + there + truth, "one")
        now += there + back + 1.0
    best = offset.best(now + rest)
    assert best is not None
    assert abs(best[0] - truth) <= best[1] + 1e-6
    assert best[1] <= sum(ways[-1]) / 2 + DRIFT * (rest + 1.0) + 1e-9


def test_another_reference_begins_anew() -> None:
    offset = ClockOffset()
    offset.learn(0.0, 0.001, 100.0, "one")
    offset.learn(1.0, 2.0, -50.0, "two")
    best = offset.best(2.0)
    assert best is not None
    assert best[0] == pytest.approx(-51.5)


def test_a_wall_clock_that_is_set_moves_no_pipeline_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, wall = PipelineClock(), time.time
    clock.learn(clock.steady(), clock.steady(), clock.steady() + 7.0, "one")
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: wall() + 3600.0)
    assert 0.0 <= clock.now() - before < 60.0
    clock.learn(clock.steady(), clock.steady(), clock.steady() + 7.0, "one")
    assert clock.report()["clock_steps_total"] == 1
    assert clock.now() - clock.steady() == pytest.approx(7.0, abs=STEP_S)


def test_a_links_seconds_are_right_between_clocks_that_differ() -> None:
    """As stamped by two clocks that know how far the reference is ahead of them."""
    device, edge = PipelineClock(), PipelineClock()
    edge._started_at += 3600.0
    reference = device.steady
    for clock in (device, edge):
        sent = clock.steady()
        read = reference()
        clock.learn(sent, clock.steady(), read, "planner")
    trace = (
        Hop("device-1", "device", 0.0, sent_ts=device.now()),
        Hop("edge-1", "edge", edge.now(), sent_ts=edge.now()),
    )
    links = link_seconds(trace, device.now())
    bound = sum(clock.report()["clock_error_seconds"] for clock in (device, edge)) + 1.0
    assert all(-bound < seconds < bound for seconds in links.values())
