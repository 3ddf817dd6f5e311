"""The sections of a configuration that say what other people's instruments get: all of them off by default."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from nodes.config.base import Section

METRICS_PORT = 9464
"""As OpenTelemetry's Prometheus exporters have it by default."""


class MetricsSection(Section):
    """Where a process answers Prometheus."""

    port: int = Field(METRICS_PORT, ge=0, le=65535, description="a port from 1 to 65535, or 0 for any that is free")
    host: str = Field(
        "127.0.0.1", min_length=1, max_length=253, description="an address of this machine; 0.0.0.0 for all of them"
    )


class HomeAssistantSection(Section):
    """Discovery by Home Assistant."""

    prefix: str = Field(
        "homeassistant", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Home Assistant's discovery prefix of letters"
    )


class TracingSection(Section):
    """Traces for OpenTelemetry, by its protocol over HTTP."""

    endpoint: str = Field(
        "http://127.0.0.1:4318/v1/traces",
        pattern=r"^https?://[^\s]{1,500}$",
        description="the collector's URL for traces, as http://127.0.0.1:4318/v1/traces",
    )
    every: int = Field(100, ge=1, le=1_000_000, description="a whole number: one frame in so many is traced, 1 for all")


def _switch(value: Any) -> Any:
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


HomeAssistant = Annotated[HomeAssistantSection | None, BeforeValidator(_switch)]
"""`true` for the defaults, `false` or nothing for none."""
