"""A frame as the shell holds it, from its arrival until its result is out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from broker.session import Delivery
from pipeline.wire import Array


@dataclass(slots=True)
class PendingFrame:
    """`payload` is an encoded frame or an image array; `done` is called once the frame is answered or dropped.

    `position` is where the device's own source goes on after this frame, `delivery` how a frame came over MQTT.
    `is_recorded` is None before its record is tried.
    `nbytes_refused` are those of one that is too large, whose payload is not here.
    `correlation`, `response_topic` and `traceparent` are the publisher's: results find back to it, and to its trace.
    `traced` is the context that the frame's tensors and result carry.
    """

    payload: bytes | Array
    source: str
    done: Callable[[], None]
    correlation: bytes | None = None
    response_topic: str | None = None
    position: int | None = None
    delivery: Delivery | None = None
    is_recorded: bool | None = None
    traceparent: str | None = None
    nbytes_refused: int = 0
    traced: str | None = None
    entered_at: float = field(default_factory=time.monotonic)

    @property
    def nbytes(self) -> int:
        """Bytes of the frame as it came; `len` of an array counts its rows."""
        return len(self.payload) if isinstance(self.payload, bytes) else self.payload.nbytes
