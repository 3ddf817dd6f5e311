"""A pipeline that waits recorded seconds: said so in its info and plans, and never mixed with a node that computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from broker import topics
from broker.server import Server, ServerSettings
from nodes.cli import demo, sample_images
from nodes.client import requests
from nodes.client.processes import Processes
from nodes.config.loader import load_config
from nodes.protocol.messages import parse_json
from pipeline.engines.block_recording import BlockRecording, MachineTimes, NetworkRecording
from pipeline.lite.package import Package
from pipeline.lite.sketch import Layer, Sketch, save
from tests.system.conftest import Pipeline

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

FRAMES = 3
SECONDS = {"slow": 0.02, "fast": 0.002}
DECODE_S, NORMALISE_S = 0.05, 0.03
"""Of the slow machine."""
SKETCH = Sketch(
    "small",
    (32, 32, 3),
    (
        Layer("first", "conv", ("image",), 3, 8),
        Layer("second", "conv", ("first",), 3, 8),
        Layer("mean", "mean", ("second",)),
        Layer("classes", "dense", ("mean",), units=5),
    ),
)


def write_configs(folder: Path, port: int) -> tuple[Path, Path]:
    """One for nodes that replay, and one for a node that computes the same model."""
    package = folder / "small.trisect"
    save(SKETCH, package)
    graph = Package(package).graph
    machines = {name: MachineTimes((0.0, *(each for _ in graph.blocks[1:]))) for name, each in SECONDS.items()}
    machines["slow"] = replace(machines["slow"], decode=DECODE_S, normalise=NORMALISE_S)
    network = NetworkRecording("small", graph.digest, machines, ("",) * len(graph.tensors))
    BlockRecording("invented", (network,)).write(folder / "times.json")
    computes = demo.write_config(folder, str(package), port)
    settings = yaml.safe_load(computes.read_text())
    settings["models"]["small"]["preprocess"] = {"size": [32, 32], "mode": "unit"}
    computes.write_text(yaml.safe_dump(settings))
    replays = folder / "replay.yaml"
    machine_of = {demo.DEVICE: "slow", demo.EDGE: "fast", demo.CLOUD: "fast"}
    settings |= {"engine": "replay", "replay": {"recording": "times.json", "machines": machine_of}}
    replays.write_text(yaml.safe_dump(settings))
    return replays, computes


def test_a_replay_waits_says_so_and_is_not_mixed_with_what_computes(tmp_path: Path) -> None:
    infos: dict[str, dict[str, object]] = {}
    with Server(ServerSettings()) as server, Processes(tmp_path) as processes:
        replays, computes = write_configs(tmp_path, server.port)
        whole = Pipeline(tmp_path, replays, load_config(replays), server, processes, sample_images.frames(FRAMES))
        for name in ("planner", demo.DEVICE, demo.EDGE):
            whole.start(name)
        whole.config_path = computes
        whole.start(demo.CLOUD)
        with whole.client() as client:
            client.session.subscribe(
                [client.names.filter(topics.INFO)],
                lambda message: infos.update({message.topic.split("/")[-2]: parse_json(message.payload)}),
            )
            whole.wait(client, lambda: client.ready() >= set(demo.NODES) and client.active is not None)
            whole.wait(client, lambda: len(infos) == len(demo.NODES))
            with pytest.raises(requests.RequestRefused, match=r"cloud-1 computes with litert .* replay of recording"):
                requests.place(whole.config, demo.STREAM, cloud_from="second")
            plan = requests.place(whole.config, demo.STREAM, edge_from="second")
            for number, image in enumerate(whole.images):
                client.publish(image, str(number))
            whole.wait(client, lambda: client.collected.whole == FRAMES)
            results = list(client.collected.results.values())
    assert {node: info["engine"] for node, info in infos.items()} == {
        demo.DEVICE: "replay",
        demo.EDGE: "replay",
        demo.CLOUD: "litert",
    }
    assert "a replay: nodes wait recorded seconds" in plan["reason"]
    for result in results:
        assert result["ok"]
        assert result["tiers"] == ["device", "edge"]
        device, edge = (stage["compute_seconds"] for stage in result["path"])
        assert device >= DECODE_S + NORMALISE_S + SECONDS["slow"]
        assert edge >= 3 * SECONDS["fast"]
