"""Faults on real processes: what a killed device had taken, a node that hangs, a network that is left alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from broker.server import Server, ServerSettings
from nodes.cli import demo, sample_images
from nodes.client import requests
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from nodes.protocol.messages import LifeState
from tests.system.conftest import Pipeline

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

IMAGES = 120
RATE_HZ = 10.0


@pytest.fixture
def sourced(tmp_path: Path) -> Iterator[Pipeline]:
    """Broker, planner and nodes, not started; the device has a folder of images as its source."""
    (tmp_path / "broker").mkdir()
    (tmp_path / "images").mkdir()
    images = sample_images.frames(IMAGES, seed=2)
    for number, image in enumerate(images):
        (tmp_path / "images" / f"{number:03d}.jpg").write_bytes(image)
    with Server(ServerSettings(persistence_dir=tmp_path / "broker")) as server, Processes(tmp_path) as processes:
        path = demo.write_config(tmp_path, "mobilenet_v2", server.port)
        settings = yaml.safe_load(path.read_text())
        settings["streams"][str(demo.STREAM)]["source"] = {"images": str(tmp_path / "images"), "rate_hz": RATE_HZ}
        settings["transport"] = {"keepalive_s": 5}
        path.write_text(yaml.safe_dump(settings))
        yield Pipeline(tmp_path, path, load_config(path), server, processes, images)


def test_a_killed_device_answers_each_image_of_its_own_source_once(sourced: Pipeline) -> None:
    with sourced.client() as client:
        for name in ("planner", *demo.NODES):
            sourced.start(name)
        sourced.wait(client, lambda: client.ready() >= set(demo.NODES) and client.active is not None)
        requests.place(sourced.config, demo.STREAM, edge_from="15", cloud_from="30")
        sourced.wait(client, lambda: any("cloud" in result["tiers"] for result in client.collected.results.values()))
        os.kill(sourced.processes.pid(demo.CLOUD), signal.SIGSTOP)
        time.sleep(1.0)  # until frames are open that only the cloud could finish
        sourced.processes.kill(demo.DEVICE)
        os.kill(sourced.processes.pid(demo.CLOUD), signal.SIGCONT)
        sourced.start(demo.DEVICE)
        sourced.wait(client, lambda: client.collected.whole >= IMAGES)
        sourced.processes.stop(demo.DEVICE)  # which delivers what it has to say before it says that it goes
        sourced.wait(client, lambda: demo.DEVICE not in client.ready())
        assert client.collected.duplicates == 0
        results = list(client.collected.results.values())
        assert sorted(result["source"] for result in results) == [f"{number:03d}.jpg" for number in range(IMAGES)]
        named = [{**result, "correlation": int(result["source"][:3])} for result in results]
        equal, _ = demo.compare(sourced.config, named, client.collected.outputs, sourced.images)
        assert equal == IMAGES
    assert "frames of the process before" in sourced.processes.log(demo.DEVICE).read_text()


def stream(pipeline: Pipeline, client: StreamClient, first: int, last: int) -> None:
    for number in range(first, last):
        client.publish(pipeline.images[number], str(number))
        pipeline.wait(client, lambda: client.in_flight <= demo.WINDOW)


def test_a_device_that_is_killed_again_and_again_answers_each_frame_that_came_over_mqtt_once(
    pipeline: Pipeline,
) -> None:
    requests.place(pipeline.config, demo.STREAM, edge_from="15", cloud_from="30")
    with pipeline.client() as client:
        for number in range(24):
            client.publish(pipeline.images[number], str(number))
        for answered in (3, 12):
            pipeline.wait(client, lambda least=answered: len(client.collected.results) >= least)  # type: ignore[misc]
            pipeline.processes.kill(demo.DEVICE)
            pipeline.start(demo.DEVICE)
        pipeline.assert_proven(client, 24)
    requests.place(pipeline.config, demo.STREAM, auto=True)


def test_an_edge_that_hangs_and_comes_back_with_old_work_neither_loses_nor_repeats(pipeline: Pipeline) -> None:
    requests.place(pipeline.config, demo.STREAM, edge_from="15", cloud_from="30")
    with pipeline.client() as client:
        stream(pipeline, client, 0, 6)
        for number in range(6, 10):
            client.publish(pipeline.images[number], str(number))
        said = f"nothing from {demo.EDGE} for"
        told = pipeline.processes.log("planner").read_text().count(said)
        os.kill(pipeline.processes.pid(demo.EDGE), signal.SIGSTOP)
        pipeline.wait(client, lambda: pipeline.processes.log("planner").read_text().count(said) > told)
        os.kill(pipeline.processes.pid(demo.EDGE), signal.SIGCONT)
        stream(pipeline, client, 10, 16)
        pipeline.assert_proven(client, 16)
    requests.place(pipeline.config, demo.STREAM, auto=True)


def test_the_device_alone_does_the_whole_network_until_the_others_return(pipeline: Pipeline) -> None:
    requests.place(pipeline.config, demo.STREAM, edge_from="15", cloud_from="30")
    with pipeline.client() as client:
        stream(pipeline, client, 0, 6)
        standing_by = "has the whole of mobilenet_v2 standing by"
        pipeline.wait(client, lambda: standing_by in pipeline.processes.log(demo.DEVICE).read_text())
        for node in (demo.EDGE, demo.CLOUD):
            pipeline.processes.kill(node)
        pipeline.wait(client, lambda: client.states[demo.CLOUD].state is LifeState.LOST)
        stream(pipeline, client, 6, 12)
        pipeline.wait(client, lambda: len(client.collected.results) == 12)
        alone = max(client.collected.results.values(), key=lambda result: int(result["sequence"]))
        assert alone["tiers"] == ["device"]
        for node in (demo.EDGE, demo.CLOUD):
            pipeline.start(node)

        def split() -> bool:
            return client.active is not None and len(client.plans[client.active]["stages"]) == 3

        pipeline.wait(client, split)
        stream(pipeline, client, 12, 18)
        pipeline.assert_proven(client, 18)
        assert max(client.collected.results.values(), key=lambda r: int(r["sequence"]))["tiers"][-1] == "cloud"
    requests.place(pipeline.config, demo.STREAM, auto=True)


def test_a_drained_node_may_stop_without_losing_a_frame_and_can_be_forgotten(pipeline: Pipeline) -> None:
    requests.place(pipeline.config, demo.STREAM, edge_from="15", cloud_from="30")
    with pipeline.client() as client:
        stream(pipeline, client, 0, 6)
        with pytest.raises(requests.RequestRefused, match="is alive"):
            requests.forget(pipeline.config, demo.CLOUD)
        with pytest.raises(requests.RequestRefused, match="is the device of camera"):
            requests.drain(pipeline.config, demo.DEVICE)
        for number in range(6, 10):
            client.publish(pipeline.images[number], str(number))
        requests.drain(pipeline.config, demo.CLOUD)
        requests.drain(pipeline.config, demo.CLOUD, undo=True)
        pipeline.wait(client, lambda: len(client.plans[client.active or 0]["stages"]) == 3)
        requests.drain(pipeline.config, demo.CLOUD)
        pipeline.processes.stop(demo.CLOUD)
        assert len(requests.forget(pipeline.config, demo.CLOUD)) > 3
        stream(pipeline, client, 10, 16)
        pipeline.assert_proven(client, 16)
        pipeline.start(demo.CLOUD)
        pipeline.wait(client, lambda: client.states[demo.CLOUD].state is LifeState.READY)


def test_a_device_that_cannot_write_its_journal_starts_and_refuses_frames_where_it_is_told_to(
    pipeline: Pipeline,
) -> None:
    settings = yaml.safe_load(pipeline.config_path.read_text())
    settings["streams"][str(demo.STREAM)]["unrecorded"] = "refuse"
    refusing = pipeline.folder / "refusing.yaml"
    refusing.write_text(yaml.safe_dump(settings))
    (pipeline.folder / "no-folder").write_text("")

    def start_with(path: Path) -> None:
        pipeline.processes.stop(demo.DEVICE)
        state = str(pipeline.folder / "no-folder")
        pipeline.processes.start(demo.DEVICE, ["node", "-c", str(path), "--id", demo.DEVICE, "--state-dir", state])

    with pipeline.client() as client:
        start_with(refusing)
        client.publish(pipeline.images[0], "0")
        pipeline.wait(client, lambda: len(client.collected.results) == 1)
        (refused,) = client.collected.results.values()
        assert "cannot record frames" in refused["error"]
        start_with(pipeline.config_path)
        client.publish(pipeline.images[1], "1")
        pipeline.wait(client, lambda: len(client.collected.results) == 2)
        assert [result["ok"] for result in client.collected.results.values()] == [False, True]
    assert pipeline.processes.log(demo.DEVICE).read_text().count("cannot be written") == 2
    pipeline.processes.stop(demo.DEVICE)
    pipeline.start(demo.DEVICE)
