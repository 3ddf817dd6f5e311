"""What a tier node's machines ask of the shell. Actions are values; only the shell performs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from nodes.messages import StreamApplied
from pipeline.placement import Stage
from pipeline.plan import Plan, StreamId
from pipeline.wire import Array, FrameKey, Trace


@dataclass(frozen=True, slots=True)
class Prepare:
    """Compile the stage in the background, subscribe to its inputs, then say Prepared or PrepareFailed."""

    plan: Plan
    stage: Stage


@dataclass(frozen=True, slots=True)
class Release:
    """Let the segment and the subscriptions of this epoch go."""

    stream: StreamId
    epoch: int


@dataclass(frozen=True, slots=True)
class AnnounceApplied:
    """Publish which epochs this node holds, all its streams at once."""

    streams: Mapping[StreamId, StreamApplied]


@dataclass(frozen=True, slots=True)
class Run:
    """Compute this epoch's segment on these inputs, by tensor id."""

    key: FrameKey
    inputs: Mapping[int, Array]
    trace: Trace
    decode_seconds: float


@dataclass(frozen=True, slots=True)
class SendTensor:
    """Publish one tensor of the cut, once for all its readers."""

    key: FrameKey
    tensor: int
    array: Array
    trace: Trace


@dataclass(frozen=True, slots=True)
class SendOutput:
    """Publish one of the model's outputs, to the device."""

    key: FrameKey
    tensor: int
    array: Array
    trace: Trace


@dataclass(frozen=True, slots=True)
class SendFailure:
    """Tell the device that this frame could not be computed here."""

    key: FrameKey
    message: str
    trace: Trace


@dataclass(frozen=True, slots=True)
class DecodeFrame:
    """Make an entered frame the model's input."""

    stream: StreamId
    sequence: int
    ticket: Any


@dataclass(frozen=True, slots=True)
class DropFrame:
    """A frame that has not entered gives way to a fresher one."""

    stream: StreamId
    ticket: Any


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """Publish the frame's one result: all outputs by tensor id, or the error that stands for them."""

    stream: StreamId
    sequence: int
    ticket: Any
    epoch: int
    attempt: int
    outputs: Mapping[int, Array]
    trace: Trace
    error: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """Add one to a counter of the telemetry."""

    name: str


@dataclass(frozen=True, slots=True)
class Log:
    """Tell the person who runs the node."""

    level: int
    text: str


Action: TypeAlias = (
    Prepare
    | Release
    | AnnounceApplied
    | Run
    | SendTensor
    | SendOutput
    | SendFailure
    | DecodeFrame
    | DropFrame
    | CloseFrame
    | Count
    | Log
)
