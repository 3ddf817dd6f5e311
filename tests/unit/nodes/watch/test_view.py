"""The view of `trisect watch`: it fits the terminal and holds what matters."""

from __future__ import annotations

import pytest

from tests.unit.nodes.watch.feed import TIERS, C, D, Feed, plan_of


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_view_fits_the_terminal_and_holds_what_matters(running: Feed, width: int) -> None:
    running.results(70, epoch=3)
    running.plan(plan_of(4, (D, D, D, C)))
    running.now += 0.5
    text = running.text(width)
    assert max(map(len, text.splitlines())) <= width
    for part in (
        *TIERS,
        "ready",
        "98%",
        "12/45 MB/s 1.2 ms",
        "stream camera running",
        "epoch 3 (exact) active",
        "b0 … b1",
        "802.8 kB: t1",
        "20.0 ms",
        "21.0 ms",
        "60.0 ms",
        "median of 64, p95 60.0 ms",
        "4.0 kB in the links above",
        "in 110  results 100",
        "lost 0",
        "epoch 4 (exact) preparing",
    ):
        assert part in text, part


def test_the_broker_is_named_while_it_is_away(feed: Feed) -> None:
    assert "broker 127.0.0.1:1883 connected" in feed.text(80)
    feed.overview.connection(101.0, up=False, why="no MQTT broker answers at 127.0.0.1:1883")
    assert "broker 127.0.0.1:1883 disconnected" in feed.text(80)
    assert "no MQTT broker answers" in feed.text(80)


def test_messages_that_the_broker_dropped_are_shown(feed: Feed) -> None:
    feed.overview.learn_dropped(b"12")
    feed.overview.learn_dropped(b"\xff")
    assert feed.snapshot()["broker"]["dropped_messages_total"] == 12
    assert "dropped 12 messages" in feed.text(80)
