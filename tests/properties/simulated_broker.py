"""A simulated broker and the connections of a process to it, for property tests.

It keeps the order within a topic, never between topics; it loses what was under way on a connection that broke, and
forgets what it retained when told to. Nothing happens by itself: `steps` lists what could.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

from nodes.protocol.messages import LifeState, NodeState, to_bytes
from pipeline.plan import NodeId

REMEMBERED = 3
"""Messages of each connection that may be sent again, unacknowledged, when it is back."""

Step: TypeAlias = tuple[str, Callable[[], None]]


class Broker:
    """Retained messages, and one queue per client and topic."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.clients: dict[str, Client] = {}

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        if retain:
            self.retained[topic] = payload
        for client in self.clients.values():
            if topic in client.tensors if client.is_bulk(topic) else client.subscribes(topic):
                client.queue(topic, payload)


class Client:
    """One process with its connections: CONTROL, whose session outlives a blip, and BULK, whose session does not."""

    def __init__(self, broker: Broker, node: NodeId, tier: str) -> None:
        self.broker, self.node, self.tier = broker, node, tier
        self.running = self.connected = self.will_pending = self.hung = False
        self.starts = 0
        self.queues: dict[str, deque[bytes]] = {}
        self.tensors: set[str] = set()
        self.filters: tuple[str, ...] = ()
        self.broker.clients[node] = self

    # What a process does.

    def start(self) -> None:
        """A new process; what the broker held for the old one is gone, and its will is out."""
        self.fire_will()
        self.starts += 1
        self.token = f"{self.node}.{self.starts}"
        self.births = 0
        self.state = LifeState.INIT
        self.kept: dict[str, bytes] = {}
        self.sent: dict[bool, deque[tuple[str, bytes, bool]]] = {
            True: deque(maxlen=REMEMBERED),
            False: deque(maxlen=REMEMBERED),
        }
        self.filters = ()
        self.tensors = set()
        self.queues = {}
        self.running, self.hung = True, False
        self.begin()
        self.connect(resent=0)

    def begin(self) -> None:
        raise NotImplementedError

    def came_up(self) -> None:
        """All is connected and subscribed."""

    def arrived(self, topic: str, payload: bytes) -> None:
        raise NotImplementedError

    def tick(self) -> None:
        raise NotImplementedError

    def work(self) -> Iterator[Step]:
        """What its threads could do next."""
        return iter(())

    def subscribe(self, *kinds: str) -> None:
        self.filters += kinds
        self._redeliver_retained(kinds)

    def keep(self, topic: str, payload: bytes) -> None:
        self.kept[topic] = payload
        if self.connected:
            self.publish(topic, payload, retain=True)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.sent[self.is_bulk(topic)].append((topic, payload, retain))
        self.broker.publish(topic, payload, retain=retain)

    def enter(self, state: LifeState) -> None:
        self.state = state
        if self.connected:
            self.publish_state(state)

    def publish_state(self, state: LifeState) -> None:
        self.publish(f"state/{self.node}", self._state_message(state), retain=True)

    def _state_message(self, state: LifeState) -> bytes:
        return to_bytes(NodeState(self.node, self.tier, state, self.token, self.births))

    # What the network does.

    def connect(self, *, resent: int, expired: bool = False) -> None:
        """Connect again; the last `resent` messages were not acknowledged. An `expired` session has its will out."""
        if expired:
            self.fire_will()
            self.queues = {}
        self.connected, self.will_pending = True, False
        self._redeliver_retained(self.filters)
        for sent in self.sent.values():
            for topic, payload, retain in [*sent][len(sent) - min(resent, len(sent)) :]:
                self.broker.publish(topic, payload, retain=retain)
        for topic, payload in self.kept.items():
            self.publish(topic, payload, retain=True)
        self.births += 1
        self.came_up()
        self.publish_state(self.state)

    def leave(self) -> None:
        """End in order: say so, and no will."""
        self.publish_state(LifeState.STOPPED)
        self.crash()
        self.will_pending = False

    def disconnect(self, *, will: bool = True) -> None:
        self.connected, self.will_pending = False, will
        self.queues = {topic: queue for topic, queue in self.queues.items() if not self.is_bulk(topic)}

    def crash(self) -> None:
        """Kill -9."""
        if self.connected:
            Client.disconnect(self)
        self.running = False
        self.queues = {}
        self.filters = ()
        self.tensors = set()

    def fire_will(self) -> None:
        if self.will_pending:
            self.will_pending = False
            will = NodeState(self.node, self.tier, LifeState.LOST, self.token)
            self.broker.publish(f"state/{self.node}", to_bytes(will), retain=True)

    @staticmethod
    def is_bulk(topic: str) -> bool:
        return topic.startswith(("out/", "tile/", "tiled/", "result/"))

    def subscribes(self, topic: str) -> bool:
        return topic.partition("/")[0] in self.filters

    def queue(self, topic: str, payload: bytes) -> None:
        if self.connected or not self.is_bulk(topic):
            self.queues.setdefault(topic, deque()).append(payload)

    def lose(self, topic: str) -> None:
        self.queues[topic].popleft()

    def _redeliver_retained(self, kinds: Sequence[str]) -> None:
        for topic, payload in self.broker.retained.items():
            if topic.partition("/")[0] in kinds:
                self.queue(topic, payload)

    def steps(self) -> Iterator[Step]:
        if self.will_pending:
            yield f"the will of {self.node}", self.fire_will
        if not self.running or self.hung:
            return
        if self.connected:
            for topic, queue in self.queues.items():
                if queue:
                    yield f"{topic} at {self.node}", partial(self._deliver, topic)
        yield from self.work()

    def _deliver(self, topic: str) -> None:
        self.arrived(topic, self.queues[topic].popleft())
