"""Instruments on a pipeline of real processes: metrics, discovery, traces, a load test, a recording."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.ports import free_port
from broker.server import Server
from broker.session import Channel
from nodes.cli import demo, sample_images
from nodes.client.processes import Processes
from nodes.config.loader import load_config
from nodes.instruments.recording import Recording
from tests.system.conftest import PATIENCE_S, Pipeline
from tests.unit.nodes.instruments.test_metrics import samples_of
from tests.unit.nodes.instruments.test_spans import Collector

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port("127.0.0.1")


@pytest.fixture(scope="module")
def instrumented(
    tmp_path_factory: pytest.TempPathFactory, collector: Collector, metrics_port: int
) -> Iterator[Pipeline]:
    """The demo's pipeline with all instruments on, ready, with a plan."""
    folder = tmp_path_factory.mktemp("pipeline")
    with Server() as server, Processes(folder) as processes:
        path = demo.write_config(folder, "mobilenet_v2", server.port)
        values = yaml.safe_load(path.read_text())
        values["nodes"]["device-1"]["metrics"] = {"port": metrics_port}
        values["streams"]["camera"]["plan"] = {"planner": "cloud-only"}
        values |= {"home_assistant": True, "tracing": {"endpoint": collector.endpoint, "every": 1_000_000}}
        path.write_text(yaml.safe_dump(values))
        made = Pipeline(folder, path, load_config(path), server, processes, sample_images.frames(4, seed=1))
        for name in ("planner", *demo.NODES):
            made.start(name)
        with made.client() as client:
            made.wait(client, lambda: client.ready() >= set(demo.NODES) and client.active is not None)
        yield made


def trisect(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nodes.cli", *arguments], capture_output=True, text=True, timeout=240, check=False
    )


def eventually(condition: Callable[[], Any]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.2)


def test_a_load_test_is_recorded_traced_and_scraped(instrumented: Pipeline, metrics_port: int, tmp_path: Path) -> None:
    config = ["-c", str(instrumented.config_path)]
    record = ["record", *config, "-o", str(tmp_path / "file"), "--frames", "--seconds", "600"]
    trace = ["trace", *config, "-o", str(tmp_path / "trace.json"), "--frames", "3", "--timeout-s", "200"]
    with Processes(tmp_path) as processes:
        processes.start("record", record)
        processes.start("trace", trace)
        measure = ["--concurrency", "2", "--warm-up-s", "0", "--window-s", "1", "--windows", "3", "--stable", "1"]
        reports = ["--json", str(tmp_path / "run.json"), "--html", str(tmp_path / "run.html")]
        loaded = trisect("bench", "load", "camera", *config, *measure, *reports)
        assert loaded.returncode == 0, loaded.stderr
        if not (tmp_path / "trace.json").exists():  # it may have come up after the load test
            published = trisect("publish", *config, *[str(p) for p in photos(instrumented, 3)])
            assert published.returncode == 0, published.stderr
        eventually((tmp_path / "trace.json").exists)
        eventually(lambda: (tmp_path / "file").exists() and (tmp_path / "file").stat().st_size > 100_000)
        processes.stop("record")
    (level,) = json.loads((tmp_path / "run.json").read_text())["levels"]
    assert level["frames"] > 0
    assert level["errors"] == 0
    assert level["breakdown"]["stages"][0]["node"] == "device-1"
    assert level["breakdown"]["frame"]["predicted_latency_seconds"] > 0
    assert "device-1" in (tmp_path / "run.html").read_text()
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert len({event["id"] for event in events if event.get("cat") == "frame"}) == 3
    assert any(event["name"].startswith("compute") for event in events)
    with Recording(tmp_path / "file") as recording:
        kinds = {message.topic.split("/")[-1 if "/node/" in message.topic else 3] for message in recording}
    assert not recording.is_cut
    assert {"state", "telemetry", "plan", "model"} <= kinds
    with urllib.request.urlopen(scrape(metrics_port), timeout=60) as answer:
        found = samples_of(answer.read().decode())
    assert found.of("trisect_frame_seconds_count", "camera") >= level["frames"]
    assert found.of("trisect_node_up", "device-1", "device") == 1


def photos(pipeline: Pipeline, count: int) -> list[Path]:
    paths = [pipeline.folder / f"photo-{number}.jpg" for number in range(count)]
    for path, image in zip(paths, pipeline.images, strict=False):
        path.write_bytes(image)
    return paths


def scrape(port: int) -> urllib.request.Request:
    return urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"Accept": "application/openmetrics-text"}
    )


def test_a_publishers_trace_goes_through_the_pipeline_to_the_collector(
    instrumented: Pipeline, collector: Collector
) -> None:
    contexts: list[str | None] = []
    between: set[str | None] = set()
    with instrumented.client() as client:
        client.session.subscribe(
            ["trisect/v1/demo/result/camera"], lambda message: contexts.append(message.traceparent)
        )
        for tensors in ("out/camera/+/+", "result/camera"):
            client.session.subscribe(
                [f"trisect/v1/demo/node/+/{tensors}"], lambda message: between.add(message.traceparent)
            )
        frame = instrumented.images[0]
        given = f"00-{TRACE}-b7ad6b7169203331-01"
        topic = "trisect/v1/demo/frame/camera"
        client.session.publish(topic, frame, channel=Channel.BULK, correlation=b"traced", traceparent=given)
        instrumented.wait(client, lambda: len(client.collected.results) == 1 and bool(contexts))
    eventually(lambda: any(span.trace_id.hex() == TRACE for _, span in collector.spans()))
    spans = [(about, span) for about, span in collector.spans() if span.trace_id.hex() == TRACE]
    whole = next(span for _, span in spans if span.name == "frame camera")
    own = f"00-{TRACE}-{whole.span_id.hex()}-01"
    assert contexts == [own]
    assert between == {own}  # from the device to the cloud, and back
    assert "cloud-1" in {about["service.instance.id"] for about, span in spans if span.name == "compute"}


def test_every_node_is_discovered_by_home_assistant(instrumented: Pipeline) -> None:
    found: dict[str, Any] = {}

    def learn(topic: str, payload: bytes) -> None:
        found[topic.split("/")[2]] = json.loads(payload)

    with instrumented.client() as client:
        client.session.subscribe(["homeassistant/device/+/config"], lambda m: learn(m.topic, m.payload))
        instrumented.wait(client, lambda: len(found) == len(demo.NODES))
    assert found.keys() == {f"trisect-demo-{node}" for node in demo.NODES}
    assert "camera_answer" in found["trisect-demo-device-1"]["cmps"]
