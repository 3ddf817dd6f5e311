"""What is said repeatedly where a broker hands out retained messages to exact topics only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from unittest.mock import Mock

import pytest

from broker.messages import Channel, Message, OwnershipToken
from broker.repetition import EVERY_S, WAIT_S, Repetition
from broker.routes import Routes

TOPIC = "trisect/v1/lab/node/edge-1/owner"


@pytest.mark.parametrize("came", [[], [()], [(1,)]], ids=["nothing", "no identifier, as RabbitMQ", "the exact one's"])
def test_what_is_kept_is_repeated_unless_the_claim_came_by_the_wildcard(came: list[Sequence[int]]) -> None:
    said, routes = Mock(), Routes()
    exact = routes.add(TOPIC, Mock(), qos=1)
    repetition = Repetition(OwnershipToken(TOPIC, b"t"), routes, cast("Any", Mock()), say=said)
    repetition.claimed(0.0)
    assert exact.identifier == 1
    for identifiers in came:
        hand_over(routes, identifiers)
    repetition.due(WAIT_S)
    repetition.due(WAIT_S + EVERY_S)
    assert said.call_count == 2
    assert [route.filter for route in routes.all()] == [TOPIC], "the question is withdrawn"


def test_nothing_is_repeated_once_the_claim_has_come_by_the_wildcard() -> None:
    said, routes = Mock(), Routes()
    repetition = Repetition(OwnershipToken(TOPIC, b"t"), routes, cast("Any", Mock()), say=said)
    repetition.claimed(0.0)
    (route,) = routes.all()
    assert route.filter == "trisect/v1/lab/node/+/owner"
    hand_over(routes, (route.identifier,))
    repetition.due(WAIT_S)
    assert not said.called


def hand_over(routes: Routes, identifiers: Sequence[int]) -> None:
    message = Message(TOPIC, b"t", True, Channel.CONTROL, None, None, lambda: None, identifiers=identifiers)
    for handler in routes.handlers(TOPIC, identifiers):
        handler(message)
