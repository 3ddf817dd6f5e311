"""The window of messages on their way: whole at first, small after a loss, whole again in the end."""

from __future__ import annotations

from broker.window import Window


def test_a_new_connection_may_use_all_that_the_broker_takes() -> None:
    window = Window()
    window.connected(64)
    assert window.size == 64


def test_after_a_loss_it_begins_at_one_and_comes_back() -> None:
    window = Window()
    window.connected(64)
    window.lost(64)
    window.connected(64)
    sizes = []
    for _ in range(3_000):
        sizes.append(window.size)
        window.acked()
    assert sizes[:4] == [1, 2, 3, 4]
    assert sizes == sorted(sizes)
    assert sizes[31] == 32, "one more for each that is acknowledged"
    assert sizes[63] == 32, "then one more for a whole window"
    assert sizes[-1] == 64


def test_a_connection_that_ends_with_nothing_on_its_way_costs_nothing() -> None:
    window = Window()
    window.connected(8)
    window.lost(0)
    window.connected(16)
    assert window.size == 16


def test_where_even_one_is_too_many_it_stays_at_one() -> None:
    window = Window()
    window.connected(8)
    for _ in range(3):
        window.lost(1)
        window.connected(8)
        assert window.size == 1
