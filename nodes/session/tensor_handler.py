"""A handler of tensor chunks that has large ones received straight into their tensor's memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from broker.mqtt.reader import Placement
from broker.session import Message
from pipeline.reassembly import Assembler, Place

Piece: TypeAlias = bytes | Place
"""A chunk as it came: its bytes, or the place in its tensor that they have filled."""


@dataclass(frozen=True, slots=True)
class TensorHandler:
    """Hands chunks over, in the network thread, for `assembler.add` in another one.

    `sender_of` gives the sender on a topic, None for a topic that nobody sends on. `offer` is given topic, sender,
    chunk and trace context, and must not wait.
    """

    assembler: Assembler
    sender_of: Callable[[str], str | None]
    offer: Callable[[str, str, Piece, str | None], None]

    def place(self, topic: str, first: memoryview, nbytes: int) -> Placement | None:
        """See `broker.inbox.Placing`."""
        sender = self.sender_of(topic)
        place = None if sender is None else self.assembler.place(sender, first, nbytes)
        return None if place is None else Placement(place.kept, place.into, place)

    def __call__(self, message: Message) -> None:
        """Take a message."""
        sender = self.sender_of(message.topic)
        if sender is not None:
            piece = message.placed if isinstance(message.placed, Place) else message.payload
            self.offer(message.topic, sender, piece, message.traceparent)
