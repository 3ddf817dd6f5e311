"""A plan: for one stream, which node runs which blocks, what crosses, and what it is predicted to take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, NewType

from pydantic import Field

from pipeline import ranges
from pipeline.codecs import CODECS
from pipeline.coding import PlannedCodecs
from pipeline.cost import Prediction
from pipeline.errors import PlanError, TileError
from pipeline.graph import ModelGraph
from pipeline.placement import Crossing, NodeId, Placement, Stage, Tier, check, crossings, returning, stages
from pipeline.protocol_version import PROTOCOL_VERSION
from pipeline.ranges import Count, Epoch, Id, IdRange, Name, Number, Plain, Sentence, TierLabel, Timestamp, Word
from pipeline.tiles.tiling import TensorCodec, TiledStage, Tiling, tiled_stage

__all__ = ["MAX_BLOCKS", "ByHand", "NodeId", "Plan", "StreamId"]

StreamId = NewType("StreamId", str)

Span = tuple[Count, Count]
"""Blocks of a stage, half-open."""


@dataclass(frozen=True, slots=True)
class _WrittenStage:
    """A stage as JSON has it."""

    tier: TierLabel
    node: Annotated[NodeId, IdRange]
    blocks: Annotated[tuple[Span, ...], Field(min_length=1, max_length=ranges.MOST_BLOCKS)]


@dataclass(frozen=True, slots=True)
class _WrittenPart:
    """The blocks of a tier as JSON has them."""

    tier: TierLabel
    blocks: Annotated[tuple[Span, ...], Field(min_length=1, max_length=ranges.MOST_BLOCKS)]


@dataclass(frozen=True, slots=True)
class _WrittenByHand:
    """A placement by hand as JSON has it."""

    stages: Annotated[tuple[_WrittenPart, ...], Field(min_length=1, max_length=len(Tier))]
    tiles: Tiling | None = None


@dataclass(frozen=True, slots=True)
class _WrittenRunnerUp:
    """The next best choice as JSON has it."""

    kind: Word
    nodes: Mapping[TierLabel, Id]
    value: Number
    predicted: Prediction


_Codecs = Annotated[tuple[TensorCodec, ...], Field(max_length=10 * ranges.MOST_BLOCKS)]


@dataclass(frozen=True, slots=True)
class WrittenPlan:
    """A plan as JSON has it, without what derives from the graph."""

    stream: Annotated[StreamId, IdRange]
    epoch: Epoch
    model: Name
    digest: Name
    stages: Annotated[tuple[_WrittenStage, ...], Field(min_length=1, max_length=len(Tier))]
    predicted: Prediction
    planner: Word
    reason: Sentence
    created_ts: Timestamp
    objective: Word = "latency"
    runner_up: _WrittenRunnerUp | None = None
    plan_request: Plain | None = None
    by_hand: _WrittenByHand | None = None
    tiles: Tiling | None = None
    tensors: _Codecs = ()
    results: _Codecs = ()


@dataclass(frozen=True, slots=True)
class ByHand:
    """A placement, and tiles, that a person has asked for."""

    placement: Placement
    tiles: Tiling | None = None


@dataclass(frozen=True)
class Plan:
    """One epoch of one stream.

    `nodes` names a node for each tier that `placement` uses, the device always among them. `planner` is the algorithm
    (`exact`, `forced`), `reason` a sentence for people, `created_ts` seconds since 1970. `objective` is what it was
    judged by, `runner_up` the next best choice (kind, nodes, value, prediction), and `plan_request` what a person asked
    for in place of the configuration, as plain JSON values. `by_hand` is the stream's placement by hand, also while the
    plan cannot follow it, for the next planner process. `tiles` shares a stack of the edge's blocks out. `codecs`
    says how tensors that cross are coded, and outputs that go back to the device; all others go as they are.
    """

    stream: StreamId
    epoch: int
    model: str
    digest: str
    nodes: Mapping[Tier, NodeId]
    placement: Placement
    predicted: Prediction
    planner: str
    reason: str
    created_ts: float
    objective: str = "latency"
    runner_up: Mapping[str, Any] | None = None
    plan_request: Mapping[str, Any] | None = None
    by_hand: ByHand | None = None
    tiles: Tiling | None = None
    codecs: PlannedCodecs = field(default_factory=PlannedCodecs)

    @cached_property
    def device(self) -> NodeId:
        """The node that owns the stream."""
        return self.nodes[Tier.DEVICE]

    @cached_property
    def workers(self) -> tuple[NodeId, ...]:
        """The nodes that compute tiles and have no stage of their own, each once."""
        asked = self.tiles.workers if self.tiles else ()
        return tuple(dict.fromkeys(node for node in asked if node != self.nodes[Tier.EDGE]))

    @cached_property
    def members(self) -> tuple[NodeId, ...]:
        """All nodes that have a part in it: those with a stage, in tier order, and the workers."""
        return (*self.nodes.values(), *self.workers)

    def tier_of(self, node: NodeId) -> Tier | None:
        """The tier whose stage this node runs in the plan, None if it runs none."""
        return next((tier for tier, id_ in self.nodes.items() if id_ == node), None)

    def stages(self, graph: ModelGraph) -> tuple[Stage, ...]:
        """Its stages, in tier order."""
        return stages(graph, self.placement)

    def tiled_stage(self, graph: ModelGraph) -> TiledStage | None:
        """The edge's stage cut in three, None where it is not tiled. Raises TileError where the graph has no such."""
        if self.tiles is None:
            return None
        stage = next(stage for stage in self.stages(graph) if stage.tier is Tier.EDGE)
        return tiled_stage(graph, self.placement, stage, self.tiles)

    def crossings(self, graph: ModelGraph) -> tuple[Crossing, ...]:
        """The tensors that cross between its nodes."""
        return crossings(graph, self.placement)

    def returning(self, graph: ModelGraph) -> tuple[Crossing, ...]:
        """The outputs that go back to the device."""
        return returning(graph, self.placement)

    def to_json(self, graph: ModelGraph) -> dict[str, Any]:
        """JSON for the plan topic: block ranges are half-open; what derives from the graph is there for people."""
        return {
            "version": PROTOCOL_VERSION,
            "stream": self.stream,
            "epoch": self.epoch,
            "model": self.model,
            "digest": self.digest,
            "planner": self.planner,
            "objective": self.objective,
            "reason": self.reason,
            "created_ts": self.created_ts,
            "stages": [
                {
                    "tier": stage.tier.label,
                    "node": self.nodes[stage.tier],
                    "blocks": _ranges(stage.blocks),
                    "first": graph.blocks[stage.blocks[0]].name,
                    "last": graph.blocks[stage.blocks[-1]].name,
                }
                for stage in self.stages(graph)
            ],
            "tensors": self.sent_json(graph, self.crossings(graph)),
            "results": self.sent_json(graph, self.returning(graph)),
            "tiles": self.tiles.to_json(graph) if self.tiles else None,
            "predicted": self.predicted.to_json() | self.predicted.period_json(),
            "runner_up": self.runner_up,
            "plan_request": self.plan_request,
            "by_hand": self._by_hand_json(graph),
        }

    def sent_json(self, graph: ModelGraph, sent: Iterable[Crossing]) -> list[dict[str, Any]]:
        """What crosses or comes back, in the order of the blocks that make it, as plain JSON values."""
        return [
            {
                "tensor": crossing.tensor,
                "name": graph.tensors[crossing.tensor].name,
                "from": crossing.source.label,
                "to": [tier.label for tier in crossing.readers],
                "nbytes": graph.tensors[crossing.tensor].nbytes,
                "codec": self.codecs.on(crossing.tensor, crossing.way),
            }
            for crossing in sorted(sent, key=lambda crossing: graph.producer[crossing.tensor])
        ]

    def _by_hand_json(self, graph: ModelGraph) -> dict[str, Any] | None:
        if self.by_hand is None:
            return None
        parts = stages(graph, self.by_hand.placement)
        return {
            "stages": [{"tier": part.tier.label, "blocks": _ranges(part.blocks)} for part in parts],
            "tiles": self.by_hand.tiles.to_json(graph) if self.by_hand.tiles else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], graph: ModelGraph | None = None) -> Plan:
        """Read a plan; with `graph`, also check that it fits. Raises PlanError for anything that is not a plan."""
        ranges.require_version(value, PROTOCOL_VERSION, error=PlanError, what="plan protocol")
        written = ranges.read(WrittenPlan, value, error=PlanError, what="a plan")
        by_tier = {Tier.named(stage.tier): stage for stage in written.stages}
        if len(by_tier) < len(written.stages) or len({stage.node for stage in written.stages}) < len(written.stages):
            raise PlanError("a plan has one stage on a tier, and one on a node")
        plan = cls(
            stream=written.stream,
            epoch=written.epoch,
            model=written.model,
            digest=written.digest,
            nodes={tier: stage.node for tier, stage in by_tier.items()},
            placement=_placement({tier: stage.blocks for tier, stage in by_tier.items()}),
            predicted=written.predicted,
            planner=written.planner,
            reason=written.reason,
            created_ts=written.created_ts,
            objective=written.objective,
            runner_up=value.get("runner_up"),
            plan_request=written.plan_request,
            by_hand=_by_hand(written.by_hand),
            tiles=written.tiles,
            codecs=PlannedCodecs(_known(written.tensors), _known(written.results)),
        )
        if Tier.DEVICE not in plan.nodes:
            raise PlanError("a plan needs a device node")
        if plan.tiles is not None and Tier.EDGE not in plan.nodes:
            raise PlanError("a plan with tiles needs an edge node, which shares them out")
        if plan.device in plan.workers or plan.nodes.get(Tier.CLOUD) in plan.workers:
            raise PlanError("a tile's worker is a node that has no stage of its own, or the edge's node")
        if graph is not None:
            plan.check(graph)
        return plan

    def check(self, graph: ModelGraph) -> None:
        """Raise PlanError unless the plan fits the graph."""
        check(graph, self.placement)
        try:
            if self.by_hand is not None:
                check(graph, self.by_hand.placement)
            self.tiled_stage(graph)
        except TileError as error:
            raise PlanError(str(error)) from error


def _known(written: Iterable[TensorCodec]) -> dict[int, str]:
    return {one.tensor: one.codec for one in written if one.codec in CODECS}


def _by_hand(written: _WrittenByHand | None) -> ByHand | None:
    if written is None:
        return None
    blocks = {Tier.named(part.tier): part.blocks for part in written.stages}
    if len(blocks) < len(written.stages):
        raise PlanError("a placement by hand has one stage on a tier")
    return ByHand(_placement(blocks), written.tiles)


def _ranges(blocks: Sequence[int]) -> list[list[int]]:
    ranges: list[list[int]] = []
    for block in blocks:
        if ranges and ranges[-1][1] == block:
            ranges[-1][1] = block + 1
        else:
            ranges.append([block, block + 1])
    return ranges


MAX_BLOCKS = ranges.MOST_BLOCKS
"""A plan is read before its graph may be known: bounds what a header of two numbers can make us allocate."""


def _placement(ranges: Mapping[Tier, Sequence[Sequence[int]]]) -> Placement:
    tier_of: dict[int, Tier] = {}
    for tier, spans in ranges.items():
        for start, end in spans:
            if not 0 <= start < end <= MAX_BLOCKS:
                raise PlanError(f"block range [{start}, {end}) is not within 0 to {MAX_BLOCKS}")
            for block in range(start, end):
                if block in tier_of:
                    raise PlanError(f"block {block} is placed twice")
                tier_of[block] = tier
    if sorted(tier_of) != list(range(len(tier_of))):
        raise PlanError("a plan must place every block from 0 on")
    return tuple(tier_of[block] for block in range(len(tier_of)))
