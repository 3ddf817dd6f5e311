"""A whole pipeline in one thread, for property tests: real machines, messages and wire format, a simulated broker.

Shells do nothing by themselves: `Cluster.steps` lists what could happen next, and the test chooses. Blocks are hashes
of their inputs, so an output is right only if the right blocks ran on the right tensors.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from nodes.tier.machine import actions as do
from nodes.tier.machine import events as ev
from nodes.tier.machine.stream import MAX_FAILURES
from pipeline.graph import ModelGraph
from pipeline.placement import Tier
from pipeline.plan import NodeId
from pipeline.wire import FrameKey, encode, encode_failure
from tests.properties.planner_shell import PlannerShell
from tests.properties.simulated_broker import Broker, Client, Step
from tests.properties.symbolic import right_outputs
from tests.properties.tier_shell import CHUNK_BYTES, DEVICE, STREAM, TierShell

TRAFFIC = 0.05


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
