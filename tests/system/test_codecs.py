"""Tensors between real processes, coded and sent directly: outputs stay equal, whatever way tensors take."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import yaml

from broker import topics
from broker.server import Server, ServerSettings
from broker.session import Message
from nodes.cli import demo, sample_images
from nodes.client import requests
from nodes.client.processes import Processes
from nodes.config.loader import load_config
from nodes.config.model_settings import preprocess_of, source_of
from nodes.protocol.messages import TensorRatio, parse_json
from nodes.protocol.reports import read_report
from nodes.tier.loading import load
from pipeline import engines
from pipeline.frames.inputs import to_inputs
from tests.effort import in_longer_runs
from tests.relay import Relay
from tests.system.conftest import Pipeline

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SLOW_LINKS = {
    "device_edge": {"bandwidth_mbit_s": 20.0, "latency_ms": 2.0},
    "edge_cloud": {"bandwidth_mbit_s": 8.0, "latency_ms": 10.0},
}
"""Given, so that plans are made for them whatever this machine's own links are."""
CUTS = {
    "mobilenet_v2": ("frame_normalise", "block_3_expand", "webp", "shuffle-zstd"),
    "resnet18": ("3", "stage1_block2_1_conv", "palette-webp", "bitmap"),
}
"""First block of the edge and of the cloud: the photo's picture crosses first, or the input, then what is behind a
linear bottleneck or a ReLU, which ask for codecs of these kinds.
"""


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    """Before the edge's port, so that it can be cut off from direct ways alone."""
    opened = Relay()
    with socket.create_server(("127.0.0.1", 0)) as free:
        opened.target = free.getsockname()[1]
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=["resnet18", pytest.param("mobilenet_v2", marks=in_longer_runs)])
def pipeline(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, relay: Relay
) -> Iterator[Pipeline]:
    """As usual, but with links for which codecs pay, and with direct ways."""
    folder = tmp_path_factory.mktemp("codecs")
    (folder / "broker").mkdir()
    with Server(ServerSettings(persistence_dir=folder / "broker")) as server, Processes(folder) as processes:
        path = demo.write_config(folder, request.param, server.port)
        settings = yaml.safe_load(path.read_text()) | {"links": SLOW_LINKS, "transport": {"direct": True}}
        settings["nodes"]["edge-1"]["direct"] = {"host": "127.0.0.1", "port": relay.port, "listen_port": relay.target}
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        whole = Pipeline(folder, path, load_config(path), server, processes, sample_images.frames(40, seed=1))
        for name in ("planner", *demo.NODES):
            whole.start(name)
        with whole.client() as client:
            whole.wait(client, lambda: client.ready() >= set(demo.NODES) and client.active is not None)
        yield whole


def codecs_of(plan: dict[str, Any]) -> list[str]:
    return [tensor["codec"] for tensor in plan["tensors"]]


def test_the_plan_codes_what_it_sends_and_every_output_stays_equal(pipeline: Pipeline) -> None:
    model = next(iter(pipeline.config.models))
    edge_from, cloud_from, of_photo, kind = CUTS[model]
    ratios: dict[tuple[int, str], TensorRatio] = {}

    def on_report(message: Message) -> None:
        ratios.update({(ratio.tensor, ratio.codec): ratio for ratio in read_report(message.payload).ratios})

    with pipeline.client() as client:
        client.session.subscribe([client.names.filter(topics.TELEMETRY)], on_report)
        requests.place(pipeline.config, demo.STREAM, edge_from=edge_from, cloud_from=cloud_from)
        sent = 0

        def is_coded() -> bool:
            found = codecs_of(client.plans[client.active]) if client.active is not None else []
            return len(found) == 2 and found[0] == of_photo and found[1].startswith(kind)

        while not is_coded() and sent < 20:  # what the photo shrinks to is known when one has passed
            client.publish(pipeline.images[sent], str(sent))
            sent += 1
            pipeline.wait(client, lambda: client.in_flight == 0)
        pipeline.wait(client, is_coded)
        for number in range(sent, sent + 10):
            client.publish(pipeline.images[number], str(number))
            pipeline.wait(client, lambda: client.in_flight <= demo.WINDOW)
        pipeline.assert_proven(client, sent + 10)
        assert client.active is not None
        plan = client.plans[client.active]
        first, second = codecs_of(plan)
        assert first == of_photo
        assert second.startswith(kind)
        for name, most in (("device_edge", 0.2 if of_photo == "palette-webp" else 0.7), ("edge_cloud", 0.9)):
            link = plan["predicted"]["links"][name]
            assert link["nbytes"] < most * link["uncoded_nbytes"]
            assert link["encode_seconds"] + link["decode_seconds"] > 0
        tensors = {tensor["tensor"]: tensor["codec"] for tensor in plan["tensors"]}
        pipeline.wait(client, lambda: ratios.keys() >= set(tensors.items()))
        assert all(ratios[tensor, codec].ratio > 1.1 for tensor, codec in tensors.items())


def test_frames_travel_as_they_came_and_are_decoded_where_the_network_runs(pipeline: Pipeline) -> None:
    """Also what is no picture: an array in its place is answered like anywhere else, and nonsense with its reason."""
    name, section = next(iter(pipeline.config.models.items()))
    photo = pipeline.images[0]
    engine, models = load(pipeline.config.engine, {name: source_of(name, section)}, demo.THREADS, pipeline.config.exact)
    given = to_inputs(photo, models[name].graph, preprocess_of(section))
    expected = engines.unsplit(engine, models[name]).run(given)
    array = io.BytesIO()
    np.save(array, next(iter(given.values())))
    with pipeline.client() as client:
        for edge_from, cloud_from, crossing in (
            (None, "frame_decode", ["frame"]),
            ("frame_decode", "3", ["frame", models[name].graph.tensors[0].name]),
            ("frame_normalise", "3", ["frame_picture", models[name].graph.tensors[0].name]),
        ):
            epoch = requests.place(pipeline.config, demo.STREAM, edge_from=edge_from, cloud_from=cloud_from)["epoch"]
            pipeline.wait(client, lambda: (client.active or 0) >= epoch)  # noqa: B023 - waited for at once
            assert [tensor["name"] for tensor in client.plans[epoch]["tensors"]] == crossing
            for payload in (photo, array.getvalue(), b"no picture", photo[:1000]):
                client.publish(payload, f"{epoch} {len(payload)}")
            pipeline.wait(client, lambda: client.in_flight == 0)
            answers = {result["correlation"]: result for result in client.collected.results.values()}
            for payload in (photo, array.getvalue()):
                result = answers[f"{epoch} {len(payload)}"]
                assert result["ok"], result
                pipeline.wait(client, lambda: result["sequence"] in client.collected.outputs)  # noqa: B023
                outputs = client.collected.outputs[result["sequence"]]
                assert all(np.array_equal(outputs[tensor], expected[tensor]) for tensor in expected)
                assert result["attempt"] == 1
            for payload, why in (
                (b"no picture", "a frame of 10 bytes that begin with"),
                (photo[:1000], "a broken JPEG"),
            ):
                result = answers[f"{epoch} {len(payload)}"]
                assert (result["ok"], result["attempt"]) == (False, 1), "nobody tries again what nobody can decode"
                assert result["error"].startswith(why)


def test_frames_go_directly_and_none_is_lost_when_the_line_is_cut_in_mid_tensor(
    pipeline: Pipeline, relay: Relay
) -> None:
    edge_from, cloud_from, *_ = CUTS[next(iter(pipeline.config.models))]
    through_broker: list[str] = []
    reports: dict[str, dict[str, Any]] = {}

    def on_report(message: Message) -> None:
        reports[message.topic.split("/")[-2]] = parse_json(message.payload)

    def stands(sender: str, receiver: str) -> bool:
        return reports.get(sender, {}).get(f"direct.{receiver}.stands") == 1

    with pipeline.client() as client:
        client.session.subscribe([client.names.filter(topics.TELEMETRY)], on_report)
        client.session.subscribe(
            [client.names.filter(topics.OUT)], lambda message: through_broker.append(message.topic)
        )
        epoch = requests.place(pipeline.config, demo.STREAM, edge_from=edge_from, cloud_from=cloud_from)["epoch"]
        pipeline.wait(client, lambda: (client.active or 0) >= epoch)
        for way in (("device-1", "edge-1"), ("edge-1", "cloud-1"), ("cloud-1", "device-1")):
            pipeline.wait(client, lambda: stands(*way))  # noqa: B023 - waited for at once
        sent = 0

        def publish(count: int) -> None:
            nonlocal sent
            for _ in range(count):
                client.publish(pipeline.images[sent], str(sent))
                sent += 1
                pipeline.wait(client, lambda: client.in_flight <= demo.WINDOW)
            pipeline.wait(client, lambda: client.in_flight == 0)

        publish(5)
        assert through_broker == []
        relay.swallows_after = 100_000
        publish(15)
        assert {topic.split("/")[4] for topic in through_broker} == {"device-1"}
        with suppress(ConnectionError), socket.create_connection(("127.0.0.1", relay.target)) as stranger:
            stranger.sendall(b"\x10\xff\xff\xff\x7f" + bytes(100))
            assert stranger.recv(100) in (b"", b"\xe0\x01\x95")
        relay.swallows_after, relay.passes = None, True
        pipeline.wait(client, lambda: stands("device-1", "edge-1"))
        count = len(through_broker)
        publish(5)
        assert len(through_broker) == count
        pipeline.assert_proven(client, sent)
        assert all(result["attempt"] == 1 for result in client.collected.results.values()), (
            "a frame was submitted again"
        )
