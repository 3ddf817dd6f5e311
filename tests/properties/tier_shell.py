"""A simulated tier node: a real machine, its threads as queues, its journal in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from broker import topics
from nodes.protocol import border
from nodes.protocol.messages import (
    WORKER,
    Applied,
    LifeState,
    LinkReport,
    NodeInfo,
    StreamApplied,
    to_bytes,
)
from nodes.protocol.reports import LEAST_FRAMES
from nodes.protocol.work import Work
from nodes.tier.machine import actions as do
from nodes.tier.machine import events as ev
from nodes.tier.machine.stream import StreamSettings
from nodes.tier.machine.tier import TierMachine
from pipeline.errors import WireError
from pipeline.estimator import Speed
from pipeline.placement import Tier
from pipeline.plan import NodeId, StreamId
from pipeline.profiling.profile import Profile
from pipeline.reassembly import Assembler
from pipeline.tiles.arrays import merge
from pipeline.wire import Failed, Hop, encode, encode_failure
from tests.properties.simulated_broker import Client, Step
from tests.properties.symbolic import MODEL, model_inputs, run_blocks

if TYPE_CHECKING:
    from tests.properties.cluster import Cluster

STREAM = StreamId("cam")
DEVICE = NodeId("device-1")
SEQUENCES = 1_000_000
WINDOW = 3
CHUNK_BYTES = 24
SPEED = Speed(macs_per_s=1e9, depthwise_macs_per_s=1e9, bytes_per_s=1e9, weight_bytes_per_s=1e9, operation_s=1e-3)


class TierShell(Client):
    """A tier node's shell, with its threads as queues."""

    machine: TierMachine
    speed = 0.03

    def __init__(self, cluster: Cluster, node: NodeId, tier: str) -> None:
        super().__init__(cluster.broker, node, tier)
        self.cluster = cluster

    def begin(self) -> None:
        self.loading = True
        self.failing = self.refusing = 0
        self.held: dict[int, do.Prepare] = {}
        self.topics: dict[int, list[str]] = {}
        self.workers: dict[str, deque[Any]] = {name: deque() for name in ("frames", "prepare", "compute", "publish")}
        graph = self.cluster.graph
        owned = []
        if self.node == DEVICE:
            first = 1 + SEQUENCES * (self.starts - 1)
            owned = [StreamSettings(stream=STREAM, model=MODEL, window=WINDOW, first_sequence=first)]
        self.machine = TierMachine(self.node, {MODEL: graph}, owned)
        self.inputs = Assembler(self.machine.expected)
        self.tiles = Assembler(self.machine.expected_tile)
        self.outputs = Assembler(lambda key, tensor: graph.tensors[tensor] if tensor in graph.outputs else None)

    def came_up(self) -> None:
        self.handle(ev.ConnectionRestored())

    def work(self) -> Iterator[Step]:
        if self.loading:
            if self.connected:
                yield f"{self.node} has loaded", self._introduce
            return
        for name, queue in self.workers.items():
            if queue and (self.connected or name != "publish"):
                yield f"{self.node} {name}", partial(self._work, name)

    def tick(self) -> None:
        if not self.loading:
            self.handle(ev.Tick())
            if self.connected:
                self.publish(f"telemetry/{self.node}", to_bytes({"ts": self.cluster.now}))

    def profile(self) -> Profile:
        graph = self.cluster.graph
        seconds = (0.0, *[self.speed] * (len(graph) - 1))
        return Profile(MODEL, graph.digest, "none", "1", 1, "none", seconds, seconds, sum(seconds), 0.0)

    def introduce_profile(self) -> None:
        self.keep(f"profile/{self.node}", to_bytes(self.profile().to_json()))

    def report(self, load: float) -> None:
        """Telemetry of a node that takes so many times its profile."""
        report: dict[str, float] = {"ts": self.cluster.now}
        for epoch, part in self.held.items():
            stage = part.stage
            if stage is None or part.tiled is not None:
                continue
            segment = f"segment.{STREAM}.{epoch}."
            report[f"{segment}frames"] = LEAST_FRAMES
            report[f"{segment}compute_seconds_p50"] = load * self.speed * len(stage.blocks)
        self.publish(f"telemetry/{self.node}", to_bytes(report))

    def _introduce(self) -> None:
        graph = self.cluster.graph
        self.keep(f"model/{graph.digest}", to_bytes(graph.to_json()))
        streams = {STREAM: MODEL} if self.node == DEVICE else {}
        models, speed = {MODEL: graph.digest}, SPEED.to_json()
        role = WORKER if self.node in self.cluster.workers else ""
        info = NodeInfo(self.node, self.tier, self.token, "1", "none", "1", 1, "none", models, streams, speed, role)
        self.keep(f"info/{self.node}", to_bytes(info))
        if self.cluster.cached:
            self.introduce_profile()
        else:
            self.workers["prepare"].append(None)
        self._announce({})
        self.keep(f"link/{self.node}", to_bytes(LinkReport(self.node, self.token, 1e6, 1e6, 1e-3)))
        self.subscribe("state", "applied", "plan")
        if self.node == DEVICE:
            self.tensors |= {f"result/{node}" for node in self.cluster.tiers}
        self.loading = False
        self.enter(LifeState.READY)
        self.cluster.node_came(self)

    def _announce(self, streams: Mapping[StreamId, StreamApplied]) -> None:
        for applied in streams.values():
            assert set(applied.ready) <= self.held.keys(), f"{self.node} announces {applied.ready}, has {self.held}"
        self.keep(f"applied/{self.node}", to_bytes(Applied(self.node, self.token, streams)))

    # Events in, actions out.

    def handle(self, event: ev.Event) -> None:
        actions = self.machine.handle(event, self.cluster.now)
        self.machine.validate()
        for action in actions:
            self._perform(action)

    def _perform(self, action: do.Action) -> None:
        if isinstance(action, do.AnnounceApplied):
            self._announce(action.streams)
        elif isinstance(action, do.CloseFrame):
            self.cluster.closed(action)
        elif isinstance(action, do.DropFrame):
            self.cluster.dropped(action.pending_frame)
        elif isinstance(action, do.DecodeFrame):
            self.cluster.entered(action)
            self.workers["frames"].append(action)
        elif isinstance(action, do.Prepare | do.Release):
            self.workers["prepare"].append(action)
        elif isinstance(action, do.Run):
            self.workers["compute"].append(action)
        elif isinstance(action, do.SendTensor | do.SendTile | do.SendOutput | do.SendFailure):
            self.workers["publish"].append(action)

    def arrived(self, topic: str, payload: bytes) -> None:
        kind, _, rest = topic.partition("/")
        if kind == "state":
            self.handle(ev.PeerStateArrived(border.read(topics.STATE, {"node": rest}, payload)))
        elif kind == "applied":
            self.handle(ev.PeerAppliedArrived(border.read(topics.APPLIED, {"node": rest}, payload)))
        elif kind == "plan":
            self.handle(ev.PlanArrived(border.read(topics.PLAN, {"stream": rest}, payload)))
        else:
            assembler = {"result": self.outputs, "tiled": self.tiles}.get(kind, self.inputs)
            self._bulk_arrived(assembler, NodeId(rest.partition("/")[0]), payload)

    def _bulk_arrived(self, assembler: Assembler, sender: NodeId, payload: bytes) -> None:
        try:
            got = assembler.add(sender, payload)
        except WireError:
            return
        if isinstance(got, Failed) and assembler is self.tiles:
            self.handle(ev.TileFailed(got.key, sender, got.message))
        elif isinstance(got, Failed):
            self.handle(ev.OutputFailed(got.key, sender, got.message, got.trace))
        elif got is not None and assembler is self.tiles:
            self.handle(ev.TileArrived(got.key, sender, got.array, got.trace))
        elif got is not None and assembler is self.inputs:
            self.handle(ev.TensorArrived(got.key, got.tensor, got.array, got.trace, 0.0))
        elif got is not None:
            self.handle(ev.OutputArrived(got.key, sender, got.tensor, got.array, got.trace))

    # Threads.

    def _work(self, name: str) -> None:
        threads: dict[str, Callable[[Any], None]] = {
            "frames": self._decode,
            "prepare": self._prepare,
            "compute": self._compute,
            "publish": self._publish,
        }
        threads[name](self.workers[name].popleft())

    def _decode(self, action: do.DecodeFrame) -> None:
        self.cluster.frames[action.sequence].recorded = True
        if action.pending_frame in self.cluster.broken:
            self.handle(ev.FrameUndecodable(action.stream, action.sequence, "no picture"))
        else:
            inputs = model_inputs(self.cluster.graph, action.pending_frame)
            self.handle(ev.FrameDecoded(action.stream, action.sequence, inputs, 0.0))

    def _prepare(self, action: do.Prepare | do.Release | None) -> None:
        if action is None:
            self.introduce_profile()
            return
        if isinstance(action, do.Release):
            self.held.pop(action.epoch, None)
            for assembler in (self.inputs, self.tiles):
                assembler.drop_epoch(action.stream, action.epoch)
            for topic in self.topics.pop(action.epoch, []):
                self.tensors.discard(topic)
                self.queues.pop(topic, None)
            return
        plan, graph = action.plan, self.cluster.graph
        if self.refusing:
            self.refusing -= 1
            self.handle(ev.PrepareFailed(plan.stream, plan.epoch, "out of memory"))
            return
        if action.stage is None:
            topics = [f"tile/{plan.nodes[Tier.EDGE]}/{self.node}/{plan.epoch}"]
        else:
            senders = {tensor: plan.nodes[plan.placement[graph.producer[tensor]]] for tensor in action.stage.inputs}
            topics = [f"out/{sender}/{plan.epoch}/{tensor}" for tensor, sender in senders.items()]
            topics += [f"tiled/{worker}/{plan.epoch}" for worker in plan.workers if action.tiled]
        self.topics[plan.epoch] = topics
        self.tensors |= set(topics)
        self.held[plan.epoch] = action
        self.handle(ev.Prepared(plan.stream, plan.epoch))

    def _compute(self, run: do.Run) -> None:
        part = self.held.get(run.key.epoch)
        if part is None:
            return
        if self.failing:
            self.failing -= 1
            if part.stage is not None:
                self.cluster.failed_attempts.setdefault(run.key.sequence, set()).add(run.key.attempt)
            self.handle(ev.SegmentFailed(run.key, "no luck", run.trace))
            return
        blocks, outputs = _blocks_and_outputs(part, run.work)
        inputs = dict(run.inputs)
        if run.work is Work.AFTER and part.tiled is not None:
            inputs[part.tiled.stack.output] = merge(part.tiled.tile_map, run.parts)
        values = run_blocks(self.cluster.graph, blocks, inputs)
        made = {tensor: values[tensor] for tensor in outputs}
        trace = (*run.trace, Hop(self.node, self.tier, self.cluster.now))
        self.handle(ev.SegmentRan(run.key, made, trace, run.work))

    def _publish(self, action: do.SendTensor | do.SendTile | do.SendOutput | do.SendFailure) -> None:
        epoch = action.key.epoch
        topic = f"tiled/{self.node}/{epoch}" if action.key.tile else f"result/{self.node}"
        if isinstance(action, do.SendFailure):
            self.publish(topic, encode_failure(action.key, action.message, action.trace))
            return
        if isinstance(action, do.SendTensor):
            topic = f"out/{self.node}/{epoch}/{action.tensor}"
        elif isinstance(action, do.SendTile):
            topic = f"tile/{self.node}/{action.worker}/{epoch}"
        sent = action.key, action.tensor, action.array
        for chunk in encode(*sent, codec=action.codec, trace=action.trace, chunk_bytes=CHUNK_BYTES):
            self.publish(topic, chunk)


def _blocks_and_outputs(part: do.Prepare, work: Work) -> tuple[Sequence[int], Sequence[int]]:
    if work is Work.STAGE and part.stage is not None:
        return part.stage.blocks, part.stage.outputs
    assert part.tiled is not None
    if work is Work.TILE:
        return part.tiled.stack.blocks, (part.tiled.stack.output,)
    half = part.tiled.before if work is Work.BEFORE else part.tiled.after
    return half.blocks, half.outputs
