"""A network that was really trained: it is as often right when split as when whole, for it gives the same bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.engines import Engine, create, unsplit
from pipeline.frames.decode import Preprocess
from pipeline.frames.inputs import to_inputs
from pipeline.models.load import load
from pipeline.models.source import ModelSource
from pipeline.prepare.model import PreparedModel
from pipeline.verify.cuts import splits

Array = npt.NDArray[Any]
SCRIPT = Path(__file__).parents[3] / "examples" / "train_digits.py"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the example leaves behind, run as its first lines say."""
    directory = tmp_path_factory.mktemp("digits")
    command = [sys.executable, str(SCRIPT), str(directory)]
    environment = {"PYTHONPATH": str(SCRIPT.parents[1]), "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("accuracy 0.9")
    return directory


@pytest.fixture(scope="module")
def engine() -> Engine:
    return create("tensorflow", 1)


@pytest.fixture(scope="module")
def model(engine: Engine, trained: Path) -> PreparedModel:
    return load(ModelSource("digits", str(trained / "digits.keras")))


def _accuracy(answers: list[Array], classes: Array) -> float:
    return float(np.mean([answer.argmax() == known for answer, known in zip(answers, classes, strict=True)]))


def test_the_digits_network_is_as_often_right_split_as_whole(
    engine: Engine, model: PreparedModel, trained: Path
) -> None:
    graph, data = model.graph, np.load(trained / "digits.npz")
    (output,) = graph.outputs
    whole = unsplit(engine, model)
    half = len(graph) // 2
    cut = tuple(t.id for t in graph.tensors if graph.producer[t.id] < half)
    device = engine.compile(model, range(half), graph.inputs, cut)
    cloud = engine.compile(model, range(half, len(graph)), cut, graph.outputs)
    frames = [to_inputs(picture, graph, Preprocess()) for picture in data["pictures"]]
    expected = [whole.run(frame)[output] for frame in frames]
    answers = [cloud.run(device.run(frame))[output] for frame in frames]
    assert all(np.array_equal(a, b) for a, b in zip(answers, expected, strict=True))
    assert _accuracy(answers, data["classes"]) == _accuracy(expected, data["classes"]) > 0.95


def test_the_digits_network_may_be_cut_anywhere(engine: Engine, model: PreparedModel, trained: Path) -> None:
    pictures = np.load(trained / "digits.npz")["pictures"]
    frame = to_inputs(pictures[0], model.graph, Preprocess())
    answer = unsplit(engine, model).run(frame)
    assert all(split.equal for split in splits(engine, model, frame, answer, placements=10))
