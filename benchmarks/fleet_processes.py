"""A fleet around a real planner and a real broker: nodes played by a few processes, each many of them.

They publish what nodes publish (states, infos, profiles, links, telemetry once a second) and take plans as nodes do:
each says which epochs it has seen and prepared, and the stream's device makes the plan active.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import psutil
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.fleet import Fleet, Member
from broker import topics
from broker.server import Server, ServerSettings
from broker.topics import Namespace
from nodes.client.processes import Processes
from nodes.planner.machine import events as pe
from nodes.protocol.messages import Applied, LifeState, Report, StreamApplied, to_bytes
from nodes.protocol.reports import segment_metric
from nodes.tier.machine.events import PeerStateArrived
from pipeline.models.graphs import shipped_graph
from pipeline.placement import Tier
from pipeline.plan import NodeId, StreamId

PIPELINE = "fleet"
PLAYERS = 2
APPLY_S = 0.1
"""What a node has prepared is said so often, in one message."""
PATIENCE_S = 300.0
STEADY_S = 20.0
SETTLED_S = 3.0
"""Without a new plan for so long, all that had to be decided is."""
MOST_REASONS = 5
"""Plans changed in steady state whose reasons are printed."""


class Player:
    """Some nodes of a fleet in one process: what they say, and what they have prepared."""

    def __init__(self, port: int, model: str, shape: tuple[int, int, int], number: int, orders: Connection) -> None:
        self.graph = shipped_graph(model)
        self.fleet, self.names, self._orders = Fleet(self.graph, *shape), Namespace(PIPELINE), orders
        nodes = list(self.fleet.members.values())
        self.members = {member.node: member for member in nodes[number::PLAYERS]}
        self.silent: set[NodeId] = set()
        self.plans: dict[StreamId, dict[str, Any]] = {}
        self.applied: dict[NodeId, dict[StreamId, StreamApplied]] = {node: {} for node in self.members}
        self._changed: set[NodeId] = set()
        self._lock = threading.Lock()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, f"player-{number}", protocol=mqtt.MQTTv5)
        self.client.on_message = lambda _client, _data, message: self._take(json.loads(message.payload))
        self.client.max_inflight_messages_set(1000)
        self.client.connect("127.0.0.1", port)
        self.client.subscribe(self.names.filter(topics.PLAN), qos=1)
        self.client.loop_start()

    def run(self) -> None:
        """Join, and report each second, the nodes one after the other, until told to stop."""
        for member in self.members.values():
            for event in self.fleet.joins(member):
                self._say(event)
        self._orders.send("joined")
        order = list(self.members)
        began, at, applied_at = time.monotonic(), 0, 0.0
        while not self._obeys():
            now = time.monotonic()
            while at < (now - began) * len(order):
                self._report(self.members[order[at % len(order)]])
                at += 1
            if now >= applied_at + APPLY_S:
                applied_at = now
                self._apply()
            time.sleep(0.005)
        self.client.loop_stop()

    def _obeys(self) -> bool:
        while self._orders.poll():
            order, nodes, factor = self._orders.recv()
            if order == "stop":
                return True
            for node in set(nodes) & self.members.keys():
                member = self.members[node]
                if order == "rate":
                    self.members[node] = replace(member, rate=member.rate * factor)
                    continue
                life = LifeState.LOST if order == "lose" else LifeState.READY
                self.silent = self.silent - {node} if order == "join" else self.silent | {node}
                self._say(PeerStateArrived(self.fleet.state(member, life)))
        return False

    def _take(self, plan: dict[str, Any]) -> None:
        """See, prepare and, on the stream's device, make active."""
        stream, epoch = StreamId(plan["stream"]), plan["epoch"]
        with self._lock:
            self.plans[stream] = plan
            device = _stage(plan, Tier.DEVICE)
            for node in self.members.keys() & _nodes(plan):
                is_device = device is not None and node == device["node"]
                active, holds = (epoch, (epoch,)) if is_device else (None, ())
                self.applied[NodeId(node)][stream] = StreamApplied(epoch, (epoch,), {}, active, holds)
                self._changed.add(NodeId(node))

    def _apply(self) -> None:
        with self._lock:
            changed = [(node, dict(self.applied[node])) for node in self._changed - self.silent]
            self._changed &= self.silent
        for node, streams in changed:
            self._publish(topics.APPLIED, to_bytes(Applied(node, "one", streams)), node=node)

    def _report(self, member: Member) -> None:
        plan = self.plans.get(member.stream) if member.stream else None
        if member.node in self.silent:
            return
        report: Report = self.fleet.telemetry(member, {}).report
        values: dict[str, float] = {f"link.{name}": getattr(report.link, name) for name in report.link.__slots__}
        if plan is not None and member.stream is not None:
            device = _stage(plan, Tier.DEVICE)
            blocks = [at for start, stop in device["blocks"] for at in range(start, stop)] if device else []
            own = sum(self.graph.blocks[at].macs + 1e4 for at in blocks)
            values[segment_metric(member.stream, plan["epoch"], "frames")] = 3
            values[segment_metric(member.stream, plan["epoch"], "compute_seconds_p50")] = own / member.speed
        self._publish(topics.TELEMETRY, json.dumps(values).encode(), node=member.node)

    def _say(self, event: pe.PlannerEvent) -> None:
        match event:
            case PeerStateArrived(state):
                self._publish(topics.STATE, to_bytes(state), node=state.node)
            case pe.InfoArrived(info):
                self._publish(topics.INFO, to_bytes(info), node=info.node)
            case pe.ProfileArrived(node, profile):
                self._publish(topics.PROFILE, to_bytes(profile.to_json()), node=node, model=profile.model)
            case pe.LinkArrived(report):
                self._publish(topics.LINK, to_bytes(report), node=report.node)
            case _:
                raise AssertionError(f"nodes do not say {event}")

    def _publish(self, kind: topics.Topic, payload: bytes, **fields: str) -> None:
        self.client.publish(self.names.topic(kind, **fields), payload, kind.qos, kind.retain)


def _stage(plan: dict[str, Any], tier: Tier) -> dict[str, Any] | None:
    return next((stage for stage in plan["stages"] if stage["tier"] == tier.label), None)


def _nodes(plan: dict[str, Any]) -> set[str]:
    return {stage["node"] for stage in plan["stages"]}


def play(port: int, model: str, shape: tuple[int, int, int], number: int, orders: Connection) -> None:
    """A player's process."""
    with suppress(KeyboardInterrupt):
        Player(port, model, shape, number, orders).run()


class Watcher:
    """What the planner publishes, with the moments at which it came."""

    def __init__(self, port: int) -> None:
        self.names = Namespace(PIPELINE)
        self.plans: dict[StreamId, tuple[float, dict[str, Any]]] = {}
        self.changed_at: list[float] = []
        self.reasons: list[tuple[StreamId, str]] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, "watcher", protocol=mqtt.MQTTv5)
        self.client.on_message = lambda _client, _data, message: self._take(json.loads(message.payload))
        self.client.connect("127.0.0.1", port)
        self.client.subscribe(self.names.filter(topics.PLAN), qos=1)
        self.client.loop_start()

    def _take(self, plan: dict[str, Any]) -> None:
        known, now = self.plans.get(StreamId(plan["stream"])), time.monotonic()
        if known is None or known[1]["epoch"] != plan["epoch"]:
            self.reasons.append((StreamId(plan["stream"]), plan["reason"].partition("; predicted")[0]))
            self.changed_at.append(now)
            self.plans[StreamId(plan["stream"])] = now, plan

    def with_nodes(self, nodes: Iterable[str]) -> set[StreamId]:
        """Streams whose plan has one of these nodes."""
        wanted = set(nodes)
        return {stream for stream, (_, plan) in list(self.plans.items()) if wanted & _nodes(plan)}

    def wait(self, condition: Callable[[], bool]) -> bool:
        """Wait for a condition; False if it does not come true in PATIENCE_S."""
        give_up = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > give_up:
                return False
            time.sleep(0.02)
        return True

    def settled(self, since: float) -> bool:
        """True when no plan has changed for SETTLED_S, nor in as long since a moment."""
        return time.monotonic() > max([since, *self.changed_at[-1:]]) + SETTLED_S


def run(model: str, streams: int, edges: int, clouds: int) -> None:
    """Start everything, take it through the changes, and print what each took."""
    shape = streams, edges, clouds
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as an installed planner has it
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trisect-fleet-")))
        server = stack.enter_context(Server(ServerSettings(persistence_dir=folder)))
        path = folder / "planner.yaml"
        settings = {
            "pipeline": PIPELINE,
            "broker": {"host": "127.0.0.1", "port": server.port},
            "models": {model: {"source": model, "weights": "seed:0"}},
            # one of each will do: the planner hears of all from themselves
            "nodes": {"device-0": {"tier": "device"}},
            "streams": {"camera-0": {"device": "device-0", "model": model}},
        }
        path.write_text(yaml.safe_dump(settings))
        watcher = Watcher(server.port)
        graph = shipped_graph(model)
        topic = watcher.names.topic(topics.MODEL, digest=graph.digest)
        watcher.client.publish(topic, to_bytes(graph.to_json()), 1, retain=True).wait_for_publish(PATIENCE_S)
        pipes = [multiprocessing.Pipe() for _ in range(PLAYERS)]
        spawn = multiprocessing.get_context("spawn")
        players = [
            spawn.Process(target=play, args=(server.port, model, shape, number, there), daemon=True)
            for number, (_, there) in enumerate(pipes)
        ]
        for player in players:
            player.start()
        orders = [here for here, _ in pipes]
        for here in orders:
            here.recv()
        time.sleep(2.0)  # what was queued is at the broker
        processes = stack.enter_context(Processes(folder))
        began = time.monotonic()
        planner = psutil.Process(processes.start("planner", ["planner", "-c", str(path)]))
        try:
            _measure(watcher, planner, orders, streams, edges, began)
        finally:
            for here in orders:
                here.send(("stop", (), 0.0))
            for player in players:
                player.join(10)


def _measure(
    watcher: Watcher,
    planner: psutil.Process,
    orders: Sequence[Connection],
    streams: int,
    edges: int,
    began: float,
) -> None:
    print("| what | measured |\n|---|---|", flush=True)
    watcher.wait(lambda: bool(watcher.plans))
    first_spent_s = _spent_s(planner)
    if not watcher.wait(lambda: len(watcher.plans) == streams):
        print(f"| first plans | {len(watcher.plans)} of {streams} within {PATIENCE_S:.0f} s |", flush=True)
        return
    first_s = min(watcher.changed_at) - began
    all_spent_s = _spent_s(planner)
    print(f"| first plans | the first {first_s:.1f} s after the planner's start, all {_since(watcher, began)} |")
    print(f"| the planner's processor until then | {first_spent_s:.1f}, {all_spent_s:.1f} s |", flush=True)
    watcher.wait(lambda: watcher.settled(time.monotonic() - SETTLED_S))
    print(f"| settled | after {time.monotonic() - began:.0f} s, {_spent_s(planner):.1f} s of processor |", flush=True)
    time.sleep(5.0)
    taken, at = _spent_s(planner), time.monotonic()
    changes = len(watcher.changed_at)
    time.sleep(STEADY_S)
    core = (_spent_s(planner) - taken) / (time.monotonic() - at)
    memory = planner.memory_info().rss / 1e6
    print(f"| steady | {core:.2f} of a core, {memory:.0f} MB, {len(watcher.changed_at) - changes} plans changed |")
    for stream, reason in watcher.reasons[changes:][:MOST_REASONS]:
        print(f"| | {stream}: {reason} |", flush=True)
    names = [NodeId(f"edge-{place}") for place in range(edges)]
    third = names[1 : 1 + max(1, edges // 3)]
    for what, order, nodes, factor in (
        ("an edge's link falls to a hundredth", "rate", names[:1], 0.01),
        ("its link is back", "rate", names[:1], 100.0),
        (f"{len(third)} of {edges} edges die", "lose", third, 0.0),
        (f"{len(third)} join again", "join", third, 0.0),
    ):
        affected, at, changes = watcher.with_nodes(nodes), time.monotonic(), len(watcher.changed_at)
        for here in orders:
            here.send((order, nodes, factor))
        if order == "lose":
            watcher.wait(lambda nodes=nodes: not watcher.with_nodes(nodes))  # type: ignore[misc]
            replanned = f", all replanned after {_since(watcher, at)}"
        else:
            replanned = ""
        watcher.wait(lambda at=at: watcher.settled(at + SETTLED_S))  # type: ignore[misc]
        text = f"{len(affected)} streams had it{replanned}; {len(watcher.changed_at) - changes} new plans"
        print(f"| {what} | {text}, the last after {_since(watcher, at)} |", flush=True)


def _spent_s(process: psutil.Process) -> float:
    """Processor seconds that a process has had."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _since(watcher: Watcher, at: float) -> str:
    return f"{max([at, *watcher.changed_at[-1:]]) - at:.1f} s"
