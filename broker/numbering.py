"""Which messages a broker dropped: publishers number what they send on a topic, receivers look for gaps.

A broker whose queue for a client is full, or whose memory is, drops what comes next and acknowledges it all the same:
MQTT has no other sign of it. Each PUBLISH with QoS 1 carries a user property of some twenty bytes: a run, which is one
connection of one publisher, and a number that counts the messages of this run on this topic. What is sent again on a
later connection is numbered again, so that within a run nothing is missing but what the broker dropped or let expire;
its first number stands behind the new one, by which it is recognised.
A bridge in MQTT 3.1.1 takes the property off; behind it no gap is seen.
"""

from __future__ import annotations

import logging
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from broker.complaints import Complaints
from broker.outbox import Outgoing
from broker.routes import matches

PROPERTY: Final = "n"
MOST_TOPICS: Final = 4_096
"""Whose numbers are remembered, on either side. A topic that is forgotten counts from its next message."""
MOST_MISSED: Final = 1_000_000
"""A larger gap is no gap but a number out of nowhere."""
_RUN_CHARACTERS: Final = 8
_NUMBER_CHARACTERS: Final = 12
_FIRST: Final = "/"
_MARK_CHARACTERS: Final = _RUN_CHARACTERS + _NUMBER_CHARACTERS
PLACEHOLDER: Final = "0" * (2 * _MARK_CHARACTERS + len(_FIRST))
"""As long as the property can become, for the size of a packet before it has one."""


class Numbers:
    """What one connection has sent. Called in its thread only."""

    def __init__(self) -> None:
        self.connected()

    def connected(self) -> None:
        """A new connection: its messages are another run."""
        self._run = secrets.token_hex(_RUN_CHARACTERS // 2)
        self._sent: OrderedDict[str, int] = OrderedDict()

    def next(self, item: Outgoing) -> str:
        """The property of a message that is sent now, behind all others on its topic."""
        number = self._sent.pop(item.topic, 0) + 1
        self._sent[item.topic] = number
        if len(self._sent) > MOST_TOPICS:
            self._sent.popitem(last=False)
        mark = f"{self._run}{number:x}"
        if item.mark:
            return f"{mark}{_FIRST}{item.mark}"
        item.mark = mark
        return mark


class Gaps:
    """What one connection has received. Called in its thread only; `total` counts what is missing."""

    def __init__(self, log: logging.Logger) -> None:
        self.total = 0
        self._last: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._complaints = Complaints(log)

    def connected(self, *, resumed: bool) -> None:
        """A connection stands. Without the old session nobody has kept for it what came meanwhile."""
        if not resumed:
            self._last.clear()

    def unsubscribed(self, filters: Sequence[str]) -> None:
        """What comes on their topics from now on may begin anywhere."""
        for key in [key for key in self._last if any(matches(filter_, key[0]) for filter_ in filters)]:
            del self._last[key]

    def arrived(self, topic: str, mark: str) -> int:
        """How many messages on the topic are missing before the one that has this mark."""
        run, number = mark[:_RUN_CHARACTERS], _number(mark[_RUN_CHARACTERS:])
        if not number:
            return 0
        last = self._last.pop((topic, run), number - 1)
        missing = number - last - 1
        # a number out of nowhere is not remembered either: what follows is held against those before it
        self._last[topic, run] = last if missing > MOST_MISSED else max(number, last)
        if len(self._last) > MOST_TOPICS:
            self._last.popitem(last=False)
        if not 0 < missing <= MOST_MISSED:
            return 0  # in order, sent twice by a bridge, or no number of ours
        self.total += missing
        self._complaints.add(
            topic,
            f"{topic}: the broker dropped {missing:_} messages before number {number:_}, or let them expire; raise "
            "max_queued_messages, max_queued_bytes or memory_limit there, or send less",
        )
        return missing


def marks_of(properties: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """Run and number of a message, and those that it had when it was sent first; empty if it has none."""
    value = next((value for name, value in properties if name == PROPERTY), "")
    mark, _, first = value.partition(_FIRST)
    is_mark = all(_RUN_CHARACTERS < len(each) <= _MARK_CHARACTERS for each in (mark, first or mark))
    return (mark, first or mark) if is_mark else ("", "")


def _number(digits: str) -> int:
    if not 0 < len(digits) <= _NUMBER_CHARACTERS or not digits.isascii():
        return 0
    try:
        return max(0, int(digits, 16))
    except ValueError:
        return 0
