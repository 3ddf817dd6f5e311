"""The sender of pieces: those that want the same have it sent once, and nobody who came too late goes without."""

from __future__ import annotations

from nodes.packages.serving import GATHER_S, HEARD_S, REMEMBERED_S, Item, Queue


def sent(queue: Queue, now: float) -> list[Item]:
    """All that may leave by now, delivered at once."""
    gone = []
    while (item := queue.take(now)) is not None:
        queue.left(*item, now)
        gone.append(item)
    return gone


def test_the_first_piece_of_a_package_waits_for_all_who_begin_at_about_the_same_time() -> None:
    queue = Queue()
    queue.ask("p", [1, 2], 10.0)
    assert queue.take(10.0) is None
    queue.ask("p", [2, 3], 10.2)
    assert queue.ready_in_s(10.25) == GATHER_S - 0.25
    assert sent(queue, 10.0 + GATHER_S) == [("p", 1), ("p", 2), ("p", 3)]
    assert queue.ready_in_s(11.0) is None


def test_while_a_package_flows_nothing_new_of_it_waits() -> None:
    queue = Queue()
    queue.ask("p", [1, 2], 0.0)
    assert queue.take(GATHER_S) == ("p", 1)
    queue.ask("p", [3], 20.0, 20.0)  # a slow line: the first one is on its way still
    queue.ask("q", [1], 20.0)
    assert sent(queue, 20.0) == [("p", 2), ("p", 3)]
    queue.left("p", 1, 20.0)
    assert sent(queue, 20.0 + GATHER_S) == [("q", 1)]
    queue.ask("p", [4], 20.1 + GATHER_S)  # it has come to an end, and others may begin again
    assert queue.take(20.1 + GATHER_S) is None
    assert sent(queue, 20.1 + 2 * GATHER_S) == [("p", 4)]


def test_who_listened_when_a_piece_left_does_not_have_it_sent_again() -> None:
    queue = Queue()
    queue.ask("p", [1, 2], 0.0)
    assert sent(queue, 1.0) == [("p", 1), ("p", 2)]
    queue.ask("p", [1, 2, 3], 1.1, listening_s=0.2)
    assert sent(queue, 9.0) == [("p", 3)]


def test_who_came_too_late_gets_it_with_others_who_did() -> None:
    queue = Queue()
    queue.ask("p", [1, 2], 0.0)
    assert sent(queue, 1.0) == [("p", 1), ("p", 2)]
    queue.ask("p", [1], 1.2, listening_s=0.1)
    queue.ask("p", [1, 3], 1.3)
    assert sent(queue, 1.3) == [("p", 3)]
    assert sent(queue, 1.2 + GATHER_S) == [("p", 1)]
    assert len(queue) == 0


def test_what_the_broker_has_not_confirmed_reaches_all_who_ask_meanwhile() -> None:
    queue = Queue()
    queue.ask("p", [1], 0.0)
    assert queue.take(1.0) == ("p", 1)
    queue.ask("p", [1], 20.0)
    assert len(queue) == 0
    queue.left("p", 1, 21.0)
    queue.ask("p", [1], 21.5)  # it has not, after all
    assert sent(queue, 22.0) == [("p", 1)]


def test_what_a_listener_has_waited_for_too_long_is_sent_again() -> None:
    queue = Queue()
    queue.ask("p", [1], 0.0)
    assert sent(queue, 1.0) == [("p", 1)]
    queue.ask("p", [1], 0.9 + HEARD_S, listening_s=100.0)
    assert len(queue) == 0
    queue.ask("p", [1], 1.0 + HEARD_S, listening_s=100.0)
    assert sent(queue, 4.0 + HEARD_S) == [("p", 1)]


def test_what_was_sent_long_ago_is_forgotten() -> None:
    queue = Queue()
    for number in range(100):
        now = number * REMEMBERED_S / 10
        queue.ask("p", [number], now)
        assert sent(queue, now + GATHER_S) == [("p", number)]
    assert len(queue._gone) <= 10


def test_what_was_not_delivered_is_sent_again_to_whoever_asks() -> None:
    queue = Queue()
    queue.ask("p", [1], 0.0)
    assert queue.take(1.0) == ("p", 1)
    queue.left("p", 1, 1.1, delivered=False)
    queue.ask("p", [1], 1.2, listening_s=100.0)
    assert sent(queue, 2.0) == [("p", 1)]


def test_pieces_asked_for_by_many_wait_once_and_no_more_than_the_limit() -> None:
    queue = Queue(limit=3)
    queue.ask("p", [1, 2], 0.0)
    queue.ask("p", [2, 1], 0.0)
    assert len(queue) == 2
    queue.ask("p", [7, 8], 0.0)
    assert (len(queue), queue.dropped_total) == (3, 1)
    assert sent(queue, 1.0) == [("p", 1), ("p", 2), ("p", 7)]
