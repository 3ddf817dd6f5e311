"""Valid messages of all kinds, mutated, into living machines: whatever comes, they go on and their laws hold.

A simulated cluster (`cluster`) runs; a hostile client sends to its nodes what it has overheard, changed a little. A
machine that raises, or whose state is not valid afterwards, is dead.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from broker.messages import Channel, Message
from nodes.planner.machine import events as pe
from nodes.planner.node import read_objective_request, read_placing
from nodes.tier.machine import actions as do
from nodes.tier.machine import events as ev
from pipeline.errors import TrisectError
from tests.graphs import chain
from tests.properties.cluster import Cluster, Entered
from tests.properties.mutations import Mutations
from tests.properties.simulated_broker import Broker, Client
from tests.properties.symbolic import planned_anyhow, symbolic
from tests.properties.tier_shell import STREAM, TierShell

MOST_HEARD = 64
"""Messages of each kind that the hostile client has overheard, the newest."""
REQUESTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("place", {"stream": STREAM, "edge_from": "1", "cloud_from": "2", "auto": False, "tiles": None}),
    ("place", {"stream": STREAM, "edge_from": "1", "tiles": {"grid": "1x2", "stack": "1:1", "workers": []}}),
    ("place", {"stream": STREAM, "auto": True}),
    ("objective", {"stream": STREAM, "plan_request": None}),
    (
        "objective",
        {
            "stream": STREAM,
            "plan_request": {
                "planner": "hpa",
                "objective": "latency=1,backbone=0.05",
                "constraints": {
                    "raw_stays_on": "edge",
                    "min_depth": 1,
                    "pin": {"1": "edge"},
                    "forbid": {"2": ["cloud"]},
                    "exclude_nodes": ["edge-2"],
                    "upload_limit_mb": {"device_edge": 100.0},
                    "time_limit": {"cloud": "30%", "edge": "5"},
                },
            },
        },
    ),
)


class Overheard(Broker):
    """A broker whose messages a hostile client hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: dict[str, list[tuple[str, bytes]]] = {}

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        of_kind = self.heard.setdefault(topic.partition("/")[0], [])
        of_kind.append((topic, payload))
        del of_kind[:-MOST_HEARD]
        super().publish(topic, payload, retain=retain)


@dataclass(slots=True)
class Besieged(Cluster):
    """A cluster under attack: a forged answer from the right node under the right names is an answer, right or not."""

    closed_total: int = 0

    def closed(self, close: do.CloseFrame) -> None:
        self.closed_total += 1
        if close.pending_frame in self.waiting:
            self.waiting.remove(close.pending_frame)

    def entered(self, action: do.DecodeFrame) -> None:
        self.frames.setdefault(action.sequence, Entered(action.pending_frame))


@dataclass(slots=True)
class Fuzz:
    """A run of mutated messages, the same for the same seed. `deaths` are by the error and the kind of message."""

    seed: int
    chance: random.Random = field(init=False)
    mutations: Mutations = field(init=False)
    cluster: Besieged = field(init=False)
    broker: Overheard = field(init=False)
    sent: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    closed_before: int = 0
    examples: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.mutations = Mutations(self.chance)
        self.begin()

    def begin(self) -> None:
        """A new cluster, as after a restart of everything."""
        self.closed_before = self.closed_total
        graph = symbolic(chain(*[8] * self.chance.choice((4, 5))))
        self.broker = Overheard()
        self.cluster = Besieged(graph, 1, 1, helpers=2, broker=self.broker)
        self.cluster.settle(60.0, at_least_s=3.0)
        tiles = pe.TilesByHand("1x2", "2:2", ())
        if self.chance.random() < 0.5:
            self.cluster.planner.handle(pe.PlaceRequested(STREAM, None, "1", None, tiles=tiles))
        self.cluster.offer()
        self.cluster.settle(60.0, at_least_s=1.0)

    @property
    def closed_total(self) -> int:
        """Frames answered so far."""
        return self.closed_before + (self.cluster.closed_total if hasattr(self, "cluster") else 0)

    def run(self, count: int, *, restart_every: int = 2_500) -> None:
        """Send so many messages, while frames come and plans change."""
        with planned_anyhow():
            for number in range(count):
                if number and number % restart_every == 0:
                    self.begin()
                self.step()

    def step(self) -> None:
        """One mutated message, and a little of what goes on anyway."""
        if self.chance.random() < 0.05:
            self._live("a request", self._request)
        else:
            self._live("a message", self._message)
        if self.chance.random() < 0.12:
            self._live("work", lambda: self.cluster.go_on(3, self.chance.randrange(10**9)))

    def _live(self, what: str, happens: Callable[[], None]) -> None:
        try:
            happens()
        except TrisectError:
            self.refused["under way"] += 1  # what a forged message made one node say to others
        except Exception as error:  # any error at all is what this looks for
            trace, where = error.__traceback__, ""
            while trace is not None:
                where = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
                trace = trace.tb_next
            name = f"{type(error).__name__} at {where}: {error!s:.80}"
            self.deaths[name] += 1
            self.examples.setdefault(name, self._last)
            self.begin()

    _last: tuple[str, bytes] = ("", b"")

    def _message(self) -> None:
        heard = self.broker.heard
        kind = self.chance.choice(sorted(heard))
        topic, payload = self.chance.choice(heard[kind])
        self.sent[kind] += 1
        mutated = payload if self.chance.random() < 0.1 else self.mutations.mutated(payload)
        if self.chance.random() < 0.1:
            topic = f"{kind}/{self.chance.choice(('evil', 'edge-1', 'device-1', 'planner', 'cam'))}"
        self._last = topic, mutated
        readers = [client for client in self.cluster.clients if client.running and self._reads(client, kind)]
        self.cluster.planner.more_wait = self.chance.random() < 0.9  # as in its shell: one decision for several events
        for client in self.chance.sample(readers, min(2, len(readers))):
            try:
                client.arrived(topic, mutated)
            except TrisectError:
                self.refused[kind] += 1

    @staticmethod
    def _reads(client: Client, kind: str) -> bool:
        return isinstance(client, TierShell) if client.is_bulk(f"{kind}/") else kind in client.filters

    def _request(self) -> None:
        verb, request = self.chance.choice(REQUESTS)
        self.sent["cmd"] += 1
        payload = self.mutations.mutated(json.dumps(request).encode())
        self._last = f"cmd/{verb}", payload
        message = Message("cmd", payload, False, Channel.CONTROL, None, None, lambda: None)
        try:
            event = (read_placing if verb == "place" else read_objective_request)(message)
        except TrisectError:
            self.refused["cmd"] += 1
            return
        self.cluster.planner.more_wait = False
        self.cluster.planner.handle(event)
        self.cluster.planner.handle(ev.Tick())
