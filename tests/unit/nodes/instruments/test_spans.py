"""A frame's way as spans, for OpenTelemetry and for Perfetto."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from broker.trace_context import traceparent_of
from nodes.config.instruments import TracingSection
from nodes.instruments.chrome_trace import to_json, write_json
from nodes.instruments.spans import frame_spans
from nodes.instruments.tracing import FrameTracer
from pipeline.errors import ConfigError, MessageError

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def stage_of(node: str, tier: str, arrived_ts: float, compute_s: float) -> dict[str, Any]:
    return {
        "node": node,
        "tier": tier,
        "arrived_ts": arrived_ts,
        "decode_seconds": 0.001,
        "queue_seconds": 0.002,
        "compute_seconds": compute_s,
        "encode_seconds": 0.0005,
    }


def result_of(sequence: int = 7, **changed: Any) -> dict[str, Any]:
    return {
        "stream": "camera",
        "sequence": sequence,
        "ok": True,
        "model": "tiny",
        "epoch": 3,
        "attempt": 1,
        "seconds": 0.06,
        "entered_ts": 1000.0,
        "path": [stage_of("device-1", "device", 1000.004, 0.02), stage_of("cloud-1", "cloud", 1000.034, 0.01)],
        "links": {"device_cloud": 0.008, "return": 0.013},
        "ts": 1e9,
        **changed,
    }


def spans_by_name(result: dict[str, Any]) -> dict[tuple[str, str], tuple[float, float]]:
    return {(s.node, s.name): (round(s.start_ts, 6), round(s.end_ts, 6)) for s in frame_spans(result).spans}


def test_spans_follow_each_other_on_the_pipelines_clock() -> None:
    found = spans_by_name(result_of())
    assert found["device-1", "frame"] == (1000.0, 1000.06)
    assert found["device-1", "decode"] == (1000.003, 1000.004)
    assert found["device-1", "compute"] == (1000.006, 1000.026)
    assert found["device-1", "device to cloud"] == (1000.026, 1000.034)
    assert found["cloud-1", "compute"] == (1000.036, 1000.046)
    assert found["cloud-1", "return"] == (1000.046, 1000.06)


def test_a_way_never_ends_before_it_begins_though_clocks_differ() -> None:
    early = result_of(path=[stage_of("d", "device", 1000.004, 0.02), stage_of("c", "cloud", 1000.0, 0.01)])
    assert all(span.end_ts >= span.start_ts for span in frame_spans(early).spans)
    assert ("d", "device to cloud") not in spans_by_name(early)


def test_a_frame_that_never_left_has_no_ways() -> None:
    alone = result_of(path=[stage_of("device-1", "device", 1000.004, 0.05)], links={})
    assert {name for _, name in spans_by_name(alone)} == {"frame", "decode", "queue", "compute"}


@pytest.mark.parametrize(
    "changed",
    [
        {"entered_ts": float("nan")},
        {"entered_ts": None},
        {"path": [{"node": "X Y"}]},
        {"path": [stage_of("d", "device", 1.0, 1.0)] * 99},
        {"sequence": -1},
        {"seconds": 1e300},
    ],
)
def test_a_result_that_cannot_be_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(MessageError, match="not a result with a frame's way"):
        frame_spans(result_of(**changed))


def test_perfetto_gets_a_process_for_each_node_and_a_pair_for_what_overlaps(tmp_path: Path) -> None:
    frames = [frame_spans(result_of(sequence)) for sequence in (7, 8)]
    write_json(frames, tmp_path / "trace.json")
    found = json.loads((tmp_path / "trace.json").read_text())
    assert found == to_json(frames)
    events = found["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert sorted(names.values()) == ["cloud-1", "device-1"]
    compute = [event for event in events if event["ph"] == "X" and event["name"] == "compute 7"]
    assert [(names[event["pid"]], round(event["dur"])) for event in compute] == [
        ("device-1", 20_000),
        ("cloud-1", 10_000),
    ]
    begun = [(e["cat"], e["name"], e["id"]) for e in events if e["ph"] == "b"]
    ended = [(e["cat"], e["name"], e["id"]) for e in events if e["ph"] == "e"]
    assert begun == ended
    assert ("link", "device to cloud", "camera.8") in begun


def test_a_trace_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere/trace\.json: No such file"):
        write_json([frame_spans(result_of())], tmp_path / "nowhere" / "trace.json")


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        (PARENT, True),
        (PARENT.upper(), False),
        (f"ff{PARENT[2:]}", False),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"{PARENT}-and-more", False),
        ("", False),
    ],
)
def test_only_a_trace_context_is_taken_for_one(value: str, is_one: bool) -> None:
    assert (traceparent_of([("n", "1"), ("traceparent", value)]) == value) is is_one


class Collector(http.server.ThreadingHTTPServer):
    """An OTLP collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"

    def spans(self) -> list[tuple[dict[str, str], Any]]:
        """Each span with its resource's attributes."""
        found = []
        for request in self.requests:
            for resource in request.resource_spans:
                about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
                found += [(about, span) for scope in resource.scope_spans for span in scope.spans]
        return found


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        assert isinstance(self.server, Collector)
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def trace(collector: Collector, given: list[str | None], every: int) -> list[str | None]:
    tracer = FrameTracer(TracingSection(endpoint=collector.endpoint, every=every), "demo", "0.1.0")
    own = []
    for sequence, parent in enumerate(given):
        own.append(tracer.traceparent(parent, sequence))
        tracer.frame(result_of(sequence), parent, own[-1])
    tracer.close()
    return own


def test_a_publishers_trace_goes_on_in_the_collector(collector: Collector) -> None:
    (own,) = trace(collector, [PARENT], every=1000)
    found = collector.spans()
    whole = next(span for _, span in found if span.name == "frame camera")
    assert whole.trace_id.hex() == TRACE
    assert whole.parent_span_id.hex() == "b7ad6b7169203331"
    assert own == f"00-{TRACE}-{whole.span_id.hex()}-01"
    parts = [span for _, span in found if span is not whole]
    assert {span.trace_id.hex() for span in parts} == {TRACE}
    assert {span.parent_span_id for span in parts} == {whole.span_id}
    computed = {about["service.instance.id"] for about, span in found if span.name == "compute"}
    assert computed == {"device-1", "cloud-1"}
    attributes = {pair.key: pair.value for pair in whole.attributes}
    assert attributes["trisect.sequence"].int_value == 0
    assert attributes["trisect.stream"].string_value == "camera"
    assert whole.start_time_unix_nano == 1000 * 10**9


def test_one_frame_in_so_many_is_traced_and_none_that_its_publisher_left_out(collector: Collector) -> None:
    left_out = f"{PARENT[:-2]}00"
    own = trace(collector, [None, None, None, left_out, None], every=4)
    assert [context is not None for context in own] == [True, False, False, True, True]
    assert own[3] == left_out
    traces = {span.trace_id for _, span in collector.spans()}
    assert len(traces) == 2


def test_a_collector_that_is_not_there_costs_spans_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    tracer = FrameTracer(TracingSection(endpoint="http://127.0.0.1:9/v1/traces", every=1), "demo", "0.1.0")
    tracer.frame(result_of(), None, tracer.traceparent(None, 0))
    tracer.close()
    assert "spans are lost" in caplog.text


def test_an_error_is_the_frames_status(collector: Collector) -> None:
    tracer = FrameTracer(TracingSection(endpoint=collector.endpoint, every=1), "demo", "0.1.0")
    tracer.frame(result_of(ok=False, error="no such image", path=[]), None, tracer.traceparent(None, 0))
    tracer.close()
    ((_, span),) = collector.spans()
    assert (span.status.code, span.status.message) == (2, "no such image")
