"""A node's keys for frames that it computes together."""

from __future__ import annotations

from pydantic import Field

from nodes.config.base import Section


class Batching(Section):
    """Frames of several streams that wait for the same blocks of one model may share the reading of its weights."""

    batch: int = Field(
        1, ge=1, le=64, description="frames from 1 to 64 that end together where that is faster; 1 for one by one"
    )
    batch_wait_ms: float = Field(
        0.0, ge=0, le=1000, description="milliseconds from 0 to 1000 that a frame waits for others to be computed with"
    )
