"""SUBSCRIBE and SUBACK of one connection: what was asked, what was answered, what has to be taken back.

Called in the connection's thread, except for `wait`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from broker.errors import BrokerRefused, SubscribeTimeout
from broker.line import Line
from broker.mqtt.reasons import FAILURE, name_of
from broker.routes import Route

# the reason codes of one SUBACK; none at all when the connection ended first, which is not a refusal: the route is
# remembered, and sent at the next connect
Suback = Future[Sequence[int]]


class Subscriptions:
    """One SUBSCRIBE per filter, because a packet carries one identifier for all of its filters."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._connected = False
        self._with_identifiers = True
        self._asked: dict[int, Suback] = {}
        self._gone: set[str] = set()

    def connected(self, *, with_identifiers: bool) -> None:
        """A connection stands: take back what was unsubscribed while there was none. A resumed session still has it."""
        self._connected = True
        self._with_identifiers = with_identifiers
        if self._gone:
            self._line.unsubscribe(sorted(self._gone))
            self._gone.clear()

    def send(self, route: Route, answer: Suback) -> None:
        """SUBSCRIBE to one filter."""
        self._gone.discard(route.filter)
        if not self._connected:
            answer.set_result([])
            return
        identifier = route.identifier if self._with_identifiers else None
        mid = self._line.subscribe(route.filter, qos=route.qos, identifier=identifier)
        if mid is None:
            answer.set_result([])
        else:
            self._asked[mid] = answer

    def withdraw(self, filters: Sequence[str]) -> None:
        """UNSUBSCRIBE, now or at the next connect."""
        if self._connected:
            self._line.unsubscribe(list(filters))
        else:
            self._gone.update(filters)

    def answered(self, mid: int, codes: Sequence[int]) -> None:
        """SUBACK arrived."""
        if answer := self._asked.pop(mid, None):
            answer.set_result(codes)

    def lost(self) -> None:
        """The connection is gone: nobody will answer."""
        self._connected = False
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            answer.set_result([])


def wait(filters: Sequence[str], answers: Sequence[Suback], wait_s: float) -> None:
    """Wait for SUBACKs in another thread. Raises BrokerRefused, SubscribeTimeout."""
    give_up = time.monotonic() + wait_s
    try:
        for filter_, answer in zip(filters, answers, strict=True):
            raise_refusal(filter_, answer.result(max(0.0, give_up - time.monotonic())))
    except FutureTimeout:
        raise SubscribeTimeout(filters, wait_s) from None


def raise_refusal(filter_: str, codes: Sequence[int]) -> None:
    """Raise BrokerRefused when a SUBACK says so."""
    for code in codes:
        if code >= FAILURE:
            raise BrokerRefused(f"the subscription {filter_}", code=code, reason=name_of(code))
