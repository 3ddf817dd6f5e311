"""An edge whose feature maps are computed by workers, in processes: used, broken and fed with nonsense."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from broker import topics
from broker.server import Server, ServerSettings
from broker.session import Channel, Message
from nodes.cli import demo, sample_images
from nodes.client import requests
from nodes.client.processes import Processes
from nodes.client.stream_client import StreamClient
from nodes.config.loader import load_config
from nodes.protocol.messages import LifeState
from nodes.protocol.reports import read_report
from pipeline.errors import ConfigError
from pipeline.plan import NodeId, Plan
from pipeline.tensorflow_runtime import keras
from pipeline.wire import FrameKey, decode_chunk, encode
from tests.networks import L, trained
from tests.system.conftest import Pipeline

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras 3.15 saving, NumPy 2.4
]

WORKERS = ("worker-1", "worker-2", "worker-3")
GRID = {"grid": "2x2", "stack": "first:last", "workers": list(WORKERS)}


def network(folder: Path, seed: int = 0) -> Path:
    """A stack of maps with a residual and a pool, between a block before it and two after it. The last map, half of
    whose items are zero, is an output besides the classes.
    """
    image = keras.Input((48, 48, 3))
    x = L.Conv2D(8, 3, padding="same", activation="relu", name="before")(image)
    x = y = L.Conv2D(16, 3, padding="same", activation="relu", name="first")(x)
    x = L.MaxPooling2D(3, 2, padding="same")(L.Add()([L.Conv2D(16, 3, padding="same")(x), y]))
    x = last = L.Conv2D(16, (1, 5), padding="same", activation="relu", name="last")(x)
    x = L.Dense(10, activation="softmax", name="classes")(L.GlobalAveragePooling2D(name="mean")(x))
    folder.mkdir(exist_ok=True)
    path = folder / "spatial.keras"
    trained(keras.Model(image, [x, last]), seed).save(path)
    return path


def write_config(folder: Path, model: Path, port: int) -> Path:
    settings = {
        "pipeline": "demo",
        "broker": {"port": port},
        "models": {"spatial": {"source": str(model), "preprocess": {"size": [48, 48], "mode": "unit"}}},
        "streams": {demo.STREAM: {"device": demo.DEVICE, "model": "spatial", "outputs": True}},
        "nodes": {
            **{str(node): {"tier": node.split("-")[0], "threads": 1} for node in (demo.DEVICE, demo.EDGE)},
            **{worker: {"tier": "edge", "role": "worker", "threads": 1} for worker in WORKERS},
        },
        "planner": {"min_seconds_between_plans": 1.0, "settle_s": 0.5},
        # given, so that coding the map on its way back pays, whatever this machine's own links are
        "links": {"device_edge": {"bandwidth_mbit_s": 20.0, "latency_ms": 1.0}},
    }
    path = folder / "tiles.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A device, an edge and three workers, with the edge's blocks from `first` to `last` in four tiles."""
    folder = tmp_path_factory.mktemp("tiles")
    (folder / "broker").mkdir()
    with Server(ServerSettings(persistence_dir=folder / "broker")) as server, Processes(folder) as processes:
        config_path = write_config(folder, network(folder / "model"), server.port)
        whole = Pipeline(
            folder, config_path, load_config(config_path), server, processes, sample_images.frames(40, seed=1)
        )
        nodes = (demo.DEVICE, demo.EDGE, *WORKERS)
        for name in ("planner", *nodes):
            whole.start(name)
        with whole.client() as client:
            whole.wait(client, lambda: client.ready() >= set(map(NodeId, nodes)) and client.active is not None)
        yield whole


def share_out(pipeline: Pipeline, **changed: Any) -> dict[str, Any]:
    return requests.place(pipeline.config, demo.STREAM, edge_from="before", tiles=GRID | changed)


def stream(pipeline: Pipeline, client: StreamClient, first: int, last: int) -> None:
    for number in range(first, last):
        client.publish(pipeline.images[number], str(number))
        pipeline.wait(client, lambda: client.in_flight <= demo.WINDOW)


def start_again(pipeline: Pipeline, client: StreamClient, worker: str) -> None:
    """Start a worker that was killed, and wait until the new process is ready."""
    session = client.states[NodeId(worker)].session
    pipeline.start(worker)
    pipeline.wait(client, lambda: client.states[NodeId(worker)].session != session and worker in client.ready())


def epochs_of(client: StreamClient, node: str) -> tuple[int, ...]:
    """What the node is ready to run of the stream."""
    streams = client.applied[NodeId(node)].streams
    return streams[demo.STREAM].ready if demo.STREAM in streams else ()


def test_maps_computed_by_workers_give_the_unsplit_networks_bits_and_each_tile_is_accounted_for(
    pipeline: Pipeline,
) -> None:
    plan = share_out(pipeline)
    assert {one["way"] for one in plan["tiles"]["codecs"]} <= {"there", "back"}  # as this machine's rates have it
    assert plan["tiles"] | {"first": 0, "last": 0, "codecs": []} == {
        "first": 0,
        "last": 0,
        "from": "first",
        "to": "last",
        "rows": [12, 12],
        "columns": [12, 12],
        "workers": [*WORKERS, WORKERS[0]],
        "codecs": [],
    }
    coded, classes = plan["results"]
    assert (classes["codec"], coded["from"], coded["to"]) == ("none", "edge", ["device"])
    assert coded["codec"].startswith("bitmap")
    link = plan["predicted"]["links"]["device_edge"]
    assert link["result_nbytes"] < 0.8 * link["result_uncoded_nbytes"]
    reports: queue.SimpleQueue[Message] = queue.SimpleQueue()
    answers: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with pipeline.client() as client:
        client.session.subscribe([client.names.topic(topics.TELEMETRY, node=demo.EDGE)], reports.put)
        client.session.subscribe(
            [client.names.topic(topics.NODE_RESULT, node=demo.EDGE, stream=demo.STREAM)], answers.put
        )
        stream(pipeline, client, 0, 24)
        pipeline.assert_proven(client, 24)
        assert {tuple(result["tiers"]) for result in client.collected.results.values()} == {("device", "edge")}
        came = {
            (chunk.tensor, chunk.codec) for chunk in (decode_chunk(answers.get(timeout=30.0).payload) for _ in range(4))
        }
        assert came == {(one["tensor"], one["codec"]) for one in (classes, coded)}
        made = [read_report(reports.get(timeout=30.0).payload) for _ in range(3)]
        seen = {(tile.tile, tile.worker) for report in made for tile in report.tiles}
        ratios = {(ratio.tensor, ratio.codec): ratio.ratio for report in made for ratio in report.ratios}
        assert ratios[coded["tensor"], coded["codec"]] > 1.25
    assert seen >= {(number, NodeId(worker)) for number, worker in enumerate([*WORKERS, WORKERS[0]], start=1)}
    # on a slow machine a late tile is asked of another worker, too
    assert {number for number, _ in seen} == {1, 2, 3, 4}
    assert {worker for _, worker in seen} <= {demo.EDGE, *WORKERS}


def test_a_stage_may_begin_with_the_blocks_that_are_shared_out(pipeline: Pipeline) -> None:
    plan = requests.place(pipeline.config, demo.STREAM, edge_from="first", tiles=GRID)
    with pipeline.client() as client:
        stream(pipeline, client, 0, 4)
        pipeline.assert_proven(client, 4)
        assert client.active == plan["epoch"]
        assert client.plans[plan["epoch"]]["tiles"]["from"] == "first"


def test_tiles_go_there_and_back_with_the_codecs_that_a_plan_has(pipeline: Pipeline) -> None:
    """Of a plan that no planner would make for lines as quick as this machine's."""
    plan = share_out(pipeline)
    came: queue.SimpleQueue[Message] = queue.SimpleQueue()
    with pipeline.client() as client:
        pipeline.wait(client, lambda: plan["digest"] in client.graphs and plan["epoch"] in client.plans)
        graph, forced = client.graphs[plan["digest"]], client.plans[plan["epoch"]]
        tiling = Plan.from_json(forced, graph).tiles
        assert tiling is not None
        stack = tiling.stack(graph)
        pipeline.processes.kill("planner")
        codecs = {**dict.fromkeys(stack.inputs, "bitmap"), stack.output: "bitmap-zstd"}
        coded = [{"tensor": tensor, "codec": codec} for tensor, codec in codecs.items()]
        forced |= {"epoch": plan["epoch"] + 1, "tiles": forced["tiles"] | {"codecs": coded}}
        for kind in (topics.TILE, topics.TILED):
            client.session.subscribe([client.names.filter(kind, stream=demo.STREAM, epoch=forced["epoch"])], came.put)
        topic = client.names.topic(topics.PLAN, stream=demo.STREAM)
        client.session.publish(topic, json.dumps(forced).encode(), retain=True)
        pipeline.wait(client, lambda: client.active == forced["epoch"])
        stream(pipeline, client, 0, 6)
        pipeline.assert_proven(client, 6)
        sent = {
            (chunk.tensor, chunk.codec) for chunk in (decode_chunk(came.get(timeout=30.0).payload) for _ in range(18))
        }
        assert sent == set(codecs.items())
        start_again(pipeline, client, "planner")


def test_a_worker_killed_in_mid_stream_costs_no_frame_and_works_again_when_it_is_back(pipeline: Pipeline) -> None:
    share_out(pipeline)
    with pipeline.client() as client:
        stream(pipeline, client, 0, 6)
        for number in range(6, 10):
            client.publish(pipeline.images[number], str(number))
        pipeline.processes.kill("worker-2")
        stream(pipeline, client, 10, 20)
        pipeline.wait(client, lambda: client.states[NodeId("worker-2")].state is LifeState.LOST)
        epoch = client.active
        start_again(pipeline, client, "worker-2")
        pipeline.wait(client, lambda: epoch in epochs_of(client, "worker-2"))
        stream(pipeline, client, 20, 26)
        pipeline.assert_proven(client, 26)
        assert client.active == epoch


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"grid": "25x1"}, "25 tiles over 24 rows of .*: ask for 24 or fewer"),
        ({"grid": "2by2"}, "grid '2by2' is not one"),
        ({"stack": "first:mean"}, "makes no feature map, or looks at whole maps"),
        ({"stack": "last:first"}, "exchange them"),
        ({"stack": "frame:last"}, "frame_normalise.*makes no feature map"),
        ({"workers": ["worker-9"]}, "worker-9 is not there; those that can compute tiles: worker-1"),
        ({"workers": ["device-1"]}, "device-1 is not of the edge"),
        ({"workers": [*WORKERS, "edge-1", *WORKERS]}, "7 workers for 4 tiles"),
    ],
)
def test_tiles_that_cannot_be_had_are_refused_in_words_and_the_stream_goes_on(
    pipeline: Pipeline, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(requests.RequestRefused, match=said):
        share_out(pipeline, **changed)


def test_a_tile_of_the_wrong_shape_or_place_is_no_answer(pipeline: Pipeline) -> None:
    plan = share_out(pipeline)
    with pipeline.client() as client:
        pipeline.wait(client, lambda: plan["digest"] in client.graphs)
        graph = client.graphs[plan["digest"]]
        output = graph.blocks[plan["tiles"]["last"]].outputs[0]
        topic = client.names.topic(topics.TILED, node="worker-1", stream=demo.STREAM, epoch=plan["epoch"])
        for tile, tensor, side in ((1, output, 11), (9, output, 12), (2, output - 1, 12), (0, output, 24)):
            wrong = np.zeros((1, side, side, 16), np.float32)
            for sequence in range(10**6, 10**6 + 30):
                key = FrameKey(demo.STREAM, plan["epoch"], sequence, 1, 0, tile)
                client.session.publish(topic, next(iter(encode(key, tensor, wrong))), channel=Channel.BULK)
        stream(pipeline, client, 0, 8)
        pipeline.assert_proven(client, 8)


def test_without_any_worker_the_head_computes_all_tiles(pipeline: Pipeline) -> None:
    share_out(pipeline, grid="1x3")
    with pipeline.client() as client:
        stream(pipeline, client, 0, 4)
        for worker in WORKERS:
            pipeline.processes.kill(worker)
        stream(pipeline, client, 4, 16)
        pipeline.assert_proven(client, 16)


def test_a_worker_that_joins_gets_tiles_and_one_with_another_model_does_not(pipeline: Pipeline) -> None:
    other = write_config(pipeline.folder / "model", network(pipeline.folder / "other", seed=1), pipeline.server.port)
    joining = ["--id", "worker-9", "--tier", "edge", "--role", "worker", "--threads", "1"]
    with pipeline.client() as client:
        pipeline.wait(client, lambda: all(client.states[NodeId(w)].state is LifeState.LOST for w in WORKERS))
        pipeline.processes.start("worker-3", ["node", "-c", str(other), "--id", "worker-3"])
        pipeline.processes.start("worker-9", ["node", "-c", str(pipeline.config_path), *joining])
        pipeline.wait(client, lambda: client.ready() >= {NodeId("worker-3"), NodeId("worker-9")})
        with pytest.raises(requests.RequestRefused, match="worker-3 has another model 'spatial'"):
            share_out(pipeline)
        stream(pipeline, client, 0, 6)
        assert share_out(pipeline, workers=[])["tiles"]["workers"] == ["worker-9"] * 4
        stream(pipeline, client, 6, 12)
        pipeline.assert_proven(client, 12)
        with pytest.raises(ConfigError, match="none has joined as that"):
            requests.drain(pipeline.config, NodeId("worker-8"))
        requests.drain(pipeline.config, NodeId("worker-9"))
        stream(pipeline, client, 12, 14)
        pipeline.assert_proven(client, 14)
