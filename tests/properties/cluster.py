"""A whole pipeline in one thread, for property tests: real machines, messages and wire format, a simulated broker.

Shells do nothing by themselves: `Cluster.steps` lists what could happen next, and the test chooses. Blocks are hashes
of their inputs, so an output is right only if the right blocks ran on the right tensors.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from broker import topics
from nodes.planner.machine import events as pe
from nodes.planner.machine.planner import PlannerMachine, PlannerSettings
from nodes.planner.machine.stream import assignment
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
from nodes.tier.machine.stream import MAX_FAILURES, StreamSettings
from nodes.tier.machine.tier import TierMachine
from pipeline.errors import WireError
from pipeline.estimator import Speed
from pipeline.graph import ModelGraph
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.profiling.profile import Profile
from pipeline.reassembly import Assembler
from pipeline.tiles.arrays import merge
from pipeline.wire import Failed, FrameKey, Hop, encode, encode_failure
from tests.properties.simulated_broker import Broker, Client, Step
from tests.properties.symbolic import MODEL, model_inputs, right_outputs, run_blocks

STREAM = StreamId("cam")
DEVICE = NodeId("device-1")
SEQUENCES = 1_000_000
WINDOW = 3
TRAFFIC = 0.05
CHUNK_BYTES = 24
LOST_AFTER_S = 150.0  # longer than time ever passes in one step
WALL_TS = 1_760_000_000.0
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
        for chunk in encode(action.key, action.tensor, action.array, trace=action.trace, chunk_bytes=CHUNK_BYTES):
            self.publish(topic, chunk)


def _blocks_and_outputs(part: do.Prepare, work: Work) -> tuple[Sequence[int], Sequence[int]]:
    if work is Work.STAGE and part.stage is not None:
        return part.stage.blocks, part.stage.outputs
    assert part.tiled is not None
    if work is Work.TILE:
        return part.tiled.stack.blocks, (part.tiled.stack.output,)
    half = part.tiled.before if work is Work.BEFORE else part.tiled.after
    return half.blocks, half.outputs


class PlannerShell(Client):
    """The planner's shell."""

    machine: PlannerMachine
    more_wait = False

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.broker, NodeId("planner"), "planner")
        self.cluster = cluster

    def begin(self) -> None:
        settings = PlannerSettings(margin=0.1, min_seconds_between_plans=1.0, settle_s=0.5, lost_after_s=LOST_AFTER_S)
        self.machine = PlannerMachine(settings, started_at=self.cluster.now)
        self.newest: Plan | None = None
        self.state = LifeState.READY
        self.subscribe("state", "applied", "info", "link", "model", "plan", "profile", "telemetry")

    def came_up(self) -> None:
        self.handle(ev.ConnectionRestored())

    def disconnect(self, *, will: bool = True) -> None:
        super().disconnect(will=will)
        self.handle(ev.ConnectionLost())

    def tick(self) -> None:
        self.handle(ev.Tick())

    def handle(self, event: pe.PlannerEvent) -> None:
        wall_ts = WALL_TS + self.cluster.now
        actions = self.machine.handle(event, self.cluster.now, wall_ts, more_wait=self.more_wait)
        self.machine.validate()
        for action in actions:
            if isinstance(action, pe.PublishPlan):
                action.plan.check(action.graph)
                if self.newest is not None:
                    assert action.plan.epoch >= self.newest.epoch, "epochs only grow"
                    is_same = action.plan.epoch == self.newest.epoch
                    assert not is_same or assignment(action.plan) == assignment(self.newest), "an epoch is one plan"
                self.newest = action.plan
                self.cluster.plans_total += 1
                self.keep(f"plan/{STREAM}", to_bytes(action.plan.to_json(action.graph)))

    def arrived(self, topic: str, payload: bytes) -> None:
        kind, _, rest = topic.partition("/")
        readers: dict[str, Callable[[], pe.PlannerEvent]] = {
            "state": lambda: ev.PeerStateArrived(border.read(topics.STATE, {"node": rest}, payload)),
            "applied": lambda: ev.PeerAppliedArrived(border.read(topics.APPLIED, {"node": rest}, payload)),
            "info": lambda: pe.InfoArrived(border.read(topics.INFO, {"node": rest}, payload)),
            "link": lambda: pe.LinkArrived(border.read(topics.LINK, {"node": rest}, payload)),
            "model": lambda: pe.ManifestArrived(border.read(topics.MODEL, {"digest": rest}, payload)),
            "plan": lambda: pe.PlanSeen(border.read(topics.PLAN, {"stream": rest}, payload)),
            "profile": lambda: pe.ProfileArrived(NodeId(rest), border.read(topics.PROFILE, {"model": MODEL}, payload)),
            "telemetry": lambda: pe.TelemetryArrived(NodeId(rest), border.read(topics.TELEMETRY, {}, payload)),
        }
        self.handle(readers[kind]())


@dataclass(slots=True)
class Entered:
    """A frame that entered: its pending frame, whether it is in the device's journal, and how often it was closed."""

    pending_frame: int
    recorded: bool = False
    closes: int = 0
    abandoned: bool = False


@dataclass(slots=True)
class Cluster:
    """All processes, the clock, and the books on every frame. Nodes have their profile `cached`, or measure it.

    `helpers` counts the nodes that compute tiles only.
    """

    graph: ModelGraph
    edges: int
    clouds: int
    cached: bool = True
    helpers: int = 0
    now: float = 0.0
    broker: Broker = field(default_factory=Broker)
    tiers: dict[NodeId, TierShell] = field(default_factory=dict)
    offered_total: int = 0
    plans_total: int = 0
    broken: set[int] = field(default_factory=set)
    live: set[int] = field(default_factory=set)
    waiting: list[int] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    frames: dict[int, Entered] = field(default_factory=dict)
    failed_attempts: dict[int, set[int]] = field(default_factory=dict)
    planner: PlannerShell = field(init=False)

    def __post_init__(self) -> None:
        names = [(DEVICE, Tier.DEVICE)]
        names += [(NodeId(f"edge-{i + 1}"), Tier.EDGE) for i in range(self.edges)]
        names += [(NodeId(f"cloud-{i + 1}"), Tier.CLOUD) for i in range(self.clouds)]
        names += [(node, Tier.EDGE) for node in self.workers]
        for node, tier in names:
            self.tiers[node] = TierShell(self, node, tier.label)
        self.planner = PlannerShell(self)
        for client in self.clients:
            client.start()

    @property
    def workers(self) -> list[NodeId]:
        return [NodeId(f"worker-{i + 1}") for i in range(self.helpers)]

    @property
    def clients(self) -> list[Client]:
        return [*self.tiers.values(), self.planner]

    @property
    def device(self) -> TierShell:
        return self.tiers[DEVICE]

    def steps(self) -> list[Step]:
        """All that could happen next without time passing."""
        return [step for client in self.clients for step in client.steps()]

    def go_on(self, count: int, seed: int) -> None:
        """Take some steps, each chosen among those that are possible then; now and then a frame comes, or time passes.

        Traffic so goes on by itself, whatever else befalls the pipeline.
        """
        chance = random.Random(seed)
        for _ in range(count):
            if chance.random() < TRAFFIC:
                self.offer(live=chance.random() < TRAFFIC)
            if chance.random() < TRAFFIC:
                self.advance(chance.choice((0.05, 0.15, 0.5)))
            if steps := self.steps():
                chance.choice(steps)[1]()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for client in self.clients:
            if client.running and not client.hung:
                client.tick()

    # Frames. One of the stream's topic stays with the broker until it is answered, and a live one dies with its device
    # until it is recorded. What is recorded comes to the device's next process under its sequence.

    def offer(self, *, live: bool = False, broken: bool = False) -> None:
        pending_frame = self.offered_total
        self.offered_total += 1
        (self.live if live else set()).add(pending_frame)
        (self.broken if broken else set()).add(pending_frame)
        self.waiting.append(pending_frame)
        if self.device.running and not self.device.loading:
            self.device.handle(ev.FrameOffered(STREAM, pending_frame, live))
        elif live:
            self.dropped(pending_frame)

    def forge(self, pick: int, sender: NodeId, epochs_on: int, attempts_on: int, *, fails: bool) -> None:
        """An answer to an open frame in a node's name, other than the one that is asked of it."""
        owner = self.device.machine.owners[STREAM]
        submitted = [sequence for sequence, frame in owner.open.items() if frame.submitted]
        if not submitted:
            return
        sequence = submitted[pick % len(submitted)]
        frame = owner.open[sequence]
        epoch, attempt = max(1, frame.epoch + epochs_on), max(1, frame.attempt + attempts_on)
        asked = frame.submitted.get(attempt)
        if asked is not None and asked.epoch == epoch and sender in asked.nodes.values():
            return
        key = FrameKey(STREAM, epoch, sequence, attempt, oldest_open=min(owner.open))
        tensor = self.graph.outputs[pick % len(self.graph.outputs)]
        array = np.zeros(self.graph.tensors[tensor].shape, self.graph.tensors[tensor].dtype)
        forged = [encode_failure(key, "forged")] if fails else encode(key, tensor, array, chunk_bytes=CHUNK_BYTES)
        for chunk in forged:
            self.broker.publish(f"result/{sender}", chunk)

    def node_came(self, shell: TierShell) -> None:
        if shell is self.device:
            earlier = {frame.pending_frame: sequence for sequence, frame in self.frames.items() if frame.recorded}
            for pending_frame in [*self.waiting]:
                shell.handle(ev.FrameOffered(STREAM, pending_frame, False, earlier.get(pending_frame)))

    def device_died(self) -> None:
        for frame in self.frames.values():
            frame.abandoned = frame.abandoned or not (frame.closes or frame.recorded)
        recorded = {frame.pending_frame for frame in self.frames.values() if frame.recorded}
        for pending_frame in [pending_frame for pending_frame in self.waiting if pending_frame in self.live - recorded]:
            self.dropped(pending_frame)

    def dropped(self, pending_frame: int) -> None:
        self.waiting.remove(pending_frame)
        self.gone.add(pending_frame)

    def entered(self, action: do.DecodeFrame) -> None:
        known = self.frames.setdefault(action.sequence, Entered(action.pending_frame))
        again = known.recorded and not known.closes and known.pending_frame == action.pending_frame
        assert again or known == Entered(action.pending_frame), f"sequence {action.sequence} entered twice: {known}"

    def closed(self, close: do.CloseFrame) -> None:
        """Laws 1 and 3, for one frame."""
        frame = self.frames[close.sequence]
        frame.closes += 1
        assert frame.closes == 1, f"frame {close.sequence} was closed twice"
        assert not frame.abandoned, f"frame {close.sequence} was closed by a process that is dead"
        assert frame.pending_frame == close.pending_frame
        self.waiting.remove(close.pending_frame)
        if close.error:
            tried = self.failed_attempts.get(close.sequence, set())
            undecodable = close.pending_frame in self.broken
            assert undecodable or len(tried) >= MAX_FAILURES, f"gave up {close.sequence} after attempts {tried}"
            return
        right = right_outputs(self.graph, close.pending_frame)
        assert close.outputs.keys() == right.keys()
        for tensor, array in right.items():
            assert np.array_equal(close.outputs[tensor], array), f"frame {close.sequence}: tensor {tensor} is wrong"

    # Faults end.

    def heal(self) -> None:
        for client in self.clients:
            client.hung = False
            if not client.running:
                client.start()
            elif not client.connected:
                client.connect(resent=0)
        for shell in self.tiers.values():
            shell.failing = shell.refusing = 0

    def settle(self, limit_s: float, at_least_s: float = 0.0, step_s: float = 0.25) -> None:
        """Let everything run until no frame waits any more."""
        began = self.now
        while True:
            self.drain()
            elapsed = self.now - began
            if elapsed >= at_least_s and not self.waiting:
                return
            assert elapsed < limit_s, f"frames {self.waiting} are open {limit_s} s after all faults ended"
            self.advance(step_s if elapsed < 20 * step_s else 20 * step_s)

    def drain(self, limit: int = 5000) -> None:
        """Take steps, in turn over all that is possible, until there are none."""
        taken = 0
        while steps := self.steps():
            for _, step in steps[:1]:
                step()
            taken += 1
            assert taken < limit, f"still busy after {limit} steps: {[name for name, _ in steps]}"
