"""Finished messages that the broker sends again, and new ones under their packet ids."""

from __future__ import annotations

from broker.redelivery import REMEMBERED, Arrival, Redelivery


def take(redelivery: Redelivery, mid: int, payload: bytes, *, duplicate: bool = False) -> Arrival:
    arrival, delivery = redelivery.arrived(mid, "frame", payload, duplicate=duplicate)
    if arrival is Arrival.HAND_OVER:
        redelivery.finished(delivery)
    return arrival


def test_a_finished_message_is_known_again_for_as_long_as_it_may_come() -> None:
    acknowledged: list[int] = []
    redelivery = Redelivery(acknowledged.append)
    redelivery.connected(resumed=False)
    assert take(redelivery, 1, b"photo") is Arrival.HAND_OVER
    assert take(redelivery, 1, b"photo", duplicate=True) is Arrival.ACK_AGAIN
    assert take(redelivery, 1, b"other", duplicate=True) is Arrival.HAND_OVER
    assert take(redelivery, 1, b"photo", duplicate=True) is Arrival.HAND_OVER
    for number in range(REMEMBERED - 1):
        take(redelivery, 2 + number, b"photo")
    assert take(redelivery, 1, b"photo", duplicate=True) is Arrival.ACK_AGAIN
    take(redelivery, 65_535, b"photo")
    assert take(redelivery, 1, b"photo", duplicate=True) is Arrival.HAND_OVER
    assert acknowledged[:4] == [1, 1, 1, 2]


def test_a_broker_that_forgot_the_session_owes_nothing() -> None:
    redelivery = Redelivery(lambda mid: None)
    redelivery.connected(resumed=True)
    assert take(redelivery, 7, b"photo") is Arrival.HAND_OVER
    redelivery.lost()
    redelivery.connected(resumed=False)
    assert take(redelivery, 7, b"photo", duplicate=True) is Arrival.HAND_OVER
