"""The epochs that a tier node holds: prepared in the background, run, and let go when the device no longer needs them.

A node keeps the newest plan it has seen and whatever the stream's device says it `holds`; nothing else. However fast
plans come, at most `MOST_PREPARING` of a stream are under way; of those that wait for them only the newest counts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from broker.complaints import shortened
from nodes.protocol.messages import StreamApplied
from nodes.protocol.peers import EPOCHS_AHEAD, MOST_FIRST_EPOCH
from nodes.tier.machine.actions import Action, Count, Log, Prepare, Release
from nodes.tier.machine.events import PlanArrived, Prepared, PrepareFailed
from pipeline.errors import DigestMismatch, PlanError
from pipeline.graph import ModelGraph
from pipeline.placement import Stage, Tier
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.ranges import MOST_REASON, MOST_STREAMS
from pipeline.tiles.tiling import TiledStage


class Phase(Enum):
    """Phases of an epoch on a node."""

    WAITING = "waiting"
    PREPARING = "preparing"
    READY = "ready"
    REFUSED = "refused"


TRANSITIONS: dict[tuple[Phase | None, type], Phase] = {
    (None, PlanArrived): Phase.PREPARING,
    (Phase.PREPARING, Prepared): Phase.READY,
    (Phase.PREPARING, PrepareFailed): Phase.REFUSED,
}
"""An epoch that the table does not move stays where it is; leaving the table is letting go. While `MOST_PREPARING` are
prepared, the newest waits to be.
"""
MOST_PREPARING = 3
MOST_HELD = 64


@dataclass(slots=True)
class Epoch:
    """One plan in which this node has a part; `graph` is this node's own.

    A node with a stage has the tiles, too, if it shares them out; a worker has no stage and all of the tiles.
    """

    plan: Plan
    graph: ModelGraph
    stage: Stage | None
    tiled: TiledStage | None = None
    phase: Phase = Phase.WAITING
    reason: str = ""

    def only_reader(self, tensor: int) -> NodeId | None:
        """The node that reads a tensor which this node sends; None for several."""
        placement = self.plan.placement
        tiers = {placement[block] for block in self.graph.consumers[tensor]} - {placement[self.graph.producer[tensor]]}
        return self.plan.nodes[tiers.pop()] if len(tiers) == 1 else None


@dataclass(slots=True)
class _Stream:
    seen: int = 0
    seen_ts: float = 0.0
    epochs: dict[int, Epoch] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    lacking: Plan | None = None
    """The newest plan, while this node has not its model."""
    jobs: list[Epoch] = field(default_factory=list)
    """Epochs being prepared, in order, though some may have been let go or replaced since."""

    @property
    def newest_allowed(self) -> int:
        """The highest epoch that a next plan may have."""
        return self.seen + EPOCHS_AHEAD if self.seen else MOST_FIRST_EPOCH

    @property
    def preparing(self) -> list[int]:
        """Epochs that are being prepared or wait to be, those that were let go meanwhile too, in order."""
        waiting = {epoch for epoch, held in self.epochs.items() if held.phase is Phase.WAITING}
        return sorted(waiting | {job.plan.epoch for job in self.jobs})


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
        """The state to announce, by stream."""
        return {
            name: StreamApplied(
                seen=stream.seen,
                ready=tuple(e for e, held in stream.epochs.items() if held.phase is Phase.READY),
                refused=dict(stream.refused),
                preparing=tuple(stream.preparing),
            )
            for name, stream in self._streams.items()
        }

    def plan_arrived(self, event: PlanArrived) -> list[Action]:
        """Start preparing a newer plan in which this node has a part; refuse it if it cannot be this node's.

        Another plan of the epoch seen last comes from a planner that forgot, and replaces the one of then.
        """
        plan = event.plan
        stream = self._streams.get(plan.stream) or _Stream()
        if (plan.epoch, plan.created_ts) <= (stream.seen, stream.seen_ts):
            return []
        self._streams[plan.stream] = stream
        replaced = stream.epochs.pop(plan.epoch, None)
        actions: list[Action] = [Release(plan.stream, plan.epoch)] if replaced else []
        stream.seen, stream.seen_ts = plan.epoch, plan.created_ts
        return actions + self._take_part(stream, plan)

    def model_arrived(self) -> list[Action]:
        """Take part in plans that were refused for want of a model that is here now."""
        return [
            action
            for stream in self._streams.values()
            if stream.lacking is not None and stream.lacking.model in self._graphs
            for action in self._take_part(stream, stream.lacking)
        ]

    def _take_part(self, stream: _Stream, plan: Plan) -> list[Action]:
        stream.refused, stream.lacking = {}, None
        if self._me not in plan.members:
            return []
        stream.lacking = plan if plan.model not in self._graphs else None
        try:
            graph = self._own_graph(plan)
        except (PlanError, DigestMismatch) as error:
            return self._refuse(stream, plan, str(error))
        tier = plan.tier_of(self._me)
        stage = next((stage for stage in plan.stages(graph) if stage.tier is tier), None)
        tiled = plan.tiled_stage(graph) if tier in (None, Tier.EDGE) else None
        stream.epochs[plan.epoch] = Epoch(plan, graph, stage, tiled)
        return self._prepare_next(stream)

    def why_not(self, plan: Plan) -> str:
        """The reason to ignore a plan, empty if there is none."""
        stream = self._streams.get(plan.stream) or _Stream()
        if plan.epoch > stream.newest_allowed:
            return f"epoch: at most {stream.newest_allowed} after epoch {stream.seen}, not {plan.epoch}"
        if plan.stream not in self._streams and len(self._streams) >= MOST_STREAMS:
            return f"stream: {MOST_STREAMS} are known, and this would be one more"
        if len(stream.epochs) >= MOST_HELD:
            return f"epoch: {MOST_HELD} are held, and no device has let one of them go"
        return ""

    def _prepare_next(self, stream: _Stream) -> list[Action]:
        """Have the newest that waits prepared, if there is room; those before it are superseded."""
        waiting = [epoch for epoch, held in stream.epochs.items() if held.phase is Phase.WAITING]
        for epoch in sorted(waiting)[:-1]:
            del stream.epochs[epoch]
        if not waiting or len(stream.jobs) >= MOST_PREPARING:
            return []
        held = stream.epochs[max(waiting)]
        held.phase = TRANSITIONS[None, PlanArrived]
        stream.jobs.append(held)
        return [Prepare(held.plan, held.stage, held.tiled)]

    def prepared(self, event: Prepared | PrepareFailed) -> list[Action]:
        """The background work on an epoch ended; an epoch that was let go meanwhile stays gone."""
        stream = self._streams.get(event.stream)
        if stream is None:
            return [Release(event.stream, event.epoch)]
        job = next((job for job in stream.jobs if job.plan.epoch == event.epoch), None)
        if job is not None:
            stream.jobs.remove(job)
        return self._job_ended(stream, job, event) + self._prepare_next(stream)

    def _job_ended(self, stream: _Stream, job: Epoch | None, event: Prepared | PrepareFailed) -> list[Action]:
        held = stream.epochs.get(event.epoch)
        if held is None:
            return [Release(event.stream, event.epoch)]
        phase = TRANSITIONS.get((held.phase, type(event)))
        if held is not job or phase is None:
            return []  # replaced by another plan of this epoch, which is prepared after it
        held.phase = phase
        if isinstance(event, PrepareFailed):
            del stream.epochs[event.epoch]
            return [*self._refuse(stream, held.plan, event.reason), Release(event.stream, event.epoch)]
        return []

    def validate(self) -> None:
        """Assert what always holds."""
        assert len(self._streams) <= MOST_STREAMS
        for stream in self._streams.values():
            waiting = [epoch for epoch, held in stream.epochs.items() if held.phase is Phase.WAITING]
            assert len(waiting) <= 1
            assert len(stream.jobs) <= MOST_PREPARING
            assert not waiting or len(stream.jobs) == MOST_PREPARING, f"{waiting} waits for nothing"
            assert len(stream.epochs) <= MOST_HELD
            assert max(stream.epochs, default=0) <= stream.seen
            for epoch, held in stream.epochs.items():
                assert held.plan.epoch == epoch
                assert (held.phase is Phase.PREPARING) == any(job is held for job in stream.jobs)

    def let_go(self, device: NodeId, stream_id: StreamId, applied: StreamApplied) -> list[Action]:
        """Drop what the stream's device neither runs nor still drains, once both have seen a newer plan than that.

        The newest plan that came here is kept, whatever is said in the device's name: it would not come again.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return []
        newer = min(applied.seen, stream.seen)
        gone = [
            epoch
            for epoch, held in stream.epochs.items()
            if held.plan.device == device and epoch < newer and epoch not in applied.holds
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
        reason = shortened(reason, MOST_REASON)
        stream.refused = {plan.epoch: reason}
        text = f"refused epoch {plan.epoch} of stream {plan.stream}: {reason}"
        return [Log(logging.WARNING, text), Count("refused_plans_total")]
