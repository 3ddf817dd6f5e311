"""What a pipeline says of one stream, read and checked: results, and the output tensors that belong to them."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

from broker import topics
from broker.session import Channel, Message, Session
from broker.topics import Namespace
from nodes.client.answers import Answer, answer_of
from nodes.protocol.border import Border
from pipeline.errors import TrisectError
from pipeline.graph import ModelGraph, Tensor
from pipeline.plan import Plan, StreamId
from pipeline.reassembly import Assembler
from pipeline.wire import Array, FrameKey, Received

MOST_APART = 256
"""Frames of which a part may be here and the other not: outputs come before their result."""
MOST_EARLY = 64
"""Chunks of outputs kept while their model is not known."""


class OutputReader:
    """Chunks on `output/<stream>` become tensors, checked against the model of their plan.

    `note_plan` and `note_model` are for what the broker retains. One thread calls.
    """

    def __init__(self) -> None:
        self._digests: dict[int, str] = {}
        self._graphs: dict[str, ModelGraph] = {}
        self._assembler = Assembler(self._expected)

    def note_plan(self, plan: Plan) -> bool:
        """Know the model of this epoch. Returns False when that model is still to come."""
        self._digests[plan.epoch] = plan.digest
        return plan.digest in self._graphs

    def note_model(self, graph: ModelGraph) -> None:
        """Know a model's outputs."""
        self._graphs[graph.digest] = graph

    @property
    def newest(self) -> ModelGraph | None:
        """The model of the newest plan."""
        return self._graphs.get(self._digests.get(max(self._digests, default=0), ""))

    def add(self, payload: bytes) -> Received | None:
        """Take one chunk; returns the tensor when it is whole. Raises WireError."""
        received = self._assembler.add("device", payload)
        return received if isinstance(received, Received) else None

    def _expected(self, key: FrameKey, tensor: int) -> Tensor | None:
        # frames of the plan before may be on their way when this reader comes
        digest = self._digests.get(key.epoch) or self._digests.get(max(self._digests, default=0))
        graph = self._graphs.get(digest or "")
        return graph.tensors[tensor] if graph is not None and tensor in graph.outputs else None


class StreamReader:
    """Subscribes to a stream and gives each of its answers once, whole, to `on_answer`, in a network thread.

    Without `with_outputs`, for one who may not read them, an answer is its result alone.
    """

    def __init__(
        self,
        session: Session,
        names: Namespace,
        stream: StreamId,
        border: Border,
        on_answer: Callable[[Answer], None],
        *,
        with_outputs: bool = True,
    ) -> None:
        self.stream, self._border, self._on_answer, self._with_outputs = stream, border, on_answer, with_outputs
        self._session, self._names = session, names
        self._early: deque[Message] = deque(maxlen=MOST_EARLY)
        self._outputs = OutputReader()
        self._lock = threading.Lock()  # a result may also come from another thread, with the way of replies
        self._tensors: OrderedDict[int, dict[int, Array]] = OrderedDict()
        self._results: OrderedDict[int, Mapping[str, Any]] = OrderedDict()
        self._given: OrderedDict[int, None] = OrderedDict()
        handlers: dict[str, Callable[[Message], None]] = {
            names.filter(topics.MODEL): self._on_model,
            names.topic(topics.PLAN, stream=stream): self._on_plan,
            names.topic(topics.OUTPUT, stream=stream): self._on_output,
            names.topic(topics.RESULT, stream=stream): self._on_result,
        }
        for topic, handler in handlers.items():
            # on the connection whose session the broker keeps while this client is away: no result may be missed
            session.subscribe([topic], handler, channel=Channel.CONTROL)

    @property
    def graph(self) -> ModelGraph | None:
        """The manifest of the stream's model; None while no plan is known."""
        return self._outputs.newest

    def take(self, result: Mapping[str, Any]) -> None:
        """A result that came another way: the copy for its publisher."""
        with self._lock:
            sequence = result["sequence"]
            if sequence in self._given or sequence in self._results:
                return
            _keep(self._results, sequence, result)
            answer = self._whole(sequence)
        if answer is not None:
            self._on_answer(answer)

    def _on_result(self, message: Message) -> None:
        result = self._border.read(message)
        if result is not None:
            self.take(result)

    def _on_plan(self, message: Message) -> None:
        plan: Plan | None = self._border.read(message)
        if plan is not None and not self._outputs.note_plan(plan):
            # some brokers, as RabbitMQ, hand out what they retain to exact topics only
            topic = self._names.topic(topics.MODEL, digest=plan.digest)
            self._session.subscribe([topic], self._on_model, channel=Channel.CONTROL)

    def _on_model(self, message: Message) -> None:
        graph: ModelGraph | None = self._border.read(message)
        if graph is None:
            return
        self._outputs.note_model(graph)
        early = list(self._early)
        self._early.clear()
        for waiting in early:
            self._on_output(waiting)

    def _on_output(self, message: Message) -> None:
        if self._outputs.newest is None:
            self._early.append(message)
            return
        try:
            received = self._outputs.add(message.payload)
        except TrisectError as error:
            self._border.refuse(message.topic, str(error))
            return
        if received is None:
            return
        with self._lock:
            sequence = received.key.sequence
            if sequence in self._given:
                return
            if sequence not in self._tensors:
                _keep(self._tensors, sequence, {})
            self._tensors[sequence][received.tensor] = received.array
            answer = self._whole(sequence) if sequence in self._results else None
        if answer is not None:
            self._on_answer(answer)

    def _whole(self, sequence: int) -> Answer | None:
        """The answer, once the result and each tensor that it says was published are here."""
        result = self._results[sequence]
        published = result.get("outputs", ()) if self._with_outputs else ()
        wanted = {output["tensor"]: output["name"] for output in published if "topic" in output}
        tensors = self._tensors.get(sequence, {})
        if not tensors.keys() >= wanted.keys():
            return None
        del self._results[sequence]
        self._tensors.pop(sequence, None)
        _keep(self._given, sequence, None)
        arrays = {name: tensors[tensor] for tensor, name in wanted.items()}
        return answer_of(self.stream, result, arrays or None)


def _keep(table: OrderedDict[int, Any], sequence: int, value: Any) -> None:
    table[sequence] = value
    if len(table) > MOST_APART:
        table.popitem(last=False)
