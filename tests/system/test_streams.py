"""Two devices with a stream each over two edges: each has its own plan, an edge can be emptied under way, and frames
that wait for one segment end together.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from broker import topics
from broker.server import Server, ServerSettings
from nodes.cli import demo, sample_images
from nodes.client import requests
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from nodes.protocol.messages import parse_json
from pipeline.plan import NodeId, StreamId

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

MODEL = "mobilenet_v2"
STREAMS = {StreamId("porch"): NodeId("device-1"), StreamId("yard"): NodeId("device-2")}
EDGES = (NodeId("edge-1"), NodeId("edge-2"))
FRAMES = 30
PATIENCE_S = 120.0


def config_of(folder: Path, port: int) -> Path:
    nodes = {str(node): {"tier": str(node).split("-")[0], "threads": 1} for node in STREAMS.values()}
    nodes |= {str(node): {"tier": "edge", "threads": 1, "batch": 4, "batch_wait_ms": 100} for node in EDGES}
    # the dense layer alone on the edges: where all else is computed one by one as well, batches gain too little
    plan = {"constraints": {"pin": {"Conv_1": "device", "predictions": "edge"}}}
    settings = {
        "pipeline": "streams",
        "broker": {"port": port},
        "models": {MODEL: {"source": MODEL, "weights": "seed:0"}},
        "streams": {
            str(stream): {"device": str(device), "model": MODEL, "outputs": True, "plan": plan}
            for stream, device in STREAMS.items()
        },
        "nodes": nodes,
        "planner": {"min_seconds_between_plans": 1.0, "settle_s": 0.5},
    }
    path = folder / "streams.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def edge_of(client: StreamClient) -> str:
    """Where the active plan has the last block."""
    stage = client.plans[client.active or 0]["stages"][-1]
    assert stage["tier"] == "edge"
    return str(stage["node"])


def batched_frames(client: StreamClient, node: str) -> int:
    """Frames that a node has computed together with others, by its next telemetry."""
    seen: list[int] = []
    topic = client.names.topic(topics.TELEMETRY, node=node)
    client.session.subscribe([topic], lambda m: seen.append(parse_json(m.payload).get("batched_frames_total", 0)))
    assert client.wait(lambda: len(seen) > 1, PATIENCE_S)
    return seen[-1]


def test_streams_share_edges_and_an_edge_that_is_drained_leaves_them_to_the_other(tmp_path: Path) -> None:
    images = sample_images.frames(FRAMES, seed=4)
    with Server(ServerSettings(persistence_dir=tmp_path / "broker")) as server, Processes(tmp_path) as processes:
        path = config_of(tmp_path, server.port)
        config = load_config(path)
        processes.start("planner", ["planner", "-c", str(path)])
        for node in (*STREAMS.values(), *EDGES):
            state = str(tmp_path / "state")
            processes.start(node, ["node", "-c", str(path), "--id", node, "--state-dir", state])
        with StreamClient(config, StreamId("porch")) as porch, StreamClient(config, StreamId("yard")) as yard:
            both = (porch, yard)

            def stream(first: int, last: int) -> None:
                for number in range(first, last):
                    for client in both:
                        client.publish(images[number], str(number))
                for client in both:
                    assert client.wait(lambda c=client: c.collected.whole >= last, PATIENCE_S, processes.check)  # type: ignore[misc]

            everybody = {*STREAMS.values(), *EDGES}
            for client in both:
                ready = client.wait(
                    lambda c=client: c.ready() >= everybody and c.active is not None,  # type: ignore[misc]
                    PATIENCE_S,
                    processes.check,
                )
                assert ready
            stream(0, 10)
            emptied = edge_of(porch)
            other = next(edge for edge in EDGES if edge != emptied)
            for client in both:
                client.publish(images[10], "10")
            requests.drain(config, NodeId(emptied))
            stream(11, 20)
            assert {edge_of(client) for client in both} == {other}
            is_batching = "frames end together" in processes.log(other).read_text()
            assert (batched_frames(porch, other) > 0) is is_batching
            processes.stop(emptied)
            processes.stop("device-2")
            processes.start(
                "device-2", ["node", "-c", str(path), "--id", "device-2", "--state-dir", str(tmp_path / "state")]
            )
            stream(20, FRAMES)
            for client in both:
                results = list(client.collected.results.values())
                assert sorted(int(result["correlation"]) for result in results) == list(range(FRAMES))
                assert client.collected.duplicates == 0
                equal, _ = demo.compare(config, results, client.collected.outputs, images)
                assert equal == FRAMES
