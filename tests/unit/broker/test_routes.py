"""Which handlers a message is for: asked several times a message, so the answers are remembered, while they hold."""

from __future__ import annotations

from unittest.mock import Mock

from broker import routes
from broker.routes import Routes


def test_what_is_remembered_ends_with_each_subscription() -> None:
    table, one, other = Routes(), Mock(), Mock()
    table.add("a/+", one, qos=1)
    assert table.handlers("a/b") == (one,)
    assert table.handlers("a/c", [99]) == (one,)
    route = table.add("a/b", other, qos=1)
    assert table.handlers("a/b") == (one, other)
    assert table.handlers("a/b", [route.identifier]) == (other,)
    table.add("a/b", one, qos=0)
    assert table.handlers("a/b", [route.identifier]) == (other, one)
    assert table.remove("a/b")
    assert table.handlers("a/b", [route.identifier]) == (one,)
    assert table.remove("a/+")
    assert table.handlers("a/b") == ()


def test_foreign_topics_do_not_fill_the_memory() -> None:
    table, handler = Routes(), Mock()
    table.add("#", handler, qos=1)
    for number in range(3 * routes._MOST_REMEMBERED):
        assert table.handlers(f"x/{number}") == (handler,)
    assert table.handlers("x" * 60_000) == (handler,)
    assert len(table._remembered) <= routes._MOST_REMEMBERED
    assert all(len(topic) <= routes._LONGEST_REMEMBERED for topic, _ in table._remembered)
