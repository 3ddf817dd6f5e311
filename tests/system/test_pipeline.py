"""A running pipeline, used and broken as people and machines do it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import topics
from broker.session import Channel, Message
from broker.topics import Namespace
from nodes.cli import demo
from nodes.client import requests
from nodes.client.stream_client import StreamClient
from nodes.protocol.messages import LifeState
from nodes.protocol.reports import read_report
from pipeline.wire import FrameKey, encode
from tests.commands import trisect
from tests.system.conftest import Pipeline

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

FRAMES = 24


def stream(pipeline: Pipeline, client: StreamClient, first: int, last: int) -> None:
    for number in range(first, last):
        client.publish(pipeline.images[number], str(number))
        pipeline.wait(client, lambda: client.in_flight <= demo.WINDOW)


def test_a_jpeg_from_mosquitto_pub_is_answered_on_the_result_topic(pipeline: Pipeline, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(pipeline.images[0])
    port = str(pipeline.server.port)
    # its debug lines are what tells when it is subscribed; stdbuf, lest they wait in its buffer
    listen = ["stdbuf", "-oL", "mosquitto_sub", "-p", port, "-t", "trisect/v1/+/result/#", "-C", "1", "-W", "60", "-d"]
    publish = ["mosquitto_pub", "-p", port, "-q", "1", "-t", "trisect/v1/demo/frame/camera", "-f", str(photo)]
    lines = []
    with subprocess.Popen(listen, stdout=subprocess.PIPE, text=True) as listener:
        for line in listener.stdout or ():
            lines.append(line)
            if "Subscribed" in line:
                subprocess.run(publish, check=True)
    assert listener.returncode == 0
    result = json.loads(next(line for line in lines if line.startswith("{")))
    assert result["ok"] is True
    assert result["source"] == "mqtt"
    assert len(result["top"]) == 5
    assert result["path"][0]["node"] == "device-1"


def test_a_placement_by_hand_and_back_by_the_command_line(pipeline: Pipeline) -> None:
    config = ["-c", str(pipeline.config_path)]
    placed = trisect("place", *config, "--stream", "camera", "--edge-from", "20", "--cloud-from", "block_12_add")
    assert placed.returncode == 0, placed.stderr
    assert "cloud-1" in placed.stdout
    published = trisect("plan", *config, "--json")
    plan = json.loads(published.stdout)
    assert plan["planner"] == "forced"
    assert [stage["tier"] for stage in plan["stages"]] == ["device", "edge", "cloud"]
    photo = pipeline.folder / "one.jpg"
    photo.write_bytes(pipeline.images[1])
    answered = trisect("publish", *config, str(photo))
    assert json.loads(answered.stdout)["tiers"] == ["device", "edge", "cloud"]
    back = trisect("place", *config, "--auto")
    assert back.returncode == 0, back.stderr
    assert json.loads(trisect("plan", *config, "--json").stdout)["planner"] == "exact"


@pytest.fixture
def planned_as_before(pipeline: Pipeline) -> Iterator[list[str]]:
    """Options of the configuration; whatever is asked of the planner meanwhile is taken back."""
    config = ["-c", str(pipeline.config_path)]
    yield config
    trisect("objective", *config, "--reset")


def test_what_a_stream_is_planned_for_is_changed_under_it_and_back(
    pipeline: Pipeline, planned_as_before: list[str]
) -> None:
    config = planned_as_before
    with pipeline.client() as client:
        stream(pipeline, client, 0, 6)
        asked = trisect("objective", *config, "throughput", "--pin", "block_8_add=edge", "--min-depth", "3")
        assert asked.returncode == 0, asked.stderr
        plan = json.loads(trisect("plan", *config, "--json").stdout)
        assert plan["objective"] == "throughput"
        tiers = [stage["tier"] for stage in plan["stages"]]
        assert tiers[:2] == ["device", "edge"]
        if plan["runner_up"] is None:  # with the cloud's node the best is the same plan, and no tier may do it alone
            assert tiers == ["device", "edge"]
        else:
            # the plan's price follows what is learned, the runner-up's is that of the decision
            assert plan["runner_up"]["value"] >= plan["predicted"]["period_seconds"] * 0.8
        stream(pipeline, client, 6, 12)
        impossible = trisect("objective", *config, "--pin", "10=cloud", "--pin", "20=device")
        assert impossible.returncode == 1
        assert "these 2 constraints conflict" in impossible.stderr
        back = trisect("objective", *config, "--reset")
        assert back.returncode == 0, back.stderr
        stream(pipeline, client, 12, 18)
        pipeline.assert_proven(client, 18)
    assert json.loads(trisect("plan", *config, "--json").stdout)["plan_request"] is None


def test_nodes_that_compute_nothing_say_how_their_processors_are_doing(pipeline: Pipeline) -> None:
    telling: set[str] = set()

    def on_report(message: Message) -> None:
        parsed = client.names.parse(message.topic)
        if parsed is not None and read_report(message.payload).probe_seconds is not None:
            telling.add(str(parsed[1]["node"]))

    with pipeline.client() as client:
        client.session.subscribe([client.names.filter(topics.TELEMETRY)], on_report)
        pipeline.wait(client, lambda: telling >= set(map(str, demo.NODES)))


def test_a_wrong_block_is_refused_with_the_nearest_names(pipeline: Pipeline) -> None:
    placed = trisect("place", "-c", str(pipeline.config_path), "--edge-from", "block_12_ad")
    assert placed.returncode == 1
    assert "block_12_add" in placed.stderr
    assert "Traceback" not in placed.stderr


def test_an_undecodable_frame_is_answered_with_an_error_and_the_stream_goes_on(pipeline: Pipeline) -> None:
    with pipeline.client() as client:
        client.publish(b"this is no image", "nonsense")
        client.publish(pipeline.images[2], "2")
        pipeline.wait(client, lambda: len(client.collected.results) == 2)
        by_name = {result["correlation"]: result for result in client.collected.results.values()}
    assert by_name["nonsense"]["ok"] is False
    assert "accepted are JPEG, PNG, NPY" in by_name["nonsense"]["error"]
    assert by_name["2"]["ok"] is True


def test_a_second_node_with_an_id_in_use_is_refused(pipeline: Pipeline) -> None:
    command = [sys.executable, "-m", "nodes.cli", "node", "-c", str(pipeline.config_path), "--id", "edge-1"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert second.returncode == 1
    assert "in use" in second.stderr
    assert str(pipeline.processes.pid("edge-1")) in second.stderr


def test_tensor_messages_of_nonsense_do_not_disturb_the_stream(pipeline: Pipeline) -> None:
    plan = requests.place(pipeline.config, demo.STREAM, edge_from="20", cloud_from="40")
    names = Namespace("demo")
    with pipeline.client() as client:
        pipeline.wait(client, lambda: plan["epoch"] in client.plans and plan["digest"] in client.graphs)
        graph = client.graphs[plan["digest"]]
        tensor = graph.tensors[plan["tensors"][0]["tensor"]]
        topic = names.topic(
            topics.OUT, node="device-1", stream="camera", epoch=plan["epoch"], tensor=plan["tensors"][0]["tensor"]
        )
        import numpy as np

        good = np.zeros(tensor.shape, tensor.dtype)
        key = FrameKey("camera", plan["epoch"], 10**9, 1, 0)
        whole = next(iter(encode(key, tensor.id, good, chunk_bytes=1 << 23)))
        wrong_shape = next(iter(encode(key, tensor.id, good[..., :1])))
        for payload in (b"", b"\x92", whole[:200], whole[:-1], whole[:-1] + b"\xff", wrong_shape):
            client.session.publish(topic, payload, channel=Channel.BULK)
        stream(pipeline, client, 0, 8)
        pipeline.assert_proven(client, 8)
    requests.place(pipeline.config, demo.STREAM, auto=True)


def test_the_stream_goes_on_when_the_planner_dies(pipeline: Pipeline) -> None:
    requests.place(pipeline.config, demo.STREAM, edge_from="15", cloud_from="30")
    with pipeline.client() as client:
        stream(pipeline, client, 0, 8)
        pipeline.processes.kill("planner")
        stream(pipeline, client, 8, 16)
        pipeline.start("planner")
        stream(pipeline, client, 16, FRAMES)
        pipeline.assert_proven(client, FRAMES)
        assert {tuple(r["tiers"]) for r in client.collected.results.values()} == {("device", "edge", "cloud")}
    # the planner took up what was placed by hand, and takes it back on request
    requests.place(pipeline.config, demo.STREAM, auto=True)


def test_the_stream_goes_on_when_the_broker_restarts(pipeline: Pipeline) -> None:
    requests.place(pipeline.config, demo.STREAM, edge_from="15", cloud_from="30")
    with pipeline.client() as client:
        stream(pipeline, client, 0, 8)
        for number in range(8, 12):
            client.publish(pipeline.images[number], str(number))
        pipeline.server.restart()
        stream(pipeline, client, 12, FRAMES)
        pipeline.assert_proven(client, FRAMES)
    requests.place(pipeline.config, demo.STREAM, auto=True)


def test_the_stream_goes_on_when_a_node_is_killed(pipeline: Pipeline) -> None:
    requests.place(pipeline.config, demo.STREAM, edge_from="15", cloud_from="30")
    with pipeline.client() as client:
        stream(pipeline, client, 0, 8)
        for number in range(8, 12):
            client.publish(pipeline.images[number], str(number))
        pipeline.processes.kill("edge-1")
        pipeline.wait(client, lambda: client.states[demo.EDGE].state is LifeState.LOST)
        stream(pipeline, client, 12, FRAMES)
        pipeline.assert_proven(client, FRAMES)
        pipeline.start("edge-1")
        pipeline.wait(client, lambda: client.states[demo.EDGE].state is LifeState.READY)
    requests.place(pipeline.config, demo.STREAM, auto=True)


def test_watch_once_tells_scripts_what_runs(pipeline: Pipeline) -> None:
    shown = trisect("watch", "-c", str(pipeline.config_path), "--once", "--json")
    assert shown.returncode == 0, shown.stderr
    text = json.dumps(json.loads(shown.stdout))
    for name in ("device-1", "edge-1", "cloud-1", "camera"):
        assert name in text


def test_light_commands_and_what_a_node_checks_first_do_not_load_tensorflow() -> None:
    code = (
        "import sys, nodes.cli.app, nodes.planner.node, nodes.tier.node, nodes.watch.app;"
        "import nodes.client.requests, nodes.cli.tables;"
        "import nodes.config.loader;"
        "heavy = {'tensorflow', 'keras', 'h5py'} & set(sys.modules);"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    began = time.monotonic()
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    print(f"imports took {time.monotonic() - began:.2f} s")
