"""The JSON result of a frame, pleasant to read with `mosquitto_sub`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import xxhash

from nodes.tier.answer_format import AnswerFormat
from nodes.tier.machine.actions import CloseFrame
from nodes.tier.pending_frame import PendingFrame
from pipeline.wire import Hop, Trace

DIGITS = 6


def result_json(
    close: CloseFrame,
    answers: AnswerFormat,
    pending_frame: PendingFrame,
    closed_ts: float,
    output_topic: str | None = None,
) -> dict[str, Any]:
    """One message per frame. A node's seconds are of its own clock; a link's compare two nodes' `PipelineClock`s.

    `closed_ts` is the device's pipeline time, as are the moments when the frame entered and inputs arrived; `ts` is of
    its wall clock. `output_topic` is where the output tensors go, None where they do not.
    """
    result: dict[str, Any] = {
        "stream": close.stream,
        "sequence": close.sequence,
        "ok": not close.error,
        "source": pending_frame.source,
        "model": answers.graph.name,
        "epoch": close.epoch,
        "attempt": close.attempt,
        "seconds": round(seconds := time.monotonic() - pending_frame.entered_at, DIGITS),
        "entered_ts": round(closed_ts - seconds, DIGITS),
    }
    if pending_frame.correlation:
        result["correlation"] = pending_frame.correlation.decode(errors="replace")
    if isinstance(pending_frame.payload, bytes):
        # by which a publisher finds its result where its correlation data was lost: over a bridge in MQTT 3.1.1
        result["frame"] = xxhash.xxh3_64_hexdigest(pending_frame.payload)
    if close.error:
        result["error"] = close.error
        if close.of_frame:
            result["refused"] = True
    else:
        result |= answers.fields(close.outputs, pending_frame.payload, output_topic)
    result["tiers"] = [hop.tier for hop in close.trace]
    result["path"] = [_stage(hop) for hop in close.trace]
    result["links"] = link_seconds(close.trace, closed_ts)
    result["ts"] = round(time.time(), 3)
    return result


def link_seconds(trace: Trace, closed_ts: float) -> dict[str, float]:
    """Seconds from a node's output to the next node's input: encode, broker and decode; `return` is the way back."""
    links = {
        f"{before.tier}_{after.tier}": round(after.arrived_ts - before.sent_ts, DIGITS)
        for before, after in pairwise(trace)
    }
    if len(trace) > 1:
        links["return"] = round(closed_ts - trace[-1].sent_ts, DIGITS)
    return links


def frame_overhead_seconds(result: Mapping[str, Any]) -> float:
    """Seconds in which a result's device read the frame and answered it: all that is in no other part of it."""
    at_nodes = sum(stage[name] for stage in result["path"] for name in ("queue_seconds", "compute_seconds"))
    return float(max(0.0, result["seconds"] - at_nodes - sum(result["links"].values())))


def _stage(hop: Hop) -> dict[str, Any]:
    return {
        "node": hop.node,
        "tier": hop.tier,
        "arrived_ts": round(hop.arrived_ts, DIGITS),
        **{
            name: round(getattr(hop, name), DIGITS)
            for name in ("decode_seconds", "queue_seconds", "compute_seconds", "encode_seconds")
        },
    }
