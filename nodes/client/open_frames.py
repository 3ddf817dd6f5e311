"""The frames of one client that have no answer yet, and which of them a result answers. Knows no broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import xxhash

from nodes.client.answers import Answer
from pipeline.errors import TrisectError


@dataclass(slots=True)
class OpenFrame:
    """A frame on its way: `digest` is that of its bytes, `unsent` says that the broker did not take it."""

    correlation: str
    digest: str
    future: Future[Answer] = field(default_factory=Future)
    unsent: bool = False


class OpenFrames:
    """The open frames of one stream, by correlation data. Thread safe.

    `quiet_since` is when the last of them was answered or the first of them sent, by the monotonic clock; `sent` counts
    all frames of the present baseline.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, OpenFrame] = {}
        self.quiet_since = 0.0
        self.sent = 0

    def __len__(self) -> int:
        return len(self._open)

    def add(self, correlation: str, payload: bytes) -> OpenFrame:
        """A frame that is about to be sent."""
        frame = OpenFrame(correlation, xxhash.xxh3_64_hexdigest(payload))
        with self._lock:
            if not self._open:
                self.quiet_since = time.monotonic()
            self._open[correlation] = frame
            self.sent += 1
        return frame

    def forget(self, frame: OpenFrame) -> None:
        """A frame that could not be sent."""
        with self._lock:
            if self._open.pop(frame.correlation, None) is not None:
                self.sent -= 1

    def take(self, result: Mapping[str, Any]) -> OpenFrame | None:
        """The frame that this is the result of, which is open no longer; None for another's."""
        with self._lock:
            correlation, digest = result.get("correlation"), result.get("frame")
            if correlation is None:  # over a bridge in MQTT 3.1.1: equal frames have equal results
                correlation = next((name for name, frame in self._open.items() if frame.digest == digest), None)
            frame = self._open.get(correlation or "")
            if frame is None or digest not in {None, frame.digest}:
                return None  # of another publisher: all of an enrolled member have one reply topic
            self.quiet_since = time.monotonic()
            return self._open.pop(frame.correlation)

    def is_quiet(self, seconds: float) -> bool:
        """True when frames are open and none was answered for so long."""
        return bool(self._open) and time.monotonic() - self.quiet_since >= seconds

    def unsent(self) -> list[str]:
        """Names of open frames that the broker did not take."""
        with self._lock:
            return [frame.correlation for frame in self._open.values() if frame.unsent]

    def end_one(self, frame: OpenFrame, error: TrisectError) -> None:
        """A frame ends with this error, if it is open."""
        with self._lock:
            if self._open.pop(frame.correlation, None) is None:
                return
        settle([frame], error)

    def end(self, error: TrisectError) -> None:
        """All open frames end with this error."""
        with self._lock:
            ended, self._open = list(self._open.values()), {}
        settle(ended, error)


def settle(frames: Iterable[OpenFrame], error: TrisectError) -> None:
    """Give their waiters this error; one that was cancelled has none."""
    for frame in frames:
        if frame.future.set_running_or_notify_cancel():
            frame.future.set_exception(error)
