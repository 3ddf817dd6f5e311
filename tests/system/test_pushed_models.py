"""Models by digest in a running pipeline: fetched by nodes that need them, rolled out in mid-stream, gone back from."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from broker import topics
from broker.server import Server, ServerSettings
from broker.session import Message
from broker.topics import Namespace
from nodes.cli import demo, sample_images
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from nodes.protocol.packages import versioned
from nodes.session.presence import guest_session
from pipeline import engines
from pipeline.frames.decode import Preprocess
from pipeline.frames.inputs import to_inputs
from pipeline.lite.package import Package
from pipeline.lite.sketch import Layer, Sketch, save
from pipeline.pieces.manifest import manifest_of
from tests.system.conftest import PATIENCE_S, Pipeline

MODEL = "net"


def network(side: int, classes: int) -> Sketch:
    """Three convolutions and a head; two of different sides want different inputs of one photo."""
    layers = [
        Layer("conv1", "conv", ("image",), 3, 16),
        *(Layer(f"conv{n}", "conv", (f"conv{n - 1}",), 3, 64) for n in (2, 3, 4)),
    ]
    layers[1] = Layer("conv2", "conv", ("conv1",), 3, 64)
    return Sketch(
        MODEL,
        (side, side, 3),
        (*layers, Layer("mean", "mean", ("conv4",)), Layer("head", "dense", ("mean",), 1, classes)),
    )


def trisect(*words: str, ok: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "nodes.cli", *words], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode == 0) is ok, done.stdout + done.stderr
    return done.stdout + done.stderr


def start(pipeline: Pipeline, node: str) -> None:
    """Start a node, with a cache of its own."""
    arguments = ["node", "-c", str(pipeline.config_path), "--id", node, "--state-dir", str(pipeline.folder / "state")]
    pipeline.processes.start(node, arguments, {"XDG_CACHE_HOME": str(pipeline.folder / "cache" / node)})


def is_running(client: StreamClient) -> bool:
    """Active, with its graph here, and with all nodes."""
    plan = client.plans.get(client.active or 0, {})
    return client.active is not None and plan.get("digest") in client.graphs and client.ready() >= set(demo.NODES)


def roll_out_begins(pipeline: Pipeline, digest: str) -> subprocess.Popen[bytes]:
    """A roll-out of this package in a process of its own, which the broker has just announced to all nodes."""
    announced = threading.Event()

    def on_version(message: Message) -> None:
        if digest.encode() in message.payload:
            announced.set()

    with guest_session(pipeline.config, "test") as session:
        session.start(PATIENCE_S)
        session.subscribe([Namespace(pipeline.config.pipeline).topic(topics.VERSION, model=MODEL)], on_version)
        sender = subprocess.Popen(
            [sys.executable, "-m", "nodes.cli", "model", "roll-out", MODEL, digest, "-c", str(pipeline.config_path)]
        )
        assert announced.wait(PATIENCE_S)
    return sender


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """As everywhere, with a model that is pushed; each node has a cache of its own."""
    folder = tmp_path_factory.mktemp("pushed")
    (folder / "broker").mkdir()
    save(network(32, 5), folder / "one.trisect", seed=1, preprocess="unit")
    save(network(48, 7), folder / "two.trisect", seed=2, preprocess="tf")
    (folder / "labels.txt").write_text("".join(f"thing {n}\n" for n in range(5)))
    with Server(ServerSettings(persistence_dir=folder / "broker")) as server, Processes(folder) as processes:
        path = demo.write_config(folder, MODEL, server.port)
        settings = yaml.safe_load(path.read_text())
        settings["models"] = {MODEL: {"source": "pushed"}}
        settings["streams"]["camera"]["model"] = MODEL
        settings["nodes"]["edge-1"]["store"] = True
        path.write_text(yaml.safe_dump(settings))
        whole = Pipeline(folder, path, load_config(path), server, processes, sample_images.frames(36, seed=2))
        for node in demo.NODES:
            start(whole, node)
        processes.start("planner", ["planner", "-c", str(path)])
        trisect("model", "push", str(folder / "one.trisect"), "-c", str(path), "--labels", str(folder / "labels.txt"))
        trisect("model", "roll-out", MODEL, "-c", str(path))
        yield whole


def answers(package: Path, image: bytes, mode: str) -> np.ndarray:
    """The unsplit network's."""
    model = Package(package)
    whole = engines.unsplit(engines.create("litert", 1), model)
    (found,) = whole.run(to_inputs(image, model.graph, Preprocess(size=None, mode=mode))).values()  # type: ignore[arg-type]
    return found


def test_a_version_is_rolled_out_in_mid_stream_and_nothing_is_lost(pipeline: Pipeline) -> None:
    folder, config = pipeline.folder, str(pipeline.config_path)
    with pipeline.client() as client:
        pipeline.wait(client, lambda: is_running(client))
        demo.split_in_three(client)
        for number in range(12):
            client.publish(pipeline.images[number], str(number))
        pipeline.wait(client, lambda: client.collected.whole >= 6)
        trisect("model", "push", str(folder / "two.trisect"), "-c", config)
        sender = subprocess.Popen([sys.executable, "-m", "nodes.cli", "model", "roll-out", MODEL, "-c", config])
        for number in range(12, 36):
            client.publish(pipeline.images[number], str(number))
            client.wait(lambda: client.in_flight <= demo.WINDOW, PATIENCE_S)
        assert sender.wait(PATIENCE_S) == 0
        pipeline.wait(client, lambda: client.collected.whole >= 36)
        results = {int(r["correlation"]): r for r in client.collected.results.values()}
        assert sorted(results) == list(range(36))
        assert client.collected.duplicates == 0
        first, second = (
            versioned(MODEL, manifest_of(Package(folder / f"{name}.trisect"), name=MODEL, labels=labels).digest)
            for name, labels in (("one", [f"thing {n}" for n in range(5)]), ("two", None))
        )
        used = {number: result["model"] for number, result in results.items()}
        assert used[0] == first
        assert client.plans[max(client.plans)]["model"] == second
        for number, result in results.items():
            name, mode = ("one", "unit") if used[number] == first else ("two", "tf")
            expected = answers(folder / f"{name}.trisect", pipeline.images[number], mode)
            (got,) = client.collected.outputs[result["sequence"]].values()
            np.testing.assert_array_equal(got, expected)
        assert results[0]["top"][0]["label"].startswith("thing ")


def test_a_holder_killed_amid_a_roll_out_costs_no_frame_and_the_roll_out_ends(pipeline: Pipeline) -> None:
    folder, config = pipeline.folder, str(pipeline.config_path)
    save(network(40, 6), folder / "three.trisect", seed=3, preprocess="unit")
    trisect("model", "push", str(folder / "three.trisect"), "-c", config)  # to edge-1, which keeps packages whole
    package = manifest_of(Package(folder / "three.trisect"), name=MODEL).digest
    second, third = (
        versioned(MODEL, manifest_of(Package(folder / f"{name}.trisect"), name=MODEL).digest)
        for name in ("two", "three")
    )
    with pipeline.client() as client:
        pipeline.wait(client, lambda: is_running(client))
        demo.split_in_three(client)
        client.publish(pipeline.images[0], "0")
        pipeline.wait(client, lambda: client.collected.whole >= 1)  # under the version before
        for number in range(1, 6):
            client.publish(pipeline.images[number], str(number))
        sender = roll_out_begins(pipeline, package)
        pipeline.processes.kill("edge-1")
        for number in range(6, 24):
            client.publish(pipeline.images[number], str(number))
            client.wait(lambda: client.in_flight <= demo.WINDOW, PATIENCE_S)
            if number == 12:
                start(pipeline, "edge-1")
        assert sender.wait(PATIENCE_S) == 0
        pipeline.wait(client, lambda: client.collected.whole >= 24)
        client.publish(pipeline.images[24], "24")
        pipeline.wait(client, lambda: client.collected.whole >= 25)
        results = {int(r["correlation"]): r for r in client.collected.results.values()}
        assert sorted(results) == list(range(25))
        assert client.collected.duplicates == 0
        assert (results[0]["model"], results[24]["model"]) == (second, third)
        for number, result in results.items():
            name, mode = ("two", "tf") if result["model"] == second else ("three", "unit")
            (got,) = client.collected.outputs[result["sequence"]].values()
            np.testing.assert_array_equal(got, answers(folder / f"{name}.trisect", pipeline.images[number], mode))


def test_a_package_that_cannot_be_run_is_gone_back_from(pipeline: Pipeline) -> None:
    folder, config = pipeline.folder, str(pipeline.config_path)
    broken = bytearray((folder / "one.trisect").read_bytes())
    broken[4096] ^= 0xFF  # an array's bytes, published as they are: pieces are right, the array's checksum is not
    (folder / "broken.trisect").write_bytes(broken)
    with pipeline.client() as client:
        pipeline.wait(client, lambda: client.active is not None)
        before = client.plans[max(client.plans)]["model"]
        trisect("model", "push", str(folder / "broken.trisect"), "-c", config)
        digest = manifest_of(Package(folder / "broken.trisect"), name=MODEL).digest
        said = trisect("model", "roll-out", MODEL, digest, "-c", config, ok=False)
        assert "went back" in said
        pipeline.wait(client, lambda: client.plans[client.active or 0]["model"] == before)
        client.publish(pipeline.images[0], "after")
        pipeline.wait(client, lambda: any(r["correlation"] == "after" for r in client.collected.results.values()))
    assert "is the version of" in trisect("model", "remove", digest, "-c", config, ok=False)
    assert digest in trisect("model", "list", "--json", "-c", config)
