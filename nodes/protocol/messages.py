"""The JSON messages that nodes tell each other, parsed once into frozen values. Knows no topic and no socket.

Each field declares what it may hold (`pipeline.ranges`). `nodes.protocol.border` holds messages against that, and
against their topics.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import Field, Strict, ValidationError

from pipeline import ranges
from pipeline.coding import CodecSpeed
from pipeline.errors import MessageError
from pipeline.plan import NodeId, StreamId
from pipeline.protocol_version import PROTOCOL_VERSION, require_protocol
from pipeline.ranges import (
    Count,
    Difference,
    EpochKey,
    EpochSeen,
    IdRange,
    Index,
    Name,
    Number,
    Positive,
    Rate,
    Ratio,
    Reason,
    Seconds,
    Timestamp,
    Watts,
    Word,
)
from pipeline.shared_cores import CoreCount

__all__ = ["MessageError"]

WORKER = "worker"
NodeName: TypeAlias = Annotated[NodeId, IdRange]
StreamName: TypeAlias = Annotated[StreamId, IdRange]
Epochs: TypeAlias = Annotated[
    tuple[Annotated[int, Field(strict=True, ge=1, le=ranges.MOST_EPOCH)], ...], Field(max_length=4096)
]
Answers: TypeAlias = Annotated[str, Field(max_length=100_000)]
"""As `pipeline.engines.answers` writes them: two frames, at most 4,096 values of each."""
Frames: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=10**9)]


class LifeState(str, Enum):
    """A node's life, as it says itself; `lost` is what its will says for it."""

    INIT = "init"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class NodeState:
    """`session` is new for each process; `births` counts how often it came up on the broker in that session.

    `message` says why a node stopped: the error, or the signal that asked for it.
    """

    node: NodeName
    tier: Name
    state: LifeState
    session: Word
    births: Count = 0
    host: Word = ""
    pid: Count = 0
    ts: Timestamp = 0.0
    message: Reason = ""


@dataclass(frozen=True, slots=True)
class DirectAddress:
    """Where a node listens for tensors that come directly: hosts to be tried in turn, and the port."""

    hosts: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[^\s/\[\]@]{1,253}$")], ...], Field(min_length=1, max_length=8)
    ]
    port: Annotated[int, Field(strict=True, ge=1, le=65_535)]


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node's abilities: its models by name with their digests, and the streams it owns with their model's name.

    `speed` is a `pipeline.estimator.Speed` as plain values, from which a model that it has not profiled is priced; None
    if it was never measured, since all models are profiled. `role` is `worker` for a node that computes tiles only.
    `bits` and `tiles` are the promise of its engine on its processor (`pipeline.engines.promise`). `answers` are those
    to seeded frames, by model, where engines may differ (`pipeline.engines.answers`). `codecs` are those that the node
    can encode and decode, with its speed: no other is used between it and another node. `pictures` are fingerprints of
    the test pictures, by model (`pipeline.frames.fingerprint`), `picture_libraries` what made them, for people: frames
    are decoded on nodes whose fingerprint is the device's. `refused_versions` are versions of pushed models that this
    device went back from, with the reasons. `direct` is there where it takes part in the direct way. `machine` is the
    same for nodes that one kernel shares processors out to, empty where that is not known; `cores` are those that it
    shares out, `busy_cores` those of them that the node occupies while it computes, 0 where an older one does not say.
    """

    node: NodeName
    tier: Name
    session: Word
    version: Word
    engine: Word
    engine_version: Word
    threads: Count
    hardware: Word
    models: Annotated[Mapping[Name, Name], Field(max_length=ranges.MOST_STREAMS)]
    streams: Annotated[Mapping[StreamName, Name], Field(max_length=ranges.MOST_STREAMS)] = field(default_factory=dict)
    speed: Annotated[Mapping[Word, Number], Field(max_length=32)] | None = None
    role: Word = ""
    bits: Word = ""
    tiles: Word = ""
    answers: Annotated[Mapping[Name, Answers], Field(max_length=ranges.MOST_STREAMS)] = field(default_factory=dict)
    codecs: Annotated[Mapping[Name, CodecSpeed], Field(max_length=32)] = field(default_factory=dict)
    pictures: Annotated[Mapping[Name, Name], Field(max_length=ranges.MOST_STREAMS)] = field(default_factory=dict)
    picture_libraries: Word = ""
    refused_versions: Annotated[Mapping[Name, Reason], Field(max_length=64)] = field(default_factory=dict)
    direct: DirectAddress | None = None
    machine: Word = ""
    cores: CoreCount = 0.0
    busy_cores: CoreCount = 0.0

    @property
    def core_share(self) -> float:
        """The part of its machine's cores that the node takes while it computes; 0 where that is not known."""
        return min(self.busy_cores / self.cores, 1.0) if self.machine and self.cores > 0 else 0.0

    @property
    def is_worker(self) -> bool:
        """True for a node that computes tiles and never runs a stage."""
        return self.role == WORKER


@dataclass(frozen=True, slots=True)
class SegmentSeconds:
    """One segment since the node's last report of it: the number of frames, their median seconds, and the standard
    deviation of single frames. `input_seconds` of these are the input's own blocks', 0 where that was not measured.
    """

    stream: StreamName
    epoch: EpochSeen
    frames: Frames
    compute_seconds: Positive
    deviation: Seconds = 0.0
    input_seconds: Seconds = 0.0


@dataclass(frozen=True, slots=True)
class TileSeconds:
    """What one tile of a plan took on one worker, since the coordinator's last report of it: so many frames, their
    medians.

    `transfer_seconds` is the way there and back with encoding and decoding, reckoned on the coordinator's clock alone:
    all the time from asking to having, but for what the worker had it waiting (`queue_seconds`) and computing. In
    `alone_seconds` only that of frames whose tiles were out by themselves, None without such: others also wait for
    each other at the coordinator.
    """

    stream: StreamName
    epoch: EpochSeen
    tile: Index
    worker: NodeName
    frames: Frames
    transfer_seconds: Seconds
    queue_seconds: Seconds
    compute_seconds: Seconds
    alone_seconds: Seconds | None = None


@dataclass(frozen=True, slots=True)
class GatherSeconds:
    """Median seconds in which a coordinator had a plan's tiles computed and put together, since its last report, of
    frames whose tiles were out by themselves: from the first tile's cutting to the stack's output, whole. `deviation`
    is the standard one of single frames.
    """

    stream: StreamName
    epoch: EpochSeen
    frames: Frames
    seconds: Positive
    deviation: Seconds = 0.0


@dataclass(frozen=True, slots=True)
class LegSeconds:
    """Median seconds of a plan's frames between one node's computing and the next one's since the device's last report.

    So many frames, of which none waited for another; median seconds by way, as a result's `links` has them: encode,
    broker and decode. A way compares two nodes' clocks, so it may be below 0; what these differ by cancels out in the
    sum of all. As `frame` the whole frame, from its entry to its answer. `deviations` are standard ones of single
    frames.
    """

    stream: StreamName
    epoch: EpochSeen
    frames: Frames
    seconds: Mapping[Name, Difference]
    deviations: Mapping[Name, Seconds] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TensorRatio:
    """How many times fewer bytes a codec made of a stream's tensor: the mean of the newest frames that it was tried on,
    and the standard deviation of them.
    """

    stream: StreamName
    tensor: Index
    codec: Name
    frames: Frames
    ratio: Ratio
    deviation: Number = 0.0


@dataclass(frozen=True, slots=True)
class LinkReport:
    """A node's way to the broker and back, measured: bytes per second each way, seconds there and back."""

    node: NodeName
    session: Word
    up_bytes_per_s: Rate
    down_bytes_per_s: Rate
    round_trip_s: Seconds
    ts: Timestamp = 0.0

    @property
    def makes_sense(self) -> bool:
        """True when rates are above 0 and the round trip is finite and at least 0."""
        rates = (self.up_bytes_per_s, self.down_bytes_per_s)
        return all(rate > 0 for rate in rates) and math.isfinite(self.round_trip_s) and self.round_trip_s >= 0

    def describe(self) -> str:
        """For people."""
        up, down = self.up_bytes_per_s / 1e6, self.down_bytes_per_s / 1e6
        return f"{up:.0f} MB/s to the broker, {down:.0f} MB/s from it, {self.round_trip_s * 1e3:.2f} ms there and back"


@dataclass(frozen=True, slots=True)
class LinkMeasured:
    """A running node's link as it observes it; None for what too few bytes have crossed to measure."""

    up_bytes_per_s: Rate | None = None
    down_bytes_per_s: Rate | None = None
    round_trip_s: Positive | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The part of a node's telemetry that the planner uses.

    `frame_overheads` are median seconds, by stream, in which its device reads a frame and answers it: what is left of a
    frame's seconds without computing, waiting and ways between nodes. `probe_seconds` is what a small fixed computation
    takes on a node that computes nothing else, and `probe_agrees` when the one before took as long. `work_watts` is
    what computing adds to what it draws when idle. `wrong` says what was left out, since it cannot be. `direct` are the
    nodes to which its tensors go directly.
    """

    segments: tuple[SegmentSeconds, ...] = ()
    tiles: tuple[TileSeconds, ...] = ()
    legs: tuple[LegSeconds, ...] = ()
    frame_overheads: Mapping[StreamName, Seconds] = field(default_factory=dict)
    link: LinkMeasured = LinkMeasured()
    probe_seconds: Positive | None = None
    wrong: str = ""
    ratios: tuple[TensorRatio, ...] = ()
    direct: tuple[NodeName, ...] = ()
    gathers: tuple[GatherSeconds, ...] = ()
    work_watts: Watts | None = None
    probe_agrees: bool = False


@dataclass(frozen=True, slots=True)
class StreamApplied:
    """A node's state of one stream: the newest plan's epoch it has `seen`, the epochs it is `ready` to run.

    `preparing` are epochs that it is at, whether or not a device still wants them.
    Only the stream's device says `active` (the epoch stamped on new frames) and `holds` (the epochs still needed).
    """

    seen: EpochSeen
    ready: Epochs = ()
    refused: Annotated[Mapping[EpochKey, Reason], Field(max_length=64)] = field(default_factory=dict)
    active: EpochSeen | None = None
    holds: Epochs = ()
    preparing: Epochs = ()


@dataclass(frozen=True, slots=True)
class Applied:
    """All streams of one node, in one retained message; stale once its session is not the node's present one."""

    node: NodeName
    session: Word
    streams: Annotated[Mapping[StreamName, StreamApplied], Field(max_length=ranges.MOST_STREAMS)] = field(
        default_factory=dict
    )


@dataclass(frozen=True, slots=True)
class Owner:
    """Which device answers a stream, and which process of it."""

    stream: StreamName
    node: NodeName
    session: Word


@dataclass(frozen=True, slots=True)
class _Output:
    """An output tensor in a result; `topic` is there where it was published."""

    name: Word
    tensor: Index
    topic: Word = ""


@dataclass(frozen=True, slots=True)
class ResultKeys:
    """What names a frame's result, of its many fields: those that anybody goes by."""

    stream: StreamName
    sequence: Annotated[int, Field(strict=True, ge=0, le=ranges.MOST_SEQUENCE)]
    ok: Annotated[bool, Strict()]
    correlation: Annotated[str, Field(max_length=ranges.MOST_REASON)] = ""
    frame: Word = ""
    outputs: Annotated[tuple[_Output, ...], Field(max_length=ranges.MOST_MEMBERS)] = ()


def read_result(payload: bytes) -> dict[str, Any]:
    """A frame's result, as plain values. Raises MessageError."""
    result = parse_json(payload)
    check_result(result)
    return result


def check_result(result: Mapping[str, Any]) -> None:
    """Hold a result's fields against their ranges. Raises MessageError."""
    ranges.read(ResultKeys, result, error=MessageError, what="a result")


T = TypeVar("T")


def to_bytes(message: Any) -> bytes:
    """The bytes to publish of a message, which then carries the `protocol` version, or of plain JSON values."""
    value = message if isinstance(message, Mapping) else {"protocol": PROTOCOL_VERSION} | asdict(message)
    return json.dumps(value, ensure_ascii=False, default=str).encode(errors="replace")


def parse_json(payload: bytes) -> dict[str, Any]:
    """A JSON object. Raises MessageError."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"not JSON: {error!s:.200}") from error
    if not isinstance(value, dict):
        raise MessageError(f"not a JSON object but a {type(value).__name__}")
    return value


def from_bytes(kind: type[T], payload: bytes) -> T:
    """Read a message of this kind. Raises MessageError, which names what is wrong, or the two protocol versions."""
    require_protocol(parse_json(payload).get("protocol"), error=MessageError, what=f"a {kind.__name__}")
    try:
        message: T = ranges.adapter(kind).validate_json(payload)
    except ValidationError as error:
        raise MessageError(f"not a {kind.__name__}: {ranges.explained(error)}") from None
    return message
