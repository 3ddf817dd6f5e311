"""Actions of a tier node's machines. They are values; only the shell performs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from nodes.protocol.messages import StreamApplied
from nodes.protocol.work import Work
from pipeline.codecs import NONE
from pipeline.placement import Stage
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.tiles.tiling import TiledStage
from pipeline.wire import Array, FrameKey, Trace


@dataclass(frozen=True, slots=True)
class Prepare:
    """Compile this node's part in the background, subscribe to its inputs, then say Prepared or PrepareFailed.

    A stage; a stage and its tiles for the coordinator of a tiled one; the tiles alone (`stage` is None) for a worker.
    """

    plan: Plan
    stage: Stage | None
    tiled: TiledStage | None = None


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
    """Compute this epoch's segment on these inputs, by tensor id.

    A tile's are its regions of the stack's inputs, as views perhaps. What comes after the tiles is given `parts`, the
    tiles' outputs in order, to be put together first; `was_alone` says that no other frame's tiles were out meanwhile.
    """

    key: FrameKey
    inputs: Mapping[int, Array]
    trace: Trace
    decode_seconds: float
    work: Work = Work.STAGE
    parts: tuple[Array, ...] = ()
    was_alone: bool = False


@dataclass(frozen=True, slots=True)
class SendTensor:
    """Publish one tensor of the cut, once for all its readers, coded as the plan says.

    `reader` is the only one, None where there are several.
    """

    key: FrameKey
    tensor: int
    array: Array
    trace: Trace
    codec: str = NONE
    reader: NodeId | None = None


@dataclass(frozen=True, slots=True)
class SendTile:
    """Publish a tile's region of one of the stack's inputs, perhaps a view, for one worker, coded as the plan says."""

    key: FrameKey
    worker: NodeId
    tensor: int
    array: Array
    trace: Trace = ()
    codec: str = NONE

    @property
    def reader(self) -> NodeId:
        """The only one."""
        return self.worker


@dataclass(frozen=True, slots=True)
class SendOutput:
    """Publish one of the model's outputs, to the device; or a tile's, to the coordinator; coded as the plan says."""

    key: FrameKey
    tensor: int
    array: Array
    trace: Trace
    reader: NodeId | None = None
    codec: str = NONE


@dataclass(frozen=True, slots=True)
class SendFailure:
    """Tell the device that this frame could not be computed here; or the coordinator, that this tile could not.

    `of_frame` if it cannot be computed anywhere.
    """

    key: FrameKey
    message: str
    trace: Trace
    of_frame: bool = False


@dataclass(frozen=True, slots=True)
class DecodeFrame:
    """Record an entered frame, and make it what this model's graph begins with; again for a new version of it."""

    stream: StreamId
    sequence: int
    pending_frame: Any
    model: str


@dataclass(frozen=True, slots=True)
class DropFrame:
    """A frame that has not entered gives way to a fresher one."""

    stream: StreamId
    pending_frame: Any


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """Publish the frame's one result: all outputs by tensor id, or the error that stands for them.

    `of_frame` says that the frame itself is at fault, `was_alone` that no frame of the stream was before it on its way,
    and that it was submitted once. `model` is the one that has answered.
    """

    stream: StreamId
    sequence: int
    pending_frame: Any
    epoch: int
    attempt: int
    outputs: Mapping[int, Array]
    trace: Trace
    error: str = ""
    of_frame: bool = False
    was_alone: bool = False
    model: str = ""


@dataclass(frozen=True, slots=True)
class NoteTile:
    """A tile came back: for the telemetry, the parts of its seconds as `TileSeconds` has them.

    `was_alone` says that no other frame's tiles were out at the same time.
    """

    key: FrameKey
    worker: NodeId
    transfer_seconds: float
    queue_seconds: float
    compute_seconds: float
    was_alone: bool = False


@dataclass(frozen=True, slots=True)
class Count:
    """Add one to a counter of the telemetry: the node's, and that of the stream, if it is about one."""

    name: str
    stream: StreamId | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Count and now and then say that something about this (a topic) was refused; it has changed nothing."""

    about: str
    why: str


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
    | SendTile
    | SendOutput
    | SendFailure
    | DecodeFrame
    | DropFrame
    | CloseFrame
    | NoteTile
    | Count
    | Refuse
    | Log
)
