"""A pipeline's messages, recorded from a real broker and played on another one."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker import topics
from broker.server import Server
from broker.session import Address, Session
from broker.topics import Namespace, Topic
from nodes.client.processes import Processes
from nodes.config.loader import load_config
from nodes.instruments.record import Kept, Recorder, configuration_of
from nodes.protocol.messages import Applied, LifeState, LinkReport, NodeInfo, NodeState, StreamApplied, to_bytes
from nodes.watch.app import snapshot
from pipeline.profiling.profile import Profile
from tests.integration.conftest import PATIENCE_S, eventually
from tests.unit.nodes.watch.feed import (
    CLOUD,
    DEVICE,
    EDGE,
    GRAPH,
    MODEL,
    PLANNER,
    TELEMETRY,
    TIERS,
    plan_of,
    result_of,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
NAMES = Namespace("demo")


@pytest.fixture(scope="module")
def config_path(module_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = {
        "pipeline": "demo",
        "broker": {"port": module_server.port},
        "models": {MODEL: {"source": "mobilenet_v2"}},
        "streams": {"camera": {"device": "device-1", "model": MODEL}},
        "nodes": {str(node): {"tier": tier} for node, tier in TIERS.items() if node != PLANNER},
        "planner": {"settle_s": 0.1},
    }
    path = tmp_path_factory.mktemp("recorded") / "demo.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def say_all(session: Session) -> None:
    """What three nodes and a planner say while epoch 3 runs."""

    def say(kind: Topic, message: Any, **fields: str) -> None:
        session.publish(NAMES.topic(kind, **fields), to_bytes(message), qos=kind.qos, retain=kind.retain)

    say(topics.MODEL, GRAPH.to_json(), digest=GRAPH.digest)
    for node in (DEVICE, EDGE, CLOUD, PLANNER):
        say(topics.STATE, NodeState(node, TIERS[node], LifeState.READY, "s1", 1, "pi", 42, 1e9), node=node)
    for node in (DEVICE, EDGE, CLOUD):
        streams = {plan_of(3).stream: MODEL} if node == DEVICE else {}
        info = NodeInfo(node, TIERS[node], "s1", "0.1.0", "litert", "2", 1, "x86", {MODEL: GRAPH.digest}, streams)
        say(topics.INFO, info, node=node)
        say(topics.LINK, LinkReport(node, "s1", 12.5e6, 45e6, 1.2e-3), node=node)
        seconds = (0.0, *[0.001] * (len(GRAPH.blocks) - 1))
        profile = Profile(MODEL, GRAPH.digest, "litert", "2", 1, "x86", seconds, seconds, sum(seconds), 1e9)
        say(topics.PROFILE, profile.to_json(), node=node, model=MODEL)
        held = StreamApplied(3, (3,), active=3 if node == DEVICE else None)
        say(topics.APPLIED, Applied(node, "s1", {plan_of(3).stream: held}), node=node)
        say(topics.TELEMETRY, TELEMETRY, node=node)
    say(topics.PLAN, plan_of(3).to_json(GRAPH), stream="camera")
    for sequence in range(5):
        say(topics.RESULT, result_of(sequence, 3), stream="camera")


@pytest.fixture(scope="module")
def recording(module_server: Server, config_path: Path) -> Path:
    path = config_path.with_name("file.recording")
    recorder = Recorder(load_config(config_path), configuration_of(config_path), frames=False)
    kept: list[Kept] = []
    thread = threading.Thread(target=lambda: kept.append(recorder.run(path, seconds=None, most_bytes=1 << 30)))
    thread.start()
    with Session(Address(module_server.host, module_server.port), name="all", token="t") as session:
        session.start(PATIENCE_S)
        eventually(lambda: recorder.is_listening)
        say_all(session)
        eventually(lambda: recorder.counts["Result"] == 5)
    recorder.stop()
    thread.join()
    assert kept[0].messages["NodeState"] == 4
    return path


class Replay:
    """`trisect replay` as a process, and where it says that its broker and configuration are."""

    def __init__(self, recording: Path, folder: Path, *options: str) -> None:
        command = ["replay", str(recording), "--speed", "1000", "--directory", str(folder), *options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nodes.cli", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.config_path = folder / "replay.yaml"
        self.lines: list[str] = []

    def until(self, text: str) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line)
            if text in line:
                return
        pytest.fail("".join(self.lines))

    def stop(self) -> str:
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, rest
        return rest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "replay").mkdir()
    return tmp_path / "replay"


@pytest.fixture
def replay(recording: Path, folder: Path) -> Iterator[Replay]:
    made = Replay(recording, folder)
    yield made
    made.process.kill()
    made.process.wait()


def test_a_recording_is_watched_as_the_pipeline_was(replay: Replay) -> None:
    replay.until("all played")
    seen = snapshot(load_config(replay.config_path), timeout_s=60.0)
    assert {node: one["state"] for node, one in seen["nodes"].items()} == {
        str(node): "ready" for node in (DEVICE, EDGE, CLOUD, PLANNER)
    }
    assert seen["streams"]["camera"]["active_epoch"] == 3
    assert seen["streams"]["camera"]["state"] == "running"
    assert re.search(r"\d+ messages of .* s, 0 left out", replay.stop())


def test_a_planner_makes_its_own_plan_from_a_recording_without_its_plans(recording: Path, folder: Path) -> None:
    made = Replay(recording, folder, "--replan")
    try:
        made.until("all played")
        with Processes(folder) as processes:
            processes.start("planner", ["planner", "-c", str(made.config_path)])
            config, epochs = load_config(made.config_path), list[int | None]()
            give_up = time.monotonic() + 120.0
            while not any(epochs) and time.monotonic() < give_up:
                epochs.append(snapshot(config, timeout_s=5.0)["streams"]["camera"]["newest_epoch"])
        assert (epochs[-1] or 0) > 3  # numbered on from what the device has seen
        assert "left out" in made.stop()
    finally:
        made.process.kill()
        made.process.wait()
