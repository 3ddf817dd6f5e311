"""The messages of one result go together: what the line breaks among is sent again, all of it, and once in the end."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import pytest

from broker.exactly_once import ExactlyOncePublisher, Publication
from broker.messages import Payload
from broker.outbox import Bundle, Outbox
from broker.packets import outgoing
from broker.session import Channel, Message, Session

LAST = "result/cam"


class Line(Session):
    """In place of a session: an outbox, and a line that breaks after so many messages were queued."""

    def __init__(self) -> None:
        self.box = Outbox("line", limit_bytes=1 << 20)
        self.sent: list[str] = []
        self.queued, self.breaks_after = 0, 0

    def subscribe(self, filters: Any, handler: Callable[[Message], None], **_: Any) -> None:
        """Nothing comes back by itself."""

    def publish(
        self,
        topic: str,
        payload: Payload,
        *,
        repeated: bool = True,
        settled: Callable[[bool], None] | None = None,
        bundle: Bundle | None = None,
        correlation: bytes | None = None,
        channel: Channel = Channel.RESULTS,
        **_: Any,
    ) -> bool:
        item = outgoing(topic, payload, correlation=correlation)
        item.repeated, item.settled, item.bundle = repeated, settled, bundle
        is_queued = self.box.put(item, wait_s=None)
        self.queued += 1
        if self.queued == self.breaks_after:
            self.box.lost()
        return is_queued

    def deliver(self) -> None:
        """The broker takes all that is queued."""
        number = len(self.sent)
        while (item := self.box.take(64)) is not None:
            number += 1
            self.sent.append(item.topic)
            self.box.sent(number, item)
            self.box.acked(number)


@pytest.mark.parametrize("breaks_after", [1, 2])
def test_a_line_that_breaks_among_the_messages_of_a_result_loses_none_of_them(breaks_after: int) -> None:
    line, delivered = Line(), list[Hashable]()
    line.breaks_after = breaks_after
    once = ExactlyOncePublisher(line, "fence", delivered=delivered.append, caught_up=lambda: None)
    publications = [Publication("output/cam", b"o"), Publication("reply/client", b"r"), Publication(LAST, b"R")]
    once.publish("frame 7", lambda: publications)
    line.deliver()
    assert line.sent == [publication.topic for publication in publications]
    assert delivered == ["frame 7"]


def test_a_result_whose_line_broke_after_all_was_queued_waits_for_the_fence() -> None:
    line, delivered = Line(), list[Hashable]()
    line.breaks_after = 2
    once = ExactlyOncePublisher(line, "fence", delivered=delivered.append, caught_up=lambda: None)
    once.publish("frame 7", lambda: [Publication("reply/client", b"r"), Publication(LAST, b"R")])
    line.deliver()
    assert not line.sent
    assert not delivered, "whether the broker has it is known when the fence is back"
