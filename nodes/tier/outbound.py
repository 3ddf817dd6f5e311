"""Outbound messages of a tier node for its frames: tensors of the cut, outputs for the device, and results."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from broker import topics
from broker.errors import BrokerError
from broker.exactly_once import Publication
from broker.messages import Payload
from broker.session import Session
from broker.topics import Namespace
from nodes.config.sections import Config
from nodes.instruments.node_metrics import NodeMetrics
from nodes.protocol.messages import to_bytes
from nodes.protocol.reports import FRAME_OVERHEAD, WHOLE
from nodes.session.clock import PipelineClock
from nodes.session.direct import Direct
from nodes.session.packet_limit import chunk_bytes
from nodes.session.worker_thread import Worker
from nodes.tier.answer_format import AnswerFormat
from nodes.tier.codec_ratios import CodecTrials
from nodes.tier.frame_ledger import FrameLedger
from nodes.tier.frame_tracing import FrameTraces
from nodes.tier.machine.actions import CloseFrame, SendFailure, SendOutput, SendTensor, SendTile
from nodes.tier.meter import Meter
from nodes.tier.pending_frame import PendingFrame
from nodes.tier.result_json import frame_overhead_seconds, result_json
from pipeline.plan import NodeId, StreamId
from pipeline.wire import FrameKey, encode, encode_failure

_log = logging.getLogger(__name__)

TENSOR_WAIT_S = 30.0

Tensorial: TypeAlias = SendTensor | SendTile | SendOutput | SendFailure
Outgoing: TypeAlias = Tensorial | CloseFrame


class Outbound:
    """The thread that encodes and publishes; it waits while the broker is slower, and with it the stages before it."""

    def __init__(
        self,
        config: Config,
        node: NodeId,
        session: Session,
        direct: Direct,
        frame_ledger: FrameLedger,
        answers: Mapping[str, AnswerFormat],
        meter: Meter,
        clock: PipelineClock,
        metrics: NodeMetrics,
        traces: FrameTraces,
    ) -> None:
        self._metrics, self._traces = metrics, traces
        self._config, self._node, self._session, self._frame_ledger = config, node, session, frame_ledger
        self._direct, self._clock = direct, clock
        self._names = Namespace(config.pipeline)
        self._answers, self._meter = answers, meter
        self._trials = CodecTrials(meter)
        self._encoded: tuple[FrameKey, float] | None = None
        self.worker: Worker[Outgoing] = Worker(f"{node}.publish", self._publish)

    def _publish(self, action: Outgoing) -> None:
        if isinstance(action, CloseFrame):
            self._publish_result(action)
            return
        try:
            self._publish_tensor(action)
        except BrokerError as error:
            # the device submits the frame again when its output stays away
            self._meter.count("unsent_tensors_total")
            _log.warning("%s: frame %d: %s", self._node, action.key.sequence, error)

    def _publish_tensor(self, action: Tensorial) -> None:
        key, topic = action.key, self._topic_of(action)
        traceparent = self._traces.of(key)
        if isinstance(action, SendFailure):
            failure = encode_failure(key, action.message, action.trace, of_frame=action.of_frame)
            self._publish_bulk(topic, failure, None, traceparent)
            return
        most, nbytes, seconds = self._chunk_bytes, 0, 0.0
        began = time.perf_counter()
        encoded = encode(key, action.tensor, action.array, codec=action.codec, trace=action.trace, chunk_bytes=most)
        for parts in encoded.parts():
            seconds += time.perf_counter() - began
            self._publish_bulk(topic, parts, action.reader, traceparent)  # which waits while the line is slower
            nbytes += sum(map(len, parts))
            began = time.perf_counter()
        self._note_encoded(key, seconds)
        self._meter.count_of(StreamId(key.stream), "sent_bytes_total", nbytes)
        if encoded.nbytes:
            stream = StreamId(key.stream)
            self._trials.sent(stream, action.tensor, action.codec, action.array.nbytes / encoded.nbytes)
            self._trials.consider(stream, action.tensor, action.array)

    @property
    def _chunk_bytes(self) -> int:
        return chunk_bytes(self._config.transport, self._session)

    def _note_encoded(self, key: FrameKey, seconds: float) -> None:
        """Add up what a frame's tensors take; they come one after the other, so the next frame ends this one."""
        if self._encoded is not None and self._encoded[0] == key:
            seconds += self._encoded[1]
        elif self._encoded is not None:
            before, took_s = self._encoded
            self._meter.sample("encode_seconds", took_s, StreamId(before.stream))
        self._encoded = key, seconds

    def _topic_of(self, action: Tensorial) -> str:
        key = action.key
        if isinstance(action, SendOutput | SendFailure) and not key.tile:
            return self._names.topic(topics.NODE_RESULT, node=self._node, stream=key.stream)
        where: dict[str, str | int] = {"node": self._node, "stream": key.stream, "epoch": key.epoch}
        if isinstance(action, SendTensor):
            return self._names.topic(topics.OUT, **where, tensor=action.tensor)
        if isinstance(action, SendTile):
            return self._names.topic(topics.TILE, **where, worker=action.worker)
        return self._names.topic(topics.TILED, **where)

    def _publish_bulk(self, topic: str, payload: Payload, reader: NodeId | None, traceparent: str | None) -> None:
        expiry_s = self._config.transport.expiry_s
        self._direct.publish(
            topic, payload, to=reader, expiry_s=expiry_s, traceparent=traceparent, wait_s=TENSOR_WAIT_S
        )

    def _publish_result(self, close: CloseFrame) -> None:
        """The one result of a frame: never given up, however long the broker is away.

        What cannot be published as it is (an output above the packet limit) is answered with an error instead.
        """
        try:
            self._answer(close)
        except Exception as error:
            _log.exception("%s: result of frame %d", self._node, close.sequence)
            self._answer(replace(close, outputs={}, error=f"the result could not be published: {error}"))

    def _answer(self, close: CloseFrame) -> None:
        pending_frame: PendingFrame = close.pending_frame
        stream = self._config.streams[close.stream]
        output_topic = self._names.topic(topics.OUTPUT, stream=close.stream) if stream.outputs else None
        result = result_json(close, self._answers_of(close), pending_frame, self._clock.now(), output_topic)
        payload = to_bytes(result)
        traced = pending_frame.traced

        def publications() -> Sequence[Publication]:
            made = list(self._output_publications(close)) if stream.outputs else []
            if pending_frame.response_topic:
                made.append(Publication(pending_frame.response_topic, payload, pending_frame.correlation, traced))
            topic = self._names.topic(topics.RESULT, stream=close.stream)
            return [*made, Publication(topic, payload, traceparent=traced)]

        self._frame_ledger.answer(close.stream, close.sequence, pending_frame, publications)
        if close.was_alone and not close.error and not any(hop.is_compiling for hop in close.trace):
            self._meter.leg(close.stream, close.epoch, {**result["links"], WHOLE: result["seconds"]})
            self._meter.sample(FRAME_OVERHEAD, frame_overhead_seconds(result), close.stream)
        self._meter.sample("latency_seconds", result["seconds"], close.stream)
        if not close.error:
            self._metrics.frame(close.stream, result["seconds"])
        self._traces.answered(result, pending_frame.traceparent, traced)

    def _output_publications(self, close: CloseFrame) -> Iterator[Publication]:
        topic = self._names.topic(topics.OUTPUT, stream=close.stream)
        key = FrameKey(close.stream, close.epoch, close.sequence, close.attempt, oldest_open=0)
        for tensor, array in close.outputs.items():
            for chunk in encode(key, tensor, array, chunk_bytes=self._chunk_bytes):
                yield Publication(topic, chunk)
        if close.error:
            return
        sequence = str(close.sequence)
        png = self._answers_of(close).class_map(close.outputs, {"stream": close.stream, "sequence": sequence})
        if png is not None:
            yield Publication(self._names.topic(topics.CLASS_MAP, stream=close.stream), png, sequence.encode())

    def _answers_of(self, close: CloseFrame) -> AnswerFormat:
        return self._answers[close.model]
