"""Watches one stream for demos and measurements: collects each result with its output tensors, and keeps count."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from broker import topics
from broker.session import Channel, Message, Session
from broker.topics import Namespace
from nodes.client.stream_reader import OutputReader
from nodes.config.sections import Config
from nodes.protocol.border import Border
from nodes.protocol.messages import Applied, LifeState, NodeState, parse_json
from nodes.session.presence import guest_session
from pipeline.errors import TrisectError
from pipeline.graph import ModelGraph
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.wire import Array


@dataclass(slots=True)
class Collected:
    """Collected answers: the first of `results` and `outputs` by sequence, and the number of `messages`."""

    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    arrivals: dict[int, float] = field(default_factory=dict)
    messages: Counter[int] = field(default_factory=Counter)
    outputs: dict[int, dict[int, Array]] = field(default_factory=dict)

    @property
    def whole(self) -> int:
        """Frames whose result is in, with its output tensors unless it is an error."""
        return sum(sequence in self.outputs or not result["ok"] for sequence, result in self.results.items())

    @property
    def duplicates(self) -> int:
        """Results that came more than once."""
        return sum(self.messages.values()) - len(self.messages)


class StreamClient:
    """Watches a running pipeline and feeds one of its streams; a context that ends its session.

    For programs that want answers, see `nodes.client.client.Client`.
    """

    def __init__(self, config: Config, stream: StreamId) -> None:
        self.config, self.stream = config, stream
        self.names = Namespace(config.pipeline)
        self.collected = Collected()
        self.states: dict[NodeId, NodeState] = {}
        self.applied: dict[NodeId, Applied] = {}
        self.plans: dict[int, dict[str, Any]] = {}
        self.activations: list[int] = []
        self.graphs: dict[str, ModelGraph] = {}
        self._sent = 0
        self._changed = threading.Condition()
        self._outputs = OutputReader()
        self._border = Border(self.names)
        self.session: Session = guest_session(config, "client")

    def __enter__(self) -> StreamClient:
        subscribe, names = self.session.subscribe, self.names
        handlers: dict[str, Callable[[Message], None]] = {
            names.topic(topics.RESULT, stream=self.stream): self._on_result,
            names.topic(topics.OUTPUT, stream=self.stream): self._on_output,
        }
        for topic, handler in handlers.items():
            # on the connection whose session the broker keeps while this client is away: no result may be missed
            subscribe([topic], handler, channel=Channel.CONTROL)
        subscribe([names.filter(topics.STATE)], self._on_state)
        subscribe([names.filter(topics.APPLIED)], self._on_applied)
        subscribe([names.topic(topics.PLAN, stream=self.stream)], self._on_plan)
        subscribe([names.filter(topics.MODEL)], self._on_model)
        self.session.start(10.0)
        return self

    def __exit__(self, *_: object) -> None:
        self.session.stop()

    def publish(self, frame: bytes, name: str) -> None:
        """Send a frame; its result carries `name` as correlation."""
        topic = self.names.topic(topics.FRAME, stream=self.stream)
        self.session.publish(topic, frame, channel=Channel.BULK, correlation=name.encode(), wait_s=None)
        with self._changed:
            self._sent += 1

    @property
    def in_flight(self) -> int:
        """Frames sent that have no result yet."""
        return self._sent - len(self.collected.results)

    @property
    def active(self) -> int | None:
        """The epoch that the device stamps on new frames."""
        return self.activations[-1] if self.activations else None

    def wait(self, condition: Callable[[], bool], timeout_s: float, poll: Callable[[], object] = lambda: None) -> bool:
        """Wait until `condition` holds; `poll` is called every 0.2 s and may raise."""
        give_up = time.monotonic() + timeout_s
        while time.monotonic() < give_up:
            with self._changed:
                if self._changed.wait_for(condition, 0.2):
                    return True
            poll()
        return condition()

    def ready(self) -> set[NodeId]:
        """The nodes that say they are ready."""
        return {node for node, state in self.states.items() if state.state is LifeState.READY}

    def _on_result(self, message: Message) -> None:
        result = self._border.read(message)
        if result is None:
            return
        sequence = result["sequence"]
        with self._changed:
            self.collected.messages[sequence] += 1
            self.collected.results.setdefault(sequence, result)
            self.collected.arrivals.setdefault(sequence, time.monotonic())
            self._changed.notify_all()

    def _on_output(self, message: Message) -> None:
        try:
            received = self._outputs.add(message.payload)
        except TrisectError as error:
            self._border.refuse(message.topic, str(error))
            return
        if received is not None:
            with self._changed:
                self.collected.outputs.setdefault(received.key.sequence, {})[received.tensor] = received.array
                self._changed.notify_all()

    def _on_state(self, message: Message) -> None:
        state = self._border.read(message)
        if state is not None:
            self._note(self.states, state)

    def _on_applied(self, message: Message) -> None:
        applied: Applied | None = self._border.read(message)
        if applied is None:
            return
        self._note(self.applied, applied)
        held = applied.streams.get(self.stream)
        if held is not None and held.active is not None and held.active != self.active:
            with self._changed:
                self.activations.append(held.active)
                self._changed.notify_all()

    def _note(self, table: dict[NodeId, Any], message: NodeState | Applied) -> None:
        with self._changed:
            table[message.node] = message
            self._changed.notify_all()

    def _on_plan(self, message: Message) -> None:
        plan = self._border.read(message)
        if isinstance(plan, Plan):
            self._outputs.note_plan(plan)
            with self._changed:
                self.plans[plan.epoch] = parse_json(message.payload)
                self._changed.notify_all()

    def _on_model(self, message: Message) -> None:
        graph: ModelGraph | None = self._border.read(message)
        if graph is not None:
            self.graphs[graph.digest] = graph
            self._outputs.note_model(graph)
