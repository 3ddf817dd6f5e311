"""A frame's way as spans: what each node and each way between two took, from its result. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline import ranges
from pipeline.errors import MessageError
from pipeline.ranges import Difference, EpochSeen, Id, Name, Reason, Seconds, Timestamp, Word
from pipeline.trace import MAX_HOPS

LEAST_S = 1e-6
"""Shorter spans are left out: nothing happened there."""


@dataclass(frozen=True, slots=True)
class _Stage:
    node: Id
    tier: Name
    arrived_ts: Timestamp
    decode_seconds: Seconds = 0.0
    queue_seconds: Seconds = 0.0
    compute_seconds: Seconds = 0.0
    encode_seconds: Seconds = 0.0


@dataclass(frozen=True, slots=True)
class _Result:
    stream: Id
    sequence: Annotated[int, Field(strict=True, ge=0, le=ranges.MOST_SEQUENCE)]
    epoch: EpochSeen
    seconds: Seconds
    entered_ts: Timestamp
    ok: bool
    model: Word = ""
    attempt: Annotated[int, Field(strict=True, ge=0, le=ranges.MOST_ATTEMPT)] = 1
    error: Reason = ""
    path: Annotated[tuple[_Stage, ...], Field(max_length=MAX_HOPS)] = ()
    links: Annotated[Mapping[Word, Difference], Field(max_length=MAX_HOPS + 1)] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """One part of a frame's way, in seconds since 1970 on the pipeline's clock.

    `kind` is `frame` for the whole, `stage` for work of a node, `wait` for time in its queue, `link` for a way.
    """

    name: str
    node: str
    kind: Literal["frame", "stage", "wait", "link"]
    start_ts: float
    end_ts: float


@dataclass(frozen=True, slots=True)
class FrameSpans:
    """A frame's spans, the whole first, and what is to be said of the frame."""

    stream: str
    sequence: int
    attributes: Mapping[str, Any]
    error: str
    spans: tuple[Span, ...]


def frame_spans(result: Mapping[str, Any]) -> FrameSpans:
    """The spans of a frame by its result message (`nodes.tier.result_json`). Raises MessageError.

    Clocks of two nodes differ by what the pipeline's clock does not know: a way never ends before it begins.
    """
    read = ranges.read(_Result, dict(result), error=MessageError, what="a result with a frame's way")
    end_ts = read.entered_ts + read.seconds
    device = read.path[0].node if read.path else ""
    spans = [Span("frame", device, "frame", read.entered_ts, end_ts)]
    before: _Stage | None = None
    sent_ts = 0.0
    for stage in read.path:
        if before is not None:
            way = f"{before.tier} to {stage.tier}"
            spans += _lasting(Span(way, before.node, "link", sent_ts, max(sent_ts, stage.arrived_ts)))
            spans += _lasting(Span("encode", before.node, "stage", sent_ts, sent_ts + before.encode_seconds))
        spans += _of_stage(stage)
        before, sent_ts = stage, stage.arrived_ts + stage.queue_seconds + stage.compute_seconds
    if before is not None and len(read.path) > 1:
        spans += _lasting(Span("return", before.node, "link", sent_ts, max(sent_ts, end_ts)))
        spans += _lasting(Span("encode", before.node, "stage", sent_ts, sent_ts + before.encode_seconds))
    attributes = {"epoch": read.epoch, "attempt": read.attempt, "model": read.model}
    return FrameSpans(read.stream, read.sequence, attributes, read.error, tuple(spans))


def _of_stage(stage: _Stage) -> list[Span]:
    arrived, began = stage.arrived_ts, stage.arrived_ts + stage.queue_seconds
    return [
        *_lasting(Span("decode", stage.node, "stage", arrived - stage.decode_seconds, arrived)),
        *_lasting(Span("queue", stage.node, "wait", arrived, began)),
        *_lasting(Span("compute", stage.node, "stage", began, began + stage.compute_seconds)),
    ]


def _lasting(span: Span) -> list[Span]:
    return [span] if span.end_ts - span.start_ts >= LEAST_S and math.isfinite(span.end_ts) else []
