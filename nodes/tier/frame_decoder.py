"""The thread that takes a device's frames in: as they came, or as inputs of models that take no pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from broker.topics import FRAME
from nodes.config.sections import StreamSection
from nodes.session.worker_thread import Worker
from nodes.tier.codec_ratios import CodecTrials
from nodes.tier.frame_ledger import FrameLedger
from nodes.tier.frame_tracing import FrameTraces
from nodes.tier.machine import actions as do
from nodes.tier.machine import events as ev
from nodes.tier.meter import Meter
from nodes.tier.pending_frame import PendingFrame
from nodes.tier.previews import Previews
from pipeline.codecs import NONE
from pipeline.errors import FrameError
from pipeline.frames.decode import Preprocess
from pipeline.frames.inputs import to_given
from pipeline.graph import ModelGraph
from pipeline.plan import NodeId, StreamId


class FrameDecoder:
    """Performs `DecodeFrame`; `emit` takes FrameDecoded or FrameUndecodable. A frame is recorded before it is read."""

    def __init__(
        self,
        node: NodeId,
        streams: Mapping[StreamId, StreamSection],
        graphs: Mapping[str, ModelGraph],
        preprocess: Mapping[str, Preprocess],
        frame_ledger: FrameLedger,
        meter: Meter,
        emit: Callable[[ev.Event], None],
        *,
        traces: FrameTraces,
        previews: Previews,
    ) -> None:
        self._streams, self._graphs, self._preprocess = streams, graphs, preprocess
        self._frame_ledger, self._meter, self._emit = frame_ledger, meter, emit
        self._trials, self._traces, self._previews = CodecTrials(meter), traces, previews
        self.worker: Worker[do.DecodeFrame] = Worker(f"{node}.frames", self._decode, on_error=self._undecodable)

    def _decode(self, action: do.DecodeFrame) -> None:
        section = self._streams[action.stream]
        model, graph = action.model, self._graphs[action.model]
        pending_frame: PendingFrame = action.pending_frame
        began = time.perf_counter()
        if pending_frame.is_recorded is None:  # else it is read again, for another version of the model
            pending_frame.entered_at = time.monotonic()
            pending_frame.traced = self._traces.entered(action.stream, action.sequence, pending_frame.traceparent)
            pending_frame.is_recorded = self._frame_ledger.entered(action.stream, action.sequence, pending_frame)
        try:
            if not pending_frame.is_recorded and section.unrecorded == "refuse":
                raise FrameError("the device cannot record frames on its disk, and its stream has unrecorded: refuse")
            if refused := pending_frame.nbytes_refused:
                raise FrameError(f"a frame of {refused:,} bytes; at most {FRAME.max_bytes:,} are taken")
            given = to_given(pending_frame.payload, graph, self._preprocess[model], section.max_pixels)
        except FrameError as error:
            self._undecodable(action, error)
        else:
            seconds = time.perf_counter() - began
            self._meter.sample("decode_seconds", seconds, action.stream)
            self._meter.count_of(action.stream, "received_bytes_total", pending_frame.nbytes)
            self._emit(ev.FrameDecoded(action.stream, action.sequence, given, seconds, model))
            for tensor, array in given.items():
                if graph.tensors[tensor].varies:
                    times_fewer = graph.tensors[tensor].nbytes / max(pending_frame.nbytes, 1)
                    self._meter.ratio(action.stream, tensor, NONE, times_fewer)
                else:
                    self._trials.consider(action.stream, tensor, array)
            self._previews.consider(action.stream, action.sequence, pending_frame.payload)

    def _undecodable(self, action: do.DecodeFrame, error: Exception) -> None:
        self._emit(ev.FrameUndecodable(action.stream, action.sequence, str(error), action.model))
