"""The epochs that a tier node holds: prepared in the background, run, and let go when the device no longer needs them.

A node keeps the newest plan it has seen and whatever the stream's device says it `holds`; nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from nodes.protocol.messages import StreamApplied
from nodes.tier.machine.actions import Action, Count, Log, Prepare, Release
from nodes.tier.machine.events import PlanArrived, Prepared, PrepareFailed
from pipeline.errors import DigestMismatch, PlanError
from pipeline.graph import ModelGraph
from pipeline.placement import Stage, Tier
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.tiles.tiling import TiledStage


class Phase(Enum):
    """How far a node is with an epoch."""

    PREPARING = "preparing"
    READY = "ready"
    REFUSED = "refused"


TRANSITIONS: dict[tuple[Phase | None, type], Phase] = {
    (None, PlanArrived): Phase.PREPARING,
    (Phase.PREPARING, Prepared): Phase.READY,
    (Phase.PREPARING, PrepareFailed): Phase.REFUSED,
}
"""An epoch that the table does not move stays where it is; leaving the table is letting go."""


@dataclass(slots=True)
class Epoch:
    """One plan in which this node has a part; `graph` is this node's own.

    A node with a stage has the tiles, too, if it shares them out; a worker has no stage and all of the tiles.
    """

    plan: Plan
    graph: ModelGraph
    stage: Stage | None
    tiled: TiledStage | None = None
    phase: Phase = Phase.PREPARING
    reason: str = ""


@dataclass(slots=True)
class _Stream:
    seen: int = 0
    seen_ts: float = 0.0
    epochs: dict[int, Epoch] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)


class EpochTable:
    """All epochs of all streams on one node."""

    def __init__(self, me: NodeId, graphs: Mapping[str, ModelGraph]) -> None:
        self._me = me
        self._graphs = graphs
        self._streams: dict[StreamId, _Stream] = {}

    def find(self, stream: str, epoch: int) -> Epoch | None:
        """This node's part in the epoch, whatever its phase."""
        held = self._streams.get(StreamId(stream))
        return held.epochs.get(epoch) if held else None

    def applied(self) -> dict[StreamId, StreamApplied]:
        """What to announce, by stream."""
        return {
            name: StreamApplied(
                seen=stream.seen,
                ready=tuple(e for e, held in stream.epochs.items() if held.phase is Phase.READY),
                refused=dict(stream.refused),
            )
            for name, stream in self._streams.items()
        }

    def plan_arrived(self, event: PlanArrived) -> list[Action]:
        """Start preparing a newer plan in which this node has a part; refuse it if it cannot be this node's.

        Another plan of the epoch seen last comes from a planner that forgot, and replaces the one of then.
        """
        plan = event.plan
        stream = self._streams.setdefault(plan.stream, _Stream())
        if (plan.epoch, plan.created_ts) <= (stream.seen, stream.seen_ts):
            return []
        replaced = stream.epochs.pop(plan.epoch, None)
        actions: list[Action] = [Release(plan.stream, plan.epoch)] if replaced else []
        stream.seen, stream.seen_ts = plan.epoch, plan.created_ts
        stream.refused = {}
        if self._me not in plan.members:
            return actions
        try:
            graph = self._own_graph(plan)
        except (PlanError, DigestMismatch) as error:
            return actions + self._refuse(stream, plan, str(error))
        tier = plan.tier_of(self._me)
        stage = next((stage for stage in plan.stages(graph) if stage.tier is tier), None)
        tiled = plan.tiled_stage(graph) if tier in (None, Tier.EDGE) else None
        stream.epochs[plan.epoch] = Epoch(plan, graph, stage, tiled, TRANSITIONS[None, PlanArrived])
        return [*actions, Prepare(plan, stage, tiled)]

    def prepared(self, event: Prepared | PrepareFailed) -> list[Action]:
        """The background work on an epoch ended; an epoch that was let go meanwhile stays gone."""
        held = self.find(event.stream, event.epoch)
        phase = TRANSITIONS.get((held.phase, type(event))) if held else None
        if held is None or phase is None:
            return [Release(event.stream, event.epoch)] if held is None else []
        held.phase = phase
        if isinstance(event, PrepareFailed):
            stream = self._streams[event.stream]
            del stream.epochs[event.epoch]
            return [*self._refuse(stream, held.plan, event.reason), Release(event.stream, event.epoch)]
        return []

    def let_go(self, device: NodeId, stream_id: StreamId, applied: StreamApplied) -> list[Action]:
        """Drop what the stream's device neither runs nor still drains, once it has seen a newer plan than that."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return []
        gone = [
            epoch
            for epoch, held in stream.epochs.items()
            if held.plan.device == device and epoch < applied.seen and epoch not in applied.holds
        ]
        for epoch in gone:
            del stream.epochs[epoch]
        return [Release(stream_id, epoch) for epoch in gone]

    def _own_graph(self, plan: Plan) -> ModelGraph:
        graph = self._graphs.get(plan.model)
        if graph is None:
            raise PlanError(f"node {self._me} has no model {plan.model!r}, it has: {', '.join(sorted(self._graphs))}")
        if graph.digest != plan.digest:
            raise DigestMismatch(plan.model, [(self._me, graph.digest), ("the plan", plan.digest)])
        plan.check(graph)
        return graph

    def _refuse(self, stream: _Stream, plan: Plan, reason: str) -> list[Action]:
        stream.refused = {plan.epoch: reason}
        text = f"refused epoch {plan.epoch} of stream {plan.stream}: {reason}"
        return [Log(logging.WARNING, text), Count("refused_plans_total")]
