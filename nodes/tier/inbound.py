"""Inbound messages of a tier node, turned into events for its machine.

Handlers run in network threads, where nothing may wait: JSON is small and read at once, tensors go to the decode
thread's bounded queue. All of it is held against its declared ranges here, and against its topic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

from broker import topics
from broker.session import Channel, Message, Session
from broker.topics import Namespace
from nodes.protocol.border import Border
from nodes.session.tensor_handler import Piece, TensorHandler
from nodes.session.worker_thread import Worker
from nodes.tier.frame_tracing import FrameTraces
from nodes.tier.machine import events as ev
from nodes.tier.machine.tier import TierMachine
from nodes.tier.meter import Meter
from nodes.tier.tensor_topics import TensorSubscription
from pipeline.errors import WireError
from pipeline.plan import NodeId, StreamId
from pipeline.reassembly import Assembler
from pipeline.wire import Failed, Received

QUEUED_MESSAGES = 4096

Emit: TypeAlias = Callable[[ev.Event], None]


class Inbound:
    """The subscriptions of a tier node and the thread that decodes tensors; `emit` takes the events."""

    def __init__(
        self,
        node: NodeId,
        names: Namespace,
        machine: TierMachine,
        streams: Iterable[StreamId],
        meter: Meter,
        emit: Emit,
        border: Border,
        traces: FrameTraces,
    ) -> None:
        self._traces = traces
        self._node, self._names, self._meter, self._emit, self._border = node, names, meter, emit, border
        self._streams = tuple(streams)
        self._inputs = Assembler(machine.expected)
        self._tiles = Assembler(machine.expected_tile)
        self._outputs = Assembler(machine.expected_output)
        # the assemblers belong to its thread
        self.worker: Worker[Callable[[], None]] = Worker(f"{node}.decode", lambda job: job(), limit=QUEUED_MESSAGES)

    def subscribe(self, session: Session) -> None:
        """Everything that does not depend on a plan."""
        events: dict[topics.Topic, Callable[[Any], ev.Event]] = {
            topics.STATE: ev.PeerStateArrived,
            topics.APPLIED: ev.PeerAppliedArrived,
            topics.PLAN: ev.PlanArrived,
        }
        for kind, event in events.items():
            session.subscribe([self._names.filter(kind)], partial(self._on_json, event))
        outputs = self._handler(self._outputs, self._author)
        for stream in self._streams:
            results = self._names.filter(topics.NODE_RESULT, stream=stream)
            session.subscribe([results], outputs, channel=Channel.BULK)

    def subscribe_bulk(self, session: Session, subscription: TensorSubscription) -> None:
        """One topic of a plan's tensors or tiles."""
        assembler = self._tiles if subscription.of_tiles else self._inputs
        handler = self._handler(assembler, lambda topic: subscription.sender)
        session.subscribe([subscription.topic], handler, channel=Channel.BULK)

    def _on_json(self, event: Callable[[Any], ev.Event], message: Message) -> None:
        if not message.payload:
            self._on_cleared(message.topic)
            return
        if (read := self._border.read(message)) is not None:
            self._emit(event(read))

    def _on_cleared(self, topic: str) -> None:
        parsed = self._names.parse(topic)
        if parsed is not None and parsed[0] is topics.STATE:
            self._emit(ev.PeerForgotten(NodeId(parsed[1]["node"])))

    def _handler(self, assembler: Assembler, sender_of: Callable[[str], str | None]) -> TensorHandler:
        return TensorHandler(assembler, sender_of, partial(self._queue, assembler))

    def _author(self, topic: str) -> str | None:
        parsed = self._names.parse(topic)
        return None if parsed is None else parsed[1]["node"]

    def _queue(self, assembler: Assembler, topic: str, sender: str, piece: Piece, traceparent: str | None) -> None:
        # what finds no room is lost here, and its frame submitted again
        if not self.worker.offer(partial(self._decode, assembler, NodeId(sender), topic, piece, traceparent)):
            self._meter.count("overrun_messages_total")

    def forget_epoch(self, stream: StreamId, epoch: int) -> None:
        """Drop what is not whole of an epoch that was let go."""
        for assembler in (self._inputs, self._tiles):
            self.worker.put(partial(assembler.drop_epoch, stream, epoch))

    def _decode(self, assembler: Assembler, sender: NodeId, topic: str, piece: Piece, traceparent: str | None) -> None:
        try:
            got = assembler.add(sender, piece)
        except WireError as error:
            self._meter.count("wire_errors_total")
            self._border.refuse(topic, str(error))
            return
        if got is None:
            return
        if assembler is not self._outputs:  # those end at the device, which knows its frames' traces
            self._traces.arrived(got.key, traceparent)
        if not isinstance(got, Failed):
            self._meter.count_of(StreamId(got.key.stream), "received_bytes_total", got.nbytes)
        self._emit(self._event(assembler, sender, got))

    def _event(self, assembler: Assembler, sender: NodeId, got: Received | Failed) -> ev.Event:
        if assembler is self._tiles:
            if isinstance(got, Failed):
                return ev.TileFailed(got.key, sender, got.message)
            return ev.TileArrived(got.key, sender, got.array, got.trace)
        if isinstance(got, Failed):
            return ev.OutputFailed(got.key, sender, got.message, got.trace, got.of_frame)
        if assembler is self._inputs:
            return ev.TensorArrived(got.key, got.tensor, got.array, got.trace, got.decode_seconds)
        return ev.OutputArrived(got.key, sender, got.tensor, got.array, got.trace)
