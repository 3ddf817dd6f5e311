"""Events of a tier node. They are values; the shell makes them, the machines read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from nodes.protocol.messages import Applied, NodeState
from nodes.protocol.work import Work
from pipeline.graph import ModelGraph
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.wire import Array, FrameKey, Trace


@dataclass(frozen=True, slots=True)
class PlanArrived:
    """The planner published a plan."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class ModelArrived:
    """A model is here under this name, a version of its own; these streams of this device go over to it."""

    name: str
    graph: ModelGraph
    streams: tuple[StreamId, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """The segment of this epoch is compiled and its inputs are subscribed."""

    stream: StreamId
    epoch: int


@dataclass(frozen=True, slots=True)
class PrepareFailed:
    """This epoch cannot be run here."""

    stream: StreamId
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class PeerStateArrived:
    """A node said what it is, or its will did."""

    state: NodeState


@dataclass(frozen=True, slots=True)
class PeerAppliedArrived:
    """A node said which epochs it is ready for."""

    applied: Applied


@dataclass(frozen=True, slots=True)
class PeerForgotten:
    """A node's state was cleared on the broker: a person has it forgotten, since it is gone for good."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class TensorArrived:
    """A whole tensor for one of this node's segments; of a tile, its region."""

    key: FrameKey
    tensor: int
    array: Array
    trace: Trace
    decode_seconds: float


@dataclass(frozen=True, slots=True)
class SegmentRan:
    """A segment gave its outputs, by tensor id; the trace ends with this node's hop."""

    key: FrameKey
    outputs: Mapping[int, Array]
    trace: Trace
    work: Work = Work.STAGE


@dataclass(frozen=True, slots=True)
class SegmentFailed:
    """A segment raised; `of_frame` if the frame itself is at fault."""

    key: FrameKey
    message: str
    trace: Trace
    of_frame: bool = False


@dataclass(frozen=True, slots=True)
class TileArrived:
    """A worker's output for a tile; the trace is the worker's hop alone."""

    key: FrameKey
    worker: NodeId
    array: Array
    trace: Trace


@dataclass(frozen=True, slots=True)
class TileFailed:
    """A worker says that it could not compute a tile."""

    key: FrameKey
    worker: NodeId
    message: str


@dataclass(frozen=True, slots=True)
class FrameOffered:
    """A frame came from the stream's topic or source; `pending_frame` is the shell's handle on it.

    A `live` frame may be dropped for a fresher one while it has not entered. One that an earlier process had taken
    comes with its `sequence` of then; None takes the next. `publisher` is where its answer goes, "" for nowhere.
    """

    stream: StreamId
    pending_frame: Any
    live: bool = False
    sequence: int | None = None
    publisher: str = ""


@dataclass(frozen=True, slots=True)
class FrameDecoded:
    """An entered frame is what a graph begins with, by tensor id: the frame itself, or the model's inputs.

    `model` is the one whose graph that is; None: that of the model that it entered for.
    """

    stream: StreamId
    sequence: int
    inputs: Mapping[int, Array]
    decode_seconds: float
    model: str | None = None


@dataclass(frozen=True, slots=True)
class FrameUndecodable:
    """An entered frame is no input of this model; None: of the one that it entered for."""

    stream: StreamId
    sequence: int
    message: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class OutputArrived:
    """One of the model's output tensors came back, from the node that made it."""

    key: FrameKey
    sender: NodeId
    tensor: int
    array: Array
    trace: Trace


@dataclass(frozen=True, slots=True)
class OutputFailed:
    """A node says that it could not compute a frame; `of_frame` if nobody can, since it is no input of the model."""

    key: FrameKey
    sender: NodeId
    message: str
    trace: Trace
    of_frame: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """This node is cut off from the broker: what it knows of the others ages."""


@dataclass(frozen=True, slots=True)
class ConnectionRestored:
    """This node is up on the broker, again or for the first time; what was under way to it may be lost."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event: TypeAlias = (
    PlanArrived
    | ModelArrived
    | Prepared
    | PrepareFailed
    | PeerStateArrived
    | PeerAppliedArrived
    | PeerForgotten
    | TensorArrived
    | SegmentRan
    | SegmentFailed
    | TileArrived
    | TileFailed
    | FrameOffered
    | FrameDecoded
    | FrameUndecodable
    | OutputArrived
    | OutputFailed
    | ConnectionRestored
    | Tick
)
