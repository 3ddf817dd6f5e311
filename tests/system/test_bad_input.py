"""What a person gets wrong at the start: a clear error that says what and where, and no traceback."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from broker.ports import free_port
from broker.server import Server, ServerSettings
from broker.session import Address, Session
from nodes.cli import demo, sample_images
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from nodes.session.packet_limit import check_packet_limit
from pipeline.errors import ConfigError
from tests.commands import trisect

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nodes.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def assert_error(run: subprocess.CompletedProcess[str], *texts: str) -> None:
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    for text in texts:
        assert text in run.stderr


def test_a_wrong_yaml_key_is_named_with_file_and_line(tmp_path: Path) -> None:
    path = demo.write_config(tmp_path, "mobilenet_v2", 1883)
    path.write_text(path.read_text().replace("threads:", "treads:", 1))
    assert_error(trisect("planner", "-c", str(path)), str(path), "nodes.device-1.treads", "did you mean threads?")


def test_a_missing_configuration_is_said(tmp_path: Path) -> None:
    assert_error(trisect("watch", "--once", "-c", str(tmp_path / "none.yaml")), "none.yaml")


def test_a_taken_port_is_said() -> None:
    with Server(ServerSettings()) as server:
        assert_error(process("broker", "--port", str(server.port)), str(server.port), "taken")


def test_an_open_broker_for_the_world_is_refused() -> None:
    assert_error(process("broker", "--host", "0.0.0.0", "--port", "0"), "password_file")


def test_a_broker_that_is_not_there_is_waited_for_and_named(tmp_path: Path) -> None:
    port = free_port("127.0.0.1")
    path = demo.write_config(tmp_path, "mobilenet_v2", port)
    assert_error(trisect("plan", "-c", str(path)), f"127.0.0.1:{port}")
    log = tmp_path / "planner.log"
    with log.open("wb") as file:
        planner = subprocess.Popen([sys.executable, "-m", "nodes.cli", "planner", "-c", str(path)], stderr=file)
    try:
        give_up = time.monotonic() + 30
        while f"no MQTT broker answers at 127.0.0.1:{port}" not in log.read_text() and time.monotonic() < give_up:
            time.sleep(0.1)
        assert "keeps trying" in log.read_text()
        with Server(ServerSettings(port=port)):
            while "planner (planner) is ready" not in log.read_text() and time.monotonic() < give_up:
                time.sleep(0.1)
            assert "planner (planner) is ready" in log.read_text()
    finally:
        planner.terminate()
        planner.wait(20)


def test_a_node_with_an_unknown_model_ends_with_the_nearest_names(tmp_path: Path) -> None:
    with Server(ServerSettings()) as server:
        path = demo.write_config(tmp_path, "mobilenet_v3", server.port)
        assert_error(process("node", "--id", "edge-1", "-c", str(path)), "did you mean mobilenet_v2")


def test_a_node_with_a_model_without_a_graph_ends_with_the_layer_and_the_reason(tmp_path: Path) -> None:
    code = """
import keras, sys
@keras.saving.register_keras_serializable()
class Net(keras.Model):
    def __init__(self, **k):
        super().__init__(**k); self.d = keras.layers.Dense(3)
    def call(self, x):
        return self.d(x)
m = Net(); m(keras.ops.zeros((1, 4))); m.save(sys.argv[1])
"""
    model = tmp_path / "net.keras"
    subprocess.run([sys.executable, "-c", code, str(model)], check=True, capture_output=True)
    with Server(ServerSettings()) as server:
        path = demo.write_config(tmp_path, str(model), server.port)
        assert_error(process("node", "--id", "edge-1", "-c", str(path)), "net.keras")


def test_a_packet_limit_below_any_chunk_is_said_with_both_numbers() -> None:
    with Server(ServerSettings(max_packet_bytes=17_000)) as server:
        session = Session(Address(server.host, server.port), name="edge-1", token="1").start(30.0)
        with pytest.raises(ConfigError, match=r"accepts 17,000 bytes .* need 20,480: raise max_packet_size"):
            check_packet_limit(session)
        session.stop()


def test_an_unknown_node_and_stream_are_named_with_the_known_ones(tmp_path: Path) -> None:
    path = demo.write_config(tmp_path, "mobilenet_v2", 1883)
    assert_error(process("node", "--id", "edge-7", "-c", str(path)), "edge-7", "device-1, edge-1, cloud-1")
    photo = tmp_path / "x.jpg"
    photo.write_bytes(b"")
    assert_error(trisect("publish", "-c", str(path), "--stream", "kitchen", str(photo)), "kitchen", "camera")


def test_nodes_with_different_models_are_told_apart_by_both_digests(tmp_path: Path) -> None:
    """The edge has other weights: it takes no part, and whoever asks for it is told why; the device goes on."""
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(sample_images.frames(1)[0])
    with Server(ServerSettings()) as server, Processes(tmp_path) as processes:
        path = demo.write_config(tmp_path, "mobilenet_v2", server.port)
        other = tmp_path / "other.yaml"
        other.write_text(path.read_text().replace("seed:0", "seed:1"))
        state = ["--state-dir", str(tmp_path / "state")]
        processes.start("planner", ["planner", "-c", str(path)])
        processes.start("device-1", ["node", "-c", str(path), "--id", "device-1", *state])
        processes.start("edge-1", ["node", "-c", str(other), "--id", "edge-1"])
        with StreamClient(load_config(path), demo.STREAM) as client:
            ready = client.wait(
                lambda: client.ready() >= {demo.DEVICE, demo.EDGE} and client.active is not None, 100, processes.check
            )
            assert ready, processes.log("planner").read_text()
        placed = trisect("place", "-c", str(path), "--edge-from", "20")
        assert_error(placed, "no usable edge node", "edge-1 has another model 'mobilenet_v2'")
        assert "differs between nodes: device-1 has" in processes.log("planner").read_text()
        assert trisect("publish", "-c", str(path), str(photo)).returncode == 0
