"""Traces of frames for OpenTelemetry: a device sends the spans of one frame in so many to a collector.

The whole frame is one span; its parent is the publisher's, if the frame came with a `traceparent`. A publisher's
decision to sample or not is followed; other frames are sampled by their sequence. Spans are made of a frame's result,
when it is out; nodes only pass its context on with its tensors, for whoever else listens.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from broker.complaints import Complaints
from nodes.config.instruments import TracingSection
from nodes.instruments.spans import FrameSpans, Span, frame_spans
from pipeline.errors import ConfigError, TrisectError

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
except ImportError as error:
    raise ConfigError(
        f"tracing needs OpenTelemetry, which is not installed here: {error}", hint="pip install 'trisect[otel]'"
    ) from error

_log = logging.getLogger(__name__)

_SAMPLED: Final = 1
_EXPORT_TIMEOUT_S: Final = 3.0
_OK: Final = Status()
_KINDS: Final = {"frame": SpanKind.CONSUMER, "link": SpanKind.PRODUCER}
MOST_NODES: Final = 1_024


class _NodeResource(Resource):
    """A node's resource. The exporter hashes one for each span, and `Resource` would write its JSON each time."""

    def __hash__(self) -> int:
        return id(self)  # one object for each node

    def __eq__(self, other: object) -> bool:
        return self is other


class _Exporter(SpanExporter):
    """The OTLP exporter, whose failures are counted and said once a minute."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_S)
        self.failures = Complaints(_log)
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; those that the collector does not take are lost."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            self.failures.add(type(error).__name__, f"{len(spans)} spans are lost: {error}")
            return SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self.failures.add("refused", f"{len(spans)} spans are lost: {self._endpoint} did not take them")
        return result

    def shutdown(self) -> None:
        """End; what is being sent is given up."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


class FrameTracer:
    """Sends spans of a device's frames, from a thread of its own. Raises ConfigError without OpenTelemetry."""

    def __init__(self, section: TracingSection, pipeline: str, version: str) -> None:
        self._every, self._pipeline, self._version = section.every, pipeline, version
        self._exporter = _Exporter(section.endpoint)
        self._processor = BatchSpanProcessor(self._exporter)
        self._scope = InstrumentationScope("trisect", version)
        self._resources: dict[str, Resource] = {}
        _log.info("traces of one frame in %d go to %s", section.every, section.endpoint)

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def traceparent(self, given: str | None, sequence: int) -> str | None:
        """The context of a frame's own span, or the publisher's, where the frame is not sampled."""
        if given is None:
            if sequence % self._every:
                return None
            return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
        version, trace, _, flags = given.split("-")[:4]
        is_sampled = int(flags, 16) & _SAMPLED
        return f"{version}-{trace}-{secrets.token_hex(8)}-{flags}" if is_sampled else given

    def frame(self, result: Mapping[str, Any], given: str | None, own: str | None) -> None:
        """Send the spans of an answered frame. `own` is what `traceparent` has made of the one that was `given`."""
        if own is None or own == given:
            return
        try:
            found = frame_spans(result)
        except TrisectError as error:
            self._exporter.failures.add("result", f"a frame without spans: {error}")
            return
        parent = _context(given, is_remote=True) if given is not None else None
        whole = _context(own, is_remote=False)
        for span in found.spans:
            is_whole = span.kind == "frame"
            context = whole if is_whole else _child_of(whole)
            self._processor.on_end(self._readable(found, span, context, parent if is_whole else whole))

    def _readable(
        self, frame: FrameSpans, span: Span, context: SpanContext, parent: SpanContext | None
    ) -> ReadableSpan:
        is_whole = span.kind == "frame"
        attributes = {f"trisect.{name}": value for name, value in frame.attributes.items()} if is_whole else {}
        if is_whole:
            attributes |= {"trisect.stream": frame.stream, "trisect.sequence": frame.sequence}
        return ReadableSpan(
            name=f"frame {frame.stream}" if is_whole else span.name,
            context=context,
            parent=parent,
            resource=self._resource(span.node),
            attributes=attributes,
            kind=_KINDS.get(span.kind, SpanKind.INTERNAL),
            instrumentation_scope=self._scope,
            status=Status(StatusCode.ERROR, frame.error) if is_whole and frame.error else _OK,
            start_time=round(span.start_ts * 1e9),
            end_time=round(span.end_ts * 1e9),
        )

    def _resource(self, node: str) -> Resource:
        known = self._resources.get(node)
        if known is None:
            about = {"service.name": "trisect", "service.namespace": self._pipeline, "service.version": self._version}
            known = _NodeResource({**about, "service.instance.id": node or "unknown"})
            if len(self._resources) < MOST_NODES:
                self._resources[node] = known
        return known


def _context(traceparent: str, *, is_remote: bool) -> SpanContext:
    _, trace, span, flags = traceparent.split("-")[:4]
    return SpanContext(int(trace, 16), int(span, 16), is_remote, TraceFlags(int(flags, 16)))


def _child_of(whole: SpanContext) -> SpanContext:
    # as OpenTelemetry's own ids: no secrets, and the system's randomness costs a call for each
    return SpanContext(whole.trace_id, random.getrandbits(64) or 1, False, whole.trace_flags)
