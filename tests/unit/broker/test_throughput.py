"""A line's rate is that of its busy times, whatever pauses and outliers lie between them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.throughput import LEAST_BYTES, LEAST_SAMPLES, LONGEST_S, SAMPLES, TURNS, Throughput

NEVER = float("-inf")
NBYTES = 1_000_000
FEWEST = min(count for count, _ in TURNS)
"""In a row are a change."""


def cross(direction: Throughput, seconds: float, at: float, nbytes: int = NBYTES) -> None:
    direction.began(at)
    direction.moved(nbytes, at + seconds, is_idle=True)


def test_pauses_between_messages_do_not_make_a_line_slow() -> None:
    direction = Throughput()
    for number in range(LEAST_SAMPLES):
        assert direction.bytes_per_s() is None
        cross(direction, 0.1, at=60.0 * number)
    assert direction.bytes_per_s() == pytest.approx(NBYTES / 0.1)
    assert direction.bytes_per_s(without_s=0.05) == pytest.approx(NBYTES / 0.05)


def test_chunks_that_follow_each_other_are_one_busy_time() -> None:
    direction, sampled = Throughput(), set()
    for at in (0.0, 1.0, 2.0):
        direction.began(at)
        direction.began(at + 0.1)
        direction.moved(NBYTES, at + 0.2, is_idle=False)
        assert direction.sampled_at < at
        direction.moved(NBYTES, at + 0.4, is_idle=True)
        sampled.add(direction.sampled_at)
    assert sampled == {0.4, 1.4, 2.4}
    assert direction.bytes_per_s() == pytest.approx(2 * NBYTES / 0.4)


def test_a_line_that_never_rests_is_sampled_all_the_same() -> None:
    direction, sampled = Throughput(), set()
    direction.began(0.0)
    for number in range(1, 21):
        direction.moved(NBYTES, number * LONGEST_S / 4, is_idle=False)
        sampled.add(direction.sampled_at)
    assert len(sampled - {NEVER}) == 5
    assert direction.bytes_per_s() == pytest.approx(4 * NBYTES / LONGEST_S)


@given(st.lists(st.floats(1e-6, 1e3), min_size=4, max_size=4), st.permutations([True] * 4 + [False] * 12))
def test_outliers_change_nothing(outliers: list[float], are_outliers: list[bool]) -> None:
    direction = Throughput()
    for number in range(SAMPLES):
        cross(direction, 0.1, at=number)
    in_a_row = 0
    for number, is_outlier in enumerate(are_outliers):
        in_a_row = in_a_row + 1 if is_outlier else 0
        outlying = is_outlier and in_a_row < FEWEST
        cross(direction, outliers.pop() if outlying else 0.1, at=1e3 + number * 2e3)
    assert direction.bytes_per_s() == pytest.approx(NBYTES / 0.1)


def test_a_change_shows_after_a_few_samples() -> None:
    direction = Throughput()
    for number in range(SAMPLES):
        cross(direction, 0.1 + 0.01 * (number % 3), at=number)
    assert not direction.may_have_turned(below=1e9)
    for number in range(FEWEST):
        assert direction.bytes_per_s() == pytest.approx(NBYTES / 0.11, rel=0.05)
        cross(direction, 1.0, at=SAMPLES + 2 * number)
        assert direction.may_have_turned(below=1e9) is (number < FEWEST - 1)
    assert direction.bytes_per_s() == pytest.approx(NBYTES)
    assert direction.turns == 1


def test_a_smaller_change_takes_more_samples() -> None:
    direction = Throughput()
    for number in range(SAMPLES):
        cross(direction, 0.1, at=number)
    (few, _), (more, _) = TURNS
    for number in range(more):
        assert direction.turns == 0
        cross(direction, 0.165, at=SAMPLES + number)
    assert few < more
    assert direction.turns == 1


def answered_late(up: Throughput, seconds: float, received_s: float, at: float) -> None:
    """What went up took `seconds` to be acknowledged, and a message came down in the last `received_s` of them."""
    down = Throughput()
    up.began(at)
    down.began(at + seconds - received_s)
    up.opposed(down, at + seconds)
    up.moved(NBYTES, at + seconds, is_idle=True)


def test_acknowledgements_behind_what_came_the_other_way_do_not_make_a_line_slow() -> None:
    direction = Throughput()
    answered_late(direction, 0.2, received_s=0.15, at=-1.0)
    assert direction.sampled_at == NEVER  # nothing is known yet that it could be held against
    for number in range(SAMPLES):
        cross(direction, 0.1, at=number)
    for number in range(SAMPLES):
        answered_late(direction, 0.2, received_s=0.15, at=100.0 + number)
    assert direction.bytes_per_s() == pytest.approx(NBYTES / 0.1)


def test_a_line_that_became_slow_or_quick_shows_behind_what_came_the_other_way_too() -> None:
    direction = Throughput()
    for number in range(SAMPLES):
        cross(direction, 0.1, at=number)
    for number in range(SAMPLES):
        answered_late(direction, 0.8, received_s=0.3, at=100.0 + number)
    assert direction.bytes_per_s() == pytest.approx(NBYTES / 0.5)
    for number in range(SAMPLES):
        answered_late(direction, 0.04, received_s=0.03, at=200.0 + number)
    assert direction.bytes_per_s() == pytest.approx(NBYTES / 0.04)


def test_what_came_before_or_together_is_counted_once() -> None:
    up, down = Throughput(), Throughput()
    for number in range(SAMPLES):
        cross(up, 0.1, at=number)
    for number in range(SAMPLES):
        at = 100.0 + number
        down.began(at - 0.5)
        up.began(at)
        for moment in (at + 0.2, at + 0.3):  # two messages without a rest between them
            up.opposed(down, moment)
        down.lost()
        up.moved(NBYTES, at + 0.8, is_idle=True)
    assert up.bytes_per_s() == pytest.approx(NBYTES / 0.5)


@pytest.mark.parametrize("seed", range(20))
def test_noise_around_a_rate_is_no_change(seed: int) -> None:
    """A third faster or slower, at random: the estimate stays within a quarter."""
    chance, direction = random.Random(seed), Throughput()
    for number in range(200):
        cross(direction, 0.1 * 1.3 ** chance.uniform(-1, 1), at=number)
        if number >= SAMPLES:
            assert direction.bytes_per_s() == pytest.approx(NBYTES / 0.1, rel=0.25)


def test_among_fast_rates_nothing_turns() -> None:
    direction = Throughput()
    for number in range(SAMPLES):
        cross(direction, 0.1 if number < SAMPLES - 1 else 0.01, at=number)
    assert direction.may_have_turned(below=1e9)
    assert not direction.may_have_turned(below=NBYTES)


def test_small_messages_and_lost_connections_say_nothing() -> None:
    direction = Throughput()
    cross(direction, 1.0, at=0.0, nbytes=LEAST_BYTES - 1)
    direction.began(5.0)
    direction.lost()
    direction.moved(NBYTES, 100.0, is_idle=True)
    assert direction.sampled_at == NEVER
