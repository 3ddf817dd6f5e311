"""The tracer of a device's frames, where the configuration asks for traces."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from nodes.config.sections import Config

if TYPE_CHECKING:
    from nodes.instruments.tracing import FrameTracer


def tracer_of(config: Config) -> FrameTracer | None:
    """The tracer, None without `tracing`. Raises ConfigError without OpenTelemetry."""
    if config.tracing is None:
        return None
    from nodes.instruments.tracing import FrameTracer  # which loads OpenTelemetry

    return FrameTracer(config.tracing, config.pipeline, version("trisect"))
