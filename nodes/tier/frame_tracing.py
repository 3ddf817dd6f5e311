"""The trace that each frame belongs to: decided where it enters, and taken over from tensors at the nodes behind."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from nodes.config.sections import Config
from pipeline.wire import FrameKey

if TYPE_CHECKING:
    from nodes.instruments.tracing import FrameTracer

MOST_FRAMES: Final = 4_096
"""Traced frames that are known at a time, the newest."""


class FrameTraces:
    """Trace contexts (W3C `traceparent`) of frames, of those that have one. Thread safe.

    With `tracer`, this device sends spans of its frames; without it, contexts only pass.
    """

    def __init__(self, tracer: FrameTracer | None = None) -> None:
        self._tracer = tracer
        self._lock = threading.Lock()
        self._contexts: OrderedDict[tuple[str, int], str] = OrderedDict()

    def entered(self, stream: str, sequence: int, given: str | None) -> str | None:
        """The context of a frame that enters: of its own span where it is sampled here, else the publisher's."""
        own = given if self._tracer is None else self._tracer.traceparent(given, sequence)
        self._note(stream, sequence, own)
        return own

    def arrived(self, key: FrameKey, traceparent: str | None) -> None:
        """A frame's tensor has come with this context."""
        self._note(key.stream, key.sequence, traceparent)

    def of(self, key: FrameKey) -> str | None:
        """The context to send a frame's tensors with."""
        return self._contexts.get((key.stream, key.sequence)) if self._contexts else None

    def answered(self, result: Mapping[str, Any], given: str | None, own: str | None) -> None:
        """A frame's result is out: its spans may go."""
        if self._tracer is not None:
            self._tracer.frame(result, given, own)

    def close(self) -> None:
        """Send what is left."""
        if self._tracer is not None:
            self._tracer.close()

    def _note(self, stream: str, sequence: int, traceparent: str | None) -> None:
        if traceparent is None:
            return
        with self._lock:
            self._contexts[stream, sequence] = traceparent
            if len(self._contexts) > MOST_FRAMES:
                self._contexts.popitem(last=False)


def traces_of(config: Config, *, is_device: bool) -> FrameTraces:
    """The traces of a node, with a tracer where `tracing` asks for one. Raises ConfigError without OpenTelemetry."""
    if config.tracing is None or not is_device:
        return FrameTraces()
    from nodes.instruments.tracing import FrameTracer  # which loads OpenTelemetry

    return FrameTraces(FrameTracer(config.tracing, config.pipeline, version("trisect")))
