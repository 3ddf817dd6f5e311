"""Seconds without what other processes took."""

from __future__ import annotations

from pipeline.timing.contention import uncontended_seconds


def test_seconds_without_contention_are_at_most_those_of_the_clock() -> None:
    spun: list[int] = []
    seconds = uncontended_seconds(lambda: spun.extend(range(200_000)))
    assert len(spun) == 200_000
    assert 0 < seconds < 10
