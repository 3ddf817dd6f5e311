"""A pipeline whose networks detect, paint, and give plain numbers: what its answers say."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
import zmq
from PIL import Image

from broker import topics
from broker.server import Server, ServerSettings
from broker.session import Message
from broker.topics import Namespace
from nodes.cli import demo
from nodes.client import requests
from nodes.client.answers import FrameLost
from nodes.client.client import Client
from nodes.client.processes import Processes
from nodes.config.loader import load_config
from nodes.config.sections import Config
from nodes.session.presence import guest_session
from pipeline.plan import StreamId
from tests import task_networks
from tests.task_networks import CLASSES, SIDE, Scene, scene

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

PATIENCE_S = 120.0
EXAMPLE = Path(__file__).parents[2] / "examples" / "frigate_detector.py"
UNIT = {"size": [SIDE, SIDE], "mode": "unit"}


@dataclass(frozen=True)
class Running:
    """A pipeline with a stream for each of three networks."""

    config: Config
    config_path: Path
    scenes: tuple[Scene, ...]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("answers")
    task_networks.detector(folder / "finder.trisect")
    task_networks.segmenter(folder / "painter.trisect")
    task_networks.gauge(folder / "gauge.trisect")
    (folder / "labels.txt").write_text("\n".join(CLASSES))
    find = {"kind": "detect", "head": "yolo", "strides": [8], "most": 10, "score_at_least": 0.5}
    models = {
        "finder": {"source": "finder.trisect", "preprocess": UNIT, "labels": "labels.txt", "task": find},
        "painter": {"source": "painter.trisect", "preprocess": UNIT, "task": "segment"},
        "gauge": {"source": "gauge.trisect", "preprocess": UNIT},
    }
    with Server(ServerSettings()) as server, Processes(folder) as processes:
        settings = {
            "pipeline": "answers",
            "broker": {"port": server.port},
            "models": models,
            "streams": {name: {"device": demo.DEVICE, "model": name, "outputs": True} for name in models},
            "nodes": {str(node): {"tier": node.split("-")[0], "threads": 1} for node in demo.NODES[:2]},
            "planner": {"min_seconds_between_plans": 1.0, "settle_s": 0.5},
        }
        path = folder / "answers.yaml"
        path.write_text(yaml.safe_dump(settings))
        processes.start("planner", ["planner", "-c", str(path)])
        for node in demo.NODES[:2]:
            state = str(folder / "state")
            processes.start(node, ["node", "-c", str(path), "--id", node, "--state-dir", state])
        config = load_config(path)
        draw = np.random.default_rng(7)
        whole = Running(config, path, tuple(scene(draw, 3) for _ in range(4)))
        with Client(config, timeout_s=PATIENCE_S) as client:
            for stream in models:
                until_answered(client, stream, whole.scenes[0], processes)
        yield whole


def until_answered(client: Client, stream: str, one: Scene, processes: Processes) -> None:
    """Before the device has subscribed, frames are lost, which the client knows at once."""
    give_up = time.monotonic() + PATIENCE_S
    while isinstance(error := client.submit(one.pixels, stream=stream).exception(), FrameLost):
        assert "has never run at this broker" in str(error)
        processes.check()
        assert time.monotonic() < give_up
        time.sleep(0.2)
    assert error is None


def test_boxes_come_in_the_frames_pixels_from_whichever_tier_decodes_them(running: Running) -> None:
    frame = np.repeat(np.repeat(running.scenes[0].pixels, 4, axis=0), 4, axis=1)
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    last = "answer_detect"
    answers = []
    with Client(running.config, "finder", timeout_s=PATIENCE_S) as client:
        answers.append(client.publish(file.getvalue()))
        for first_on_edge in ("add_5", last):
            requests.place(running.config, StreamId("finder"), edge_from=first_on_edge, timeout_s=PATIENCE_S)
            answers.append(client.publish(file.getvalue()))
    assert [answer.result["tiers"] for answer in answers[1:]] == [["device", "edge"]] * 2
    for answer in answers:
        assert answer.result["boxes"] == answers[0].result["boxes"]
        assert np.array_equal(answer.outputs["answer_boxes"], answers[0].outputs["answer_boxes"])
    found = answers[0].boxes
    assert len(found) >= 2
    for box in found:
        middle = ((box.left + box.right) / 2, (box.top + box.bottom) / 2)
        inside = [
            CLASSES[kind] == box.label and left * 4 <= middle[0] <= right * 4 and top * 4 <= middle[1] <= bottom * 4
            for (left, top, right, bottom), kind in zip(running.scenes[0].boxes, running.scenes[0].classes, strict=True)
        ]
        assert any(inside)


def test_a_map_of_classes_comes_as_a_picture_too(running: Running) -> None:
    names = Namespace(running.config.pipeline)
    came: list[Message] = []
    with guest_session(running.config, "eye") as session, Client(running.config, "painter") as client:
        session.start(PATIENCE_S)
        session.subscribe([names.topic(topics.CLASS_MAP, stream="painter")], came.append)
        answer = client.publish(running.scenes[1].pixels)
        session.subscribe(["fence"], lambda _: None)  # its SUBACK comes behind what was on its way
    painted = answer.outputs["answer_classes"][0]
    assert (painted == running.scenes[1].map).mean() > 0.97
    with Image.open(io.BytesIO(came[0].payload)) as picture:
        assert np.array_equal(np.asarray(picture), painted)
        assert picture.info == {"stream": "painter", "sequence": str(answer.sequence)}
    shares = {share["index"]: share["share"] for share in answer.result["shares"]}
    assert shares[0] == pytest.approx((painted == 0).mean(), abs=1e-5)


def test_without_a_task_the_result_shows_outputs_and_names_no_class(running: Running) -> None:
    with Client(running.config, "gauge") as client:
        answer = client.publish(running.scenes[2].pixels)
    (output,) = answer.result["outputs"]
    assert (output["name"], output["shape"], output["dtype"]) == ("mean_2", [1, 3], "float32")
    assert output["first"] == pytest.approx(answer.outputs["mean_2"][0].tolist(), rel=1e-5)
    assert "top" not in answer.result


def test_frigate_gets_its_twenty_rows_and_zeros_for_what_is_no_picture(running: Running, tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/detector"
    command = [sys.executable, str(EXAMPLE), "--config", str(running.config_path), "--stream", "finder"]
    with subprocess.Popen([*command, "--endpoint", endpoint], stdout=subprocess.PIPE, text=True) as bridge:
        try:
            assert endpoint in (bridge.stdout.readline() if bridge.stdout else "")
            with zmq.Context() as context, context.socket(zmq.REQ) as frigate:
                frigate.connect(endpoint)
                frigate.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1e3))
                frigate.send_multipart([json.dumps({"model_request": True, "model_name": "yolo"}).encode()])
                assert json.loads(frigate.recv_multipart()[0]) == {"model_available": True, "model_loaded": True}
                one = running.scenes[0]
                rows = _asked(frigate, {"shape": [1, SIDE, SIDE, 3], "dtype": "uint8"}, one.pixels.tobytes())
                assert (_asked(frigate, {"shape": [1, 9, 9, 3], "dtype": "uint8"}, b"few") == 0).all()
        finally:
            bridge.terminate()
    found = rows[rows[:, 1] > 0]
    assert 2 <= len(found) < 20
    for kind, _, top, left, bottom, right in found:
        x, y = (left + right) / 2 * SIDE, (top + bottom) / 2 * SIDE
        boxes = zip(one.boxes, one.classes, strict=True)
        assert any(kind == k and b[0] <= x <= b[2] and b[1] <= y <= b[3] for b, k in boxes)


def _asked(frigate: zmq.Socket[bytes], header: dict[str, object], tensor: bytes) -> np.ndarray:
    frigate.send_multipart([json.dumps({**header, "model_type": "ssd"}).encode(), tensor])
    described, payload = frigate.recv_multipart()
    assert json.loads(described) == {"shape": [20, 6], "dtype": "float32"}
    return np.frombuffer(payload, np.float32).reshape(20, 6)


@pytest.fixture(scope="module")
def endpoint(running: Running) -> Iterator[str]:
    command = [sys.executable, "-m", "nodes.cli", "serve-http", "-c", str(running.config_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            said = server.stdout.readline() if server.stdout else ""
            yield said.rpartition("http://")[2].strip().removesuffix("/v2")
        finally:
            server.terminate()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tritons_client_sees_models_and_gets_their_outputs(running: Running, endpoint: str) -> None:
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

    one = running.scenes[0]
    with InferenceServerClient(endpoint, network_timeout=PATIENCE_S, connection_timeout=PATIENCE_S) as triton:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready("painter")
        about = triton.get_model_metadata("painter")
        assert about["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [1, SIDE, SIDE, 3]}]
        assert about["outputs"] == [{"name": "answer_classes", "datatype": "UINT8", "shape": [1, SIDE, SIDE]}]
        pixels = InferInput("frame", list(one.pixels.shape), "UINT8")
        pixels.set_data_from_numpy(one.pixels)
        ready = InferInput("image", [1, SIDE, SIDE, 3], "FP32")
        ready.set_data_from_numpy(task_networks.as_input(one.pixels), binary_data=False)
        painted = []
        for given, binary in ((pixels, True), (ready, False)):
            wanted = InferRequestedOutput("answer_classes", binary_data=binary)
            result = triton.infer("painter", [given], outputs=[wanted])
            painted.append(result.as_numpy("answer_classes"))
        assert (painted[0][0] == one.map).mean() > 0.97
        assert np.array_equal(painted[0], painted[1])
        answered = triton.infer("finder", [pixels]).get_response()["parameters"]["answer"]
        assert {box["label"] for box in json.loads(answered)["boxes"]} <= set(CLASSES)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_a_client_gets_wrong_is_an_error_at_once(running: Running, endpoint: str) -> None:
    from tritonclient.http import InferenceServerClient, InferInput
    from tritonclient.utils import InferenceServerException

    with InferenceServerClient(endpoint, network_timeout=PATIENCE_S, connection_timeout=PATIENCE_S) as triton:
        wrong = InferInput("frame", [3], "UINT8")
        wrong.set_data_from_numpy(np.array([1, 2, 3], np.uint8))
        with pytest.raises(InferenceServerException, match="3 bytes that begin with 01 02 03"):
            triton.infer("painter", [wrong])
        other = InferInput("other", [3], "UINT8")
        other.set_data_from_numpy(np.array([1, 2, 3], np.uint8))
        with pytest.raises(InferenceServerException, match="inputs other: model 'painter' takes image"):
            triton.infer("painter", [other])
        with pytest.raises(InferenceServerException, match="no model 'nothing'"):
            triton.infer("nothing", [wrong])
