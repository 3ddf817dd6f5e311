"""A pipeline of two engines: the edge runs LiteRT, the others TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import yaml

from broker import topics
from broker.server import Server, ServerSettings
from nodes.cli import demo, sample_images
from nodes.client import requests
from nodes.client.processes import Processes
from nodes.config.loader import load_config
from nodes.config.model_settings import preprocess_of, source_of
from nodes.protocol.messages import parse_json
from pipeline.frames.inputs import to_inputs
from pipeline.profiling.profile import Profile
from tests.system.conftest import Pipeline

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(300),
]

MODEL = "mobilenet_v2"
FRAMES = 6


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Broker, planner and three nodes, ready, with a plan."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "broker").mkdir()
    with Server(ServerSettings(persistence_dir=folder / "broker")) as server, Processes(folder) as processes:
        config_path = demo.write_config(folder, MODEL, server.port)
        settings = yaml.safe_load(config_path.read_text())
        settings |= {"engine": "tensorflow", "exact": "close"}
        settings["nodes"][demo.EDGE]["engine"] = "litert"
        config_path.write_text(yaml.safe_dump(settings, sort_keys=False))
        whole = Pipeline(folder, config_path, load_config(config_path), server, processes, sample_images.frames(FRAMES))
        for name in ("planner", *demo.NODES):
            whole.start(name)
        with whole.client() as client:
            whole.wait(client, lambda: client.ready() >= set(demo.NODES) and client.active is not None)
        yield whole


def expected(pipeline: Pipeline) -> list[dict[int, Any]]:
    """The outputs of the unsplit model on TensorFlow, frame by frame."""
    from pipeline import engines
    from pipeline.models.load import load

    section = pipeline.config.models[MODEL]
    engine = engines.create("tensorflow", demo.THREADS)
    model = load(source_of(MODEL, section))
    whole = engines.unsplit(engine, model)
    return [whole.run(to_inputs(image, model.graph, preprocess_of(section))) for image in pipeline.images]


def test_answers_over_two_engines_are_those_of_one_to_five_digits(mixed: Pipeline) -> None:
    profiles: dict[str, Profile] = {}
    with mixed.client() as client:
        client.session.subscribe(
            [client.names.filter(topics.PROFILE)],
            lambda message: profiles.update({message.topic: Profile.from_json(parse_json(message.payload))}),
        )
        mixed.wait(client, lambda: len(profiles) == len(demo.NODES))
        mine = {node: profiles[client.names.topic(topics.PROFILE, node=node, model=MODEL)] for node in demo.NODES}
        assert {node: profile.engine for node, profile in mine.items()} == {
            demo.DEVICE: "tensorflow",
            demo.EDGE: "litert",
            demo.CLOUD: "tensorflow",
        }
        # no frame was measured yet, so the plan is priced by the profiles: each tier by its engine's
        plan = requests.place(mixed.config, demo.STREAM, edge_from="15", cloud_from="40")
        for stage in plan["stages"]:
            blocks = [block for begin, end in stage["blocks"] for block in range(begin, end)]
            seconds = sum(mine[stage["node"]].seconds[block] for block in blocks)
            # what the node's probes say of its processor since then has a say, too
            assert seconds / 3 < plan["predicted"]["stages"][stage["tier"]] < 3 * seconds
        for number, image in enumerate(mixed.images):
            client.publish(image, str(number))
        mixed.wait(client, lambda: client.collected.whole == FRAMES)
    references = expected(mixed)
    for result in client.collected.results.values():
        assert result["tiers"] == ["device", "edge", "cloud"]
        reference = references[int(result["correlation"])]
        for tensor, array in client.collected.outputs[result["sequence"]].items():
            error = np.abs(array - reference[tensor]).max() / np.abs(reference[tensor]).max()
            assert error <= 1e-5
            assert array.argmax() == reference[tensor].argmax()
