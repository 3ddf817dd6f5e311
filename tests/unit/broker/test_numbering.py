"""Numbers of messages: what is missing is counted, what is no gap is not, and memory has its bounds."""

from __future__ import annotations

import logging
from functools import partial

import pytest

from broker.numbering import MOST_MISSED, MOST_TOPICS, PLACEHOLDER, PROPERTY, Gaps, Numbers, marks_of
from broker.outbox import Outgoing
from broker.packets import outgoing
from broker.repeats import REMEMBERED, Repeats

_log = logging.getLogger(__name__)


def item(topic: str) -> Outgoing:
    return outgoing(topic, b"")


@pytest.fixture
def gaps() -> Gaps:
    return Gaps(_log)


def test_what_a_broker_drops_between_two_messages_is_counted_and_said(
    gaps: Gaps, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = Numbers()
    marks = [numbers.next(item("t")) for _ in range(5)]
    assert [gaps.arrived("t", marks[at]) for at in (0, 1, 4)] == [0, 0, 2]
    assert gaps.total == 2
    assert "dropped 2 messages" in caplog.text
    assert "max_queued_messages" in caplog.text


def test_topics_and_connections_are_counted_apart(gaps: Gaps) -> None:
    numbers = Numbers()
    assert not gaps.arrived("a", numbers.next(item("a")))
    assert not gaps.arrived("b", numbers.next(item("b")))
    numbers.next(item("a"))  # lost, and with it the connection
    numbers.connected()
    assert not gaps.arrived("a", numbers.next(item("a")))
    assert gaps.total == 0


def test_repeats_and_a_subscription_in_the_middle_are_no_gaps(gaps: Gaps) -> None:
    numbers = Numbers()
    marks = [numbers.next(item("t/1")) for _ in range(9)]
    assert [gaps.arrived("t/1", marks[at]) for at in (3, 3, 2, 4)] == [0, 0, 0, 0]
    gaps.unsubscribed(["t/+"])
    assert not gaps.arrived("t/1", marks[7])
    gaps.connected(resumed=False)
    assert not gaps.arrived("t/1", numbers.next(item("t/1")))
    assert gaps.total == 0


@pytest.mark.parametrize("mark", ["", "x", "0" * 8, "00000000zz", "0" * 100, "00000000-1", f"{'0' * 8}٣"])
def test_what_is_no_number_says_nothing(gaps: Gaps, mark: str) -> None:
    assert not gaps.arrived("t", marks_of([("other", "1"), (PROPERTY, mark)])[0])
    assert not gaps._last


def test_what_is_sent_again_has_its_first_number_behind_the_new_one() -> None:
    numbers, again = Numbers(), item("t")
    first = numbers.next(again)
    assert marks_of([(PROPERTY, first)]) == (first, first)
    numbers.connected()
    second = numbers.next(again)
    assert marks_of([(PROPERTY, second)]) == (second.partition("/")[0], first)
    assert second != first
    assert len(second) <= len(PLACEHOLDER)


def test_a_number_out_of_nowhere_is_no_gap(gaps: Gaps) -> None:
    assert not gaps.arrived("t", "00000000" + "1")
    assert not gaps.arrived("t", f"00000000{MOST_MISSED + 3:x}")
    assert gaps.total == 0
    assert gaps.arrived("t", "000000003") == 1


def test_neither_side_remembers_without_end(gaps: Gaps) -> None:
    numbers = Numbers()
    for topic in range(MOST_TOPICS + 10):
        mark = numbers.next(item(str(topic)))
        assert len(mark) <= len(PLACEHOLDER)
        gaps.arrived(str(topic), mark)
    assert len(gaps._last) == len(numbers._sent) == MOST_TOPICS


def test_a_repeat_is_finished_with_what_it_repeats() -> None:
    repeats, finished = Repeats(), list[str]()
    finish = repeats.first("key", lambda: finished.append("first"))
    assert finish is not None
    assert repeats.first("key", lambda: finished.append("second")) is None
    assert not finished
    finish()
    assert finished == ["first", "second"]
    assert repeats.first("key", lambda: finished.append("late")) is None
    assert finished == ["first", "second", "late"]


def test_of_very_many_messages_only_the_newest_are_recognised() -> None:
    repeats, finished = Repeats(), list[int]()
    finishes = [repeats.first(number, partial(finished.append, number)) for number in range(REMEMBERED + 2)]
    oldest = finishes[0]
    assert oldest is not None
    oldest()  # which is no longer remembered
    assert finished == [0]
    assert repeats.first(0, lambda: None) is not None
