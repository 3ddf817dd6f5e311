"""What instruments cost: a scrape with many streams, traces of all frames, and a load test against the device's count.

    python benchmarks/instruments.py scrape [--streams 50]
    python benchmarks/instruments.py spans
    python benchmarks/instruments.py tracing [--rounds 5]
    python benchmarks/instruments.py load [--rounds 3]

`spans` is the processor's time that a device spends on the spans of a frame over one node and over three, a collector
in the same process included. `tracing` runs pipelines of real processes next to each other, with and without traces,
and puts them under load in turn; a round's ratio is that of two neighbouring measurements. `load` compares the load
tool's frames a second with the device's own counter, over the interval between its first and last report within.
"""

from __future__ import annotations

import argparse
import http.server
import itertools
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from broker.server import Server
from nodes.cli import demo, sample_images
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.instruments import MetricsSection, TracingSection
from nodes.config.loader import load_config
from nodes.instruments.measured import Measured
from nodes.instruments.prometheus import MetricsServer
from nodes.load.generator import Level, Patience
from nodes.load.run import run
from nodes.protocol.messages import LifeState, NodeInfo
from pipeline.plan import NodeId

REPORT: dict[str, Any] = {
    **{f"{name}_total": 123_456 for name in ("sent_bytes", "received_bytes", "reconnects", "refused", "frames")},
    **{"resident_bytes": 8e8, "processor_share": 0.9, "threads": 20, "queue_depth": 1, "queued_bytes": 0},
    **{"link.up_bytes_per_s": 9e6, "link.down_bytes_per_s": 8e6, "link.round_trip_s": 1e-3},
}
STREAM = ("frames_total", "frames_in_total", "results_total", "resubmitted_total", "in_flight", "backlog", "epoch")
STAGES = ("decode", "queue", "compute", "encode", "latency", "frame_overhead")


def scrape(streams: int) -> None:
    """Seconds of a scrape over HTTP, with a device for each stream, ten edges and three clouds that compute all."""
    measured = Measured()
    devices = [f"device-{number}" for number in range(streams)]
    others = [*(f"edge-{n}" for n in range(10)), *(f"cloud-{n}" for n in range(3))]
    for number, node in enumerate([*devices, *others]):
        tier = node.split("-")[0]
        held = [number] if node in devices else range(number % 10, streams, 10)
        report = dict(REPORT)
        for stream in held:
            prefix = f"stream.camera-{stream}."
            report |= {f"{prefix}{name}": 1 for name in STREAM}
            report |= {f"{prefix}{stage}_seconds_{p}": 0.01 for stage in STAGES for p in ("p50", "p95")}
        measured.set_state(node, tier, LifeState.READY)
        measured.learn_info(NodeInfo(NodeId(node), tier, "s", "0.1.0", "litert", "2", 1, "x86", {}))
        measured.learn_report(node, report)
    for stream in range(streams):
        measured.learn_frame(f"camera-{stream}", 0.03)
    with MetricsServer(MetricsSection(port=0), measured) as server:
        accepts = ("application/openmetrics-text; version=1.0.0", "text/plain")
        for accept, encoding in itertools.product(accepts, ("identity", "gzip")):
            headers = {"Accept": accept, "Accept-Encoding": encoding}
            request = urllib.request.Request(f"http://127.0.0.1:{server.port}/metrics", headers=headers)
            took, used, nbytes = [], [], 0
            for _ in range(40):
                began, processor = time.perf_counter(), time.process_time()
                with urllib.request.urlopen(request, timeout=30) as answer:
                    nbytes = len(answer.read())
                took.append(time.perf_counter() - began)
                used.append(time.process_time() - processor)
            print(
                f"{accept:45s} {encoding:8s} {streams} streams, {len(devices) + len(others)} nodes, "
                f"{nbytes / 1e3:.0f} kB: "
                f"median {statistics.median(took) * 1e3:.1f} ms, of the processor {statistics.median(used) * 1e3:.1f}, "
                f"least {min(took) * 1e3:.1f}"
            )


class _Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def collector() -> Iterator[str]:
    """A collector that takes all and keeps nothing; yields its URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Sink) as sink:
        threading.Thread(target=sink.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{sink.server_port}/v1/traces"
        sink.shutdown()


def spans(nodes: int, frames: int = 2_000) -> None:
    """Milliseconds of the processor for a frame's spans: all of them, and those of the thread that publishes."""
    from nodes.instruments.tracing import FrameTracer

    parts = ("decode", "queue", "compute", "encode")
    path = [
        {"node": f"{tier}-1", "tier": tier, "arrived_ts": 1e9 + 0.01 * i, **{f"{part}_seconds": 2e-3 for part in parts}}
        for i, tier in enumerate(("device", "edge", "cloud")[:nodes])
    ]
    links = {"device_edge": 4e-3, "edge_cloud": 4e-3, "return": 3e-3} if nodes == 3 else {}
    result = {
        "stream": "camera",
        "epoch": 1,
        "ok": True,
        "seconds": 0.05,
        "entered_ts": 1e9,
        "path": path,
        "links": links,
    }
    with collector() as endpoint:
        tracer = FrameTracer(TracingSection(endpoint=endpoint, every=1), "bench", "0")
        whole, publishing = time.process_time(), time.thread_time()
        for sequence in range(frames):
            tracer.frame(result | {"sequence": sequence}, None, tracer.traceparent(None, sequence))
            time.sleep(1e-3)  # else the exporter's queue is full, and spans are dropped
        publishing = time.thread_time() - publishing
        tracer.close()
        whole = time.process_time() - whole
    whole_ms, publishing_ms = whole / frames * 1e3, publishing / frames * 1e3
    print(f"{nodes} nodes: {whole_ms:.2f} ms a frame, {publishing_ms:.2f} of them in the publishing thread")


@contextmanager
def pipeline_of(changes: dict[str, Any]) -> Iterator[Path]:
    """A running demo pipeline with these keys in its configuration; yields the configuration's path."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Server())
        processes = stack.enter_context(Processes(folder))
        path = demo.write_config(folder, "mobilenet_v2", server.port)
        values = yaml.safe_load(path.read_text()) | changes
        values["streams"]["camera"]["outputs"] = False
        # where frames go should not change between two measurements
        values["streams"]["camera"]["plan"] = {"planner": "device-only"}
        values["nodes"]["device-1"]["standby"] = False
        path.write_text(yaml.safe_dump(values))
        for name in ("planner", *demo.NODES):
            identity = [] if name == "planner" else ["--id", str(name), "--state-dir", str(folder / "state")]
            processes.start(str(name), ["planner" if name == "planner" else "node", "-c", str(path), *identity])
        with StreamClient(load_config(path), demo.STREAM) as client:
            client.wait(lambda: client.active is not None, 300.0)
        time.sleep(5.0)
        yield path


def measure(path: Path, seconds: float, concurrency: int = 4) -> dict[str, Any]:
    """One level of load on a pipeline that runs."""
    patience = Patience(warm_up_s=1.0, window_s=seconds / 3, most_windows=3, stable_share=1.0)
    frames = sample_images.frames(16)
    found = run(
        load_config(path),
        demo.STREAM,
        [Level(concurrency=concurrency)],
        frames,
        patience,
        name="",
        frames_from="",
        console=Console(quiet=True),
    )
    level: dict[str, Any] = found["levels"][0]
    return level


def tracing(rounds: int, seconds: float) -> None:
    """Ratios of frames a second with traces to those without, for all frames and for one in 100."""
    with ExitStack() as stack:
        endpoint = stack.enter_context(collector())
        plain = stack.enter_context(pipeline_of({}))
        traced = {
            every: stack.enter_context(pipeline_of({"tracing": {"endpoint": endpoint, "every": every}}))
            for every in (1, 100)
        }
        ratios: dict[int, list[float]] = {every: [] for every in traced}
        for number in range(rounds):
            for every, path in traced.items():
                order = [plain, path] if number % 2 else [path, plain]
                rates = {id(one): measure(one, seconds)["frames_per_second"] for one in order}
                ratios[every].append(rates[id(path)] / rates[id(plain)])
                print(
                    f"round {number}, 1 in {every}: {rates[id(path)]:.1f} and {rates[id(plain)]:.1f} frames/s",
                    flush=True,
                )
        for every, found in ratios.items():
            median = statistics.median(found)
            print(f"1 in {every}: median ratio {median:.3f} of {rounds} rounds, {min(found):.3f} to {max(found):.3f}")


def load(rounds: int, seconds: float) -> None:
    """The load tool's numbers next to the device's."""
    with pipeline_of({"telemetry": {"interval_s": 0.1}}) as path:
        for number in range(rounds):
            level = measure(path, seconds)
            tool, device = level["frames_per_second"], level["device"]["frames_per_second"]
            print(
                f"round {number}: {tool:.2f} frames/s by the tool, {device:.2f} by the device "
                f"({tool / device - 1:+.2%}); "
                f"p50 {level['client_seconds']['p50'] * 1e3:.1f} ms at the client, "
                f"{level['device_seconds']['p50'] * 1e3:.1f} in the device",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["scrape", "spans", "tracing", "load"])
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=12.0)
    asked = parser.parse_args()
    if asked.what == "scrape":
        scrape(asked.streams)
    elif asked.what == "spans":
        for nodes in (1, 3):
            spans(nodes)
    elif asked.what == "tracing":
        tracing(asked.rounds, asked.seconds)
    else:
        load(asked.rounds, asked.seconds)
