"""The sections of a configuration file, as frozen models: what each key may hold, and what belongs together.

A field's description is the end of its error message: what is allowed, in words. Knows neither YAML nor lines. Files
that a section names need not exist here: one configuration serves all machines, and photos lie on the device only.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from nodes.config.base import Section, Table, TierName, empty
from nodes.config.batching import Batching
from nodes.config.broker_section import BrokerSection
from nodes.config.instruments import HomeAssistant, MetricsSection, TracingSection
from nodes.config.plan_request import LinkName, PlanRequest
from nodes.config.power_section import Power
from nodes.config.replay_section import ReplaySection, check_replay
from nodes.config.task_section import TaskSection
from nodes.config.transport_section import DirectSection, TransportSection
from nodes.config.values import ID, Id, LocalPath, ModelKey, NodeKey, StreamKey, as_tuple, path_beside_file
from nodes.protocol.messages import WORKER
from nodes.protocol.packages import PUSHED
from pipeline.models.source import MAX_SIZE
from pipeline.placement import Tier
from pipeline.plan import NodeId
from pipeline.ranges import MOST_NODES, MOST_STREAMS

_PACKAGE = r"^[A-Za-z_][A-Za-z0-9_.]*$"
_WEIGHTS_FILES = (".h5", ".keras")
_MODEL_FILES = (".keras", ".trisect")


class PreprocessSection(Section):
    """Preprocessing of frames in place of the model's own."""

    size: Annotated[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], BeforeValidator(as_tuple)] = Field(
        description="[height, width] in pixels, whole numbers from 1"
    )
    mode: Literal["tf", "torch", "caffe", "unit", "none"] = Field(
        description="one of tf (-1..1), torch (mean and deviation), caffe (BGR, mean), unit (0..1), none (0..255)"
    )


class ModelSection(Section):
    """A network: `source` is a zoo name or a .keras path; `weights` is None when the file brings its own."""

    source: str = Field(
        min_length=1,
        description="a name from the model zoo, the path of a .keras file or a package (.trisect), or pushed: what "
        "`trisect model roll-out` says",
    )
    weights: str | None = Field(
        None, description="seed:N (N a whole number), imagenet, or the path of a .h5 or .keras file"
    )
    preprocess: PreprocessSection | None = Field(None, description="a section with size and mode, or left out")
    labels: LocalPath | None = Field(
        None, description="the path of a text file with one label per line, or of a Keras class index in JSON"
    )
    task: TaskSection | None = Field(
        None,
        description="what its outputs mean: classify, detect, segment, keypoints, values, embedding, raw, or a section",
    )

    input_size: Annotated[tuple[Annotated[int, Field(ge=1, le=MAX_SIZE)], ...], BeforeValidator(as_tuple)] = Field(
        (), description="a list of whole numbers from 1, as [256, 256]: where a file leaves its inputs' sizes open"
    )
    imports: Annotated[tuple[Annotated[str, Field(pattern=_PACKAGE)], ...], BeforeValidator(as_tuple)] = Field(
        (), description="a list of Python packages that register the layers of a .keras file"
    )

    @property
    def is_file(self) -> bool:
        """True when `source` is a path, already resolved, and not the name of a known architecture."""
        return self.source.endswith(_MODEL_FILES)

    @property
    def is_pushed(self) -> bool:
        """True when its packages come from the broker."""
        return self.source == PUSHED

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, values: Any, info: ValidationInfo) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if values.get("source") == PUSHED:
            if given := [key for key in ("weights", "preprocess", "labels", "input_size", "imports") if key in values]:
                raise ValueError(f"{given[0]} travels with a pushed package; leave it out, or give it to `model push`")
            values["weights"] = None
        elif isinstance(source := values.get("source"), str) and source.endswith(_MODEL_FILES):
            values["source"] = str(path_beside_file(source, info))
            if values.get("weights") is not None:
                raise ValueError("a .keras file or a package brings its own weights; leave out weights")
        elif "weights" not in values:
            values["weights"] = "seed:0"
        elif isinstance(weights := values["weights"], str) and weights.endswith(_WEIGHTS_FILES):
            values["weights"] = str(path_beside_file(weights, info))
        return values

    @model_validator(mode="after")
    def _weights_are_known(self) -> ModelSection:
        weights = self.weights
        if weights is None:
            known = self.is_file or self.is_pushed
        else:
            known = (
                weights == "imagenet" or weights.endswith(_WEIGHTS_FILES) or bool(re.fullmatch(r"seed:\d+", weights))
            )
        if not known:
            raise ValueError(f"weights {weights!r}: seed:N (N a whole number), imagenet, or the path of a .h5 file")
        return self


class SourceSection(Section):
    """A device node's own source of frames: exactly one of `images`, `video` and `camera`."""

    images: LocalPath | None = Field(None, description="the path of an image or of a folder of images")
    video: str | None = Field(None, min_length=1, description="the path or URL of a video")
    camera: int | None = Field(None, ge=0, description="a camera's number, from 0")
    rate_hz: float | None = Field(
        None, gt=0, description="frames per second above 0, or null for the source's own rate"
    )
    loop: bool = Field(False, description="true or false")
    policy: Literal["freshest", "block"] = Field(
        "block",
        description="freshest (drop what waits when the window is full) or block (wait); a camera's is freshest",
    )

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, values: Any, info: ValidationInfo) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if values.get("camera") is not None:
            values.setdefault("policy", "freshest")
        if isinstance(video := values.get("video"), str) and video and "://" not in video:
            values["video"] = str(path_beside_file(video, info))
        return values

    @model_validator(mode="after")
    def _is_one_source(self) -> SourceSection:
        given = [name for name in ("images", "video", "camera") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of images, video, camera; here {' and '.join(given) or 'none'}")
        if self.images is not None and self.policy == "freshest" and self.rate_hz is None:
            raise ValueError("images have no rate of their own, which freshest needs; give rate_hz, or policy: block")
        if self.camera is not None and self.loop:
            raise ValueError("a camera does not loop; leave out loop")
        return self


class StreamSection(Section):
    """The frames of one source and the model that they go through."""

    device: NodeId = Field(description="the id of a node of tier device")
    model: str = Field(description="a name from models")
    window: int = Field(4, ge=1, le=256, description="frames in flight, from 1 to 256")
    frame_timeout_s: float = Field(5.0, gt=0, description="seconds above 0, after which a frame is submitted again")
    max_pixels: int = Field(
        24_000_000, ge=1, le=1_000_000_000, description="pixels of the largest image that is decoded, from 1"
    )
    unrecorded: Literal["answer", "refuse"] = Field(
        "answer", description="answer or refuse, for frames that the device cannot record on its disk: full, read-only"
    )
    outputs: bool = Field(False, description="true (publish whole output tensors too) or false")
    preview: bool = Field(
        False, description="true (publish small pictures of frames, for `trisect web`) or false; not with raw_stays_on"
    )
    source: SourceSection | None = Field(None, description="a section, or left out when frames come over MQTT only")
    plan: PlanRequest = Field(default_factory=PlanRequest, description="a section with objective and constraints")

    @model_validator(mode="after")
    def _previews_leave_the_device(self) -> StreamSection:
        if self.preview and (stays := self.plan.constraints.raw_stays_on) is not None:
            raise ValueError(
                f"preview: true sends pictures of frames to whoever may look, and raw_stays_on: {stays.label} says "
                "that they go no further; leave one of the two out"
            )
        return self


EngineName: TypeAlias = Literal["litert", "tensorflow"]


class SpeedSection(Section):
    """A node's calibrated speed, for planning without starting it."""

    macs_per_s: float = Field(gt=0, description="multiply-accumulates a second of a 3x3 convolution, above 0")
    depthwise_macs_per_s: float = Field(gt=0, description="the same of a depthwise convolution, above 0")
    bytes_per_s: float = Field(gt=0, description="bytes read and written a second by a sum of two tensors, above 0")
    weight_bytes_per_s: float = Field(gt=0, description="bytes of weights a second of a large dense layer, above 0")
    operation_s: float = Field(gt=0, description="seconds of a layer that has nothing to compute, above 0")


class LinkSection(Section):
    """The way between two tiers; taken instead of what nodes measure."""

    bandwidth_mbit_s: float = Field(gt=0, description="megabits a second, above 0")
    latency_ms: float = Field(0.0, ge=0, description="milliseconds one way, at least 0")


class NodeSection(Batching):
    """One process on one tier."""

    tier: TierName = Field(description="one of device, edge, cloud")
    engine: EngineName | None = Field(
        None, description="litert or tensorflow, where it is not the pipeline's; needs exact: close"
    )
    threads: int | None = Field(None, ge=1, le=1024, description="threads from 1, or null for one per core")
    price_per_s: float = Field(0.0, ge=0, description="money for a second of its work, of at least 0")
    power_w: Power | None = Field(
        None, description="a section with the watts that it draws, idle and busy, or measured, by RAPL or a battery"
    )
    joules_per_mb: float = Field(0.0, ge=0, description="joules for a megabyte that it sends or receives, at least 0")
    role: Literal["", "worker"] = Field(
        "", description="worker, for an edge node that computes tiles only, or left out"
    )
    memory_mb: float | None = Field(None, gt=0, description="megabytes above 0 for networks, or null for no limit")
    standby: bool = Field(
        True,
        description="true for a node without a memory_mb to keep compiled what plans return to; devices whole networks",
    )
    speed: SpeedSection | None = Field(None, description="a section with the rates that trisect profile measured")
    profiles: LocalPath | None = Field(None, description="a folder that trisect profile -o has written on this node")

    store: bool = Field(
        False,
        description="true for a node that keeps every pushed package whole, and serves it to the others; or false",
    )
    link: LinkSection | None = Field(
        None, description="a section with its own way to the broker, to plan tiles with; left out where nodes measure"
    )

    metrics: MetricsSection | None = Field(
        None, description="a section with the port that Prometheus asks, or left out"
    )

    direct: DirectSection = Field(
        DirectSection(), description="a section with host and port, where transport.direct is true; or left out"
    )

    @property
    def is_worker(self) -> bool:
        """True for a node that computes tiles and never runs a stage."""
        return self.role == WORKER

    @model_validator(mode="after")
    def _workers_are_of_the_edge(self) -> NodeSection:
        if self.is_worker and self.tier is not Tier.EDGE:
            raise ValueError(f"role worker on tier {self.tier.label}; tiles are the edge's: give tier edge, or no role")
        return self


class PlannerSection(Section):
    """Settings of the planner, such as when a new plan is worth it."""

    id: Annotated[NodeId, Field(pattern=ID)] = Field(NodeId("planner"), description="an id of a-z, 0-9 and -")
    margin: float = Field(0.1, ge=0, lt=1, description="a share from 0 to below 1 by which a new plan must be faster")
    band: float = Field(
        0.2, ge=0, lt=1, description="a share from 0 to below 1 by which times and rates may differ from those assumed"
    )
    rule: Literal["gain", "band"] = Field(
        "gain",
        description="gain: by the margin, and with 95 % probability better at all, or on trial; band: by the margin",
    )
    min_seconds_between_plans: float = Field(5.0, ge=0, description="seconds, 0 or more")
    prepare_timeout_s: float = Field(
        120.0, gt=0, description="seconds above 0 after which a node that has not prepared its part is left out"
    )
    lost_after_s: float = Field(
        4.0, gt=0, description="seconds above 0 without a report after which a node counts as lost; at least 3 reports"
    )
    settle_s: float = Field(2.0, ge=0, description="seconds after connecting before anything is decided, 0 or more")
    metrics: MetricsSection | None = Field(
        None, description="a section with the port that Prometheus asks, or left out"
    )


class TelemetrySection(Section):
    """The interval of nodes' reports."""

    interval_s: float = Field(1.0, ge=0.1, le=3600, description="seconds from 0.1 to 3600")


class Config(Section):
    """A whole configuration. Every reference in it leads somewhere; see `nodes.config.loader.load_config`."""

    pipeline: Id = Field(description="a name of a-z, 0-9 and -")
    engine: Literal["auto", "litert", "tensorflow", "replay"] = Field(
        "auto",
        description="one of auto (litert where it has every block), litert, tensorflow; or replay: computes nothing",
    )
    replay: ReplaySection | None = Field(
        None, description="a section with the recording that engine: replay waits by, or left out"
    )
    exact: Literal["everywhere", "machine", "close"] = Field(
        "everywhere",
        description="one of everywhere (the same bits on x86 and ARM), machine (on one kind of processor), "
        "close (engines may differ, by at most tolerance)",
    )
    tolerance: float = Field(
        1e-4, gt=0, le=1, description="a share above 0 of an answer's largest value, by which close ones may differ"
    )
    broker: BrokerSection = BrokerSection()
    models: Table[ModelKey, ModelSection] = Field(default_factory=empty, description="a section with models")
    streams: Table[StreamKey, StreamSection] = Field(
        default_factory=empty, description=f"a section with at most {MOST_STREAMS} streams", max_length=MOST_STREAMS
    )
    nodes: Table[NodeKey, NodeSection] = Field(
        description=f"a section with 1 to {MOST_NODES} nodes", min_length=1, max_length=MOST_NODES
    )
    links: Table[LinkName, LinkSection] = Field(
        default_factory=empty, description="a section with device_edge or edge_cloud, left out where nodes measure"
    )
    planner: PlannerSection = PlannerSection()
    telemetry: TelemetrySection = TelemetrySection()
    transport: TransportSection = TransportSection()
    home_assistant: HomeAssistant = Field(None, description="true, a section with the discovery prefix, or false")
    tracing: TracingSection | None = Field(None, description="a section with the collector's endpoint, or left out")

    @model_validator(mode="after")
    def _engines_are_one(self) -> Config:
        check_replay(self.replay, self.engine, self.exact, self.nodes)
        engines = {name: node.engine for name, node in self.nodes.items() if node.engine not in {None, self.engine}}
        if engines and self.exact != "close":
            node, engine = next(iter(engines.items()))
            raise ValueError(
                f"node {node} has engine {engine}, the pipeline {self.engine}: different engines give different bits; "
                "leave the node's out, or say exact: close"
            )
        return self

    @model_validator(mode="after")
    def _pushed_models_are_compared_by_digest(self) -> Config:
        pushed = [name for name, model in self.models.items() if model.is_pushed]
        if pushed and self.exact == "close":
            raise ValueError(
                f"models.{pushed[0]} is pushed, and nodes fetch parts of it only; exact: close compares answers of "
                "whole networks: give exact: everywhere or machine"
            )
        return self

    @model_validator(mode="after")
    def _objectives_are_known(self) -> Config:
        for name, stream in self.streams.items():
            self.check_objective(stream.plan, f"stream {name}")
        return self

    def check_objective(self, plan_request: PlanRequest, what: str) -> None:
        """Raise ValueError if plans are asked for by energy or price, and no node says what it draws or costs."""
        if plan_request.is_by_price and not any(node.price_per_s for node in self.nodes.values()):
            raise ValueError(f"{what} is planned by price, and no node has price_per_s")
        if plan_request.is_by_energy and not any(node.power_w or node.joules_per_mb for node in self.nodes.values()):
            raise ValueError(
                f"{what} is planned by energy, and no node has power_w or joules_per_mb; give power_w: {{idle: 2.7, "
                "busy: 6.4} or power_w: measured to the nodes whose energy counts"
            )

    def engine_of(self, node: NodeId) -> str:
        """The engine of a node: its own, else the pipeline's."""
        return self.nodes[node].engine or self.engine

    def nodes_of(self, tier: Tier) -> tuple[NodeId, ...]:
        """The nodes of this tier that run stages, in the file's order."""
        return tuple(id_ for id_, node in self.nodes.items() if node.tier == tier and not node.is_worker)

    @property
    def tile_workers(self) -> tuple[NodeId, ...]:
        """The nodes that only compute tiles, in the file's order."""
        return tuple(id_ for id_, node in self.nodes.items() if node.is_worker)

    @model_validator(mode="before")
    @classmethod
    def _an_empty_section_means_its_defaults(cls, values: Any) -> Any:
        # `planner:` with every line below it commented out is null to YAML.
        optional = ("broker", "links", "planner", "telemetry", "transport")
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if not (key in optional and value is None)}
