"""`trisect profile`: what it writes, what it refuses, and how time is charged to blocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from nodes.cli import profile as profile_commands
from pipeline.engines import create
from pipeline.errors import ConfigError, UnknownModel
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.pictures.profile import picture
from pipeline.profiling.profile import Profile

SVG = "{http://www.w3.org/2000/svg}"


def _profile(seconds: tuple[float, ...]) -> Profile:
    spread = (0.0,) * len(seconds)
    return Profile("m<&>", "d", "tensorflow", "2", 2, "abacus x2", seconds, spread, sum(seconds), 0.0)


def _graph(blocks: int) -> ModelGraph:
    tensors = tuple(Tensor(i, f"t{i}", (1, i + 1), "float32") for i in range(blocks))
    chain = tuple(Block(i, f"<b&{i}>", f"Kind{i % 11}", (), (i - 1,), (i,)) for i in range(1, blocks))
    return ModelGraph("m<&>", "d", tensors, (Block(0, "input", "input", (), (), (0,)), *chain), (0,), (blocks - 1,))


@pytest.mark.parametrize("blocks", [1, 2, 30, 1041])
def test_a_picture_is_valid_svg_with_a_bar_and_a_mark_for_each_block(blocks: int) -> None:
    seconds = (0.0, *(10.0 ** -(i % 7) for i in range(1, blocks)))
    root = ElementTree.fromstring(picture(_graph(blocks), _profile(seconds)))
    bars = [rect for rect in root.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    assert len(bars) == blocks
    assert all(float(bar.attrib["height"]) >= 0 for bar in bars)
    marks = "".join(path.attrib["d"] for path in root.iter(f"{SVG}path") if path.attrib["stroke"] != "white")
    assert marks.count("M") == blocks


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras 3.15 saving, NumPy 2.4
def test_a_profile_of_a_file_is_written_as_json_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create("tensorflow", 1)
    from pipeline.tensorflow_runtime import keras
    from tests.networks import L

    image = keras.Input((16, 16, 3))
    x = L.Conv2D(4, 3, activation="relu")(image)
    keras.Model(image, L.Dense(2)(L.Flatten()(x))).save(tmp_path / "tiny.keras")
    code = _run([str(tmp_path / "tiny.keras")], tmp_path / "out")
    assert code == 0
    report = json.loads((tmp_path / "out" / "tiny.json").read_text())
    graph, profile = ModelGraph.from_json(report["graph"]), Profile.from_json(report["profile"])
    assert [block["seconds"] for block in report["graph"]["blocks"]] == list(profile.seconds)
    assert [tensor["nbytes"] for tensor in report["graph"]["tensors"]] == [t.nbytes for t in graph.tensors]
    assert profile.digest == graph.digest
    assert report["peak_memory_bytes"] > 1e7
    assert report["speed"]["macs_per_s"] > 0
    ElementTree.fromstring((tmp_path / "out" / "tiny.svg").read_text())
    assert "tiny" in capsys.readouterr().out


def _run(models: list[str], directory: Path, repeats: int = 2) -> int:
    return profile_commands.run(
        models, directory=directory, engine="tensorflow", threads=1, repeats=repeats, weights=None
    )


def test_an_unknown_name_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="did you mean resnet50"):
        _run(["vgg16", "resnet5O"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="repeats"):
        _run(["vgg16"], tmp_path / "out", repeats=0)


def test_a_file_that_is_no_model_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.keras").write_bytes(b"not a model")
    assert _run([str(tmp_path / "bad.keras")], tmp_path / "out") == 1
    assert "bad" in capsys.readouterr().out


def test_each_instant_of_a_run_is_charged_to_one_block() -> None:
    from pipeline.engines.tensorflow_trace import Event, by_run

    ps = 10**12
    events = [
        Event(0, 1, "not an operation"),
        Event(0, 20 * ps, "trisect_run"),
        Event(2 * ps, 4 * ps, "B0001/conv/Conv2D:Conv2D"),
        Event(3 * ps, 1 * ps, "B0002/within/another:Add"),
        Event(8 * ps, 2 * ps, "B0002/relu:Relu"),
        Event(9 * ps, 3 * ps, "prefix_B0003/x:Relu"),
        Event(30 * ps, 9 * ps, "trisect_run"),
        Event(31 * ps, 1 * ps, "B0001/conv/Conv2D:Conv2D"),
        Event(32 * ps, 1 * ps, "B0099/of/another/model:Add"),
    ]
    expected: Any = [[0, 4, 4, 2], [0, 1, 0, 0]]
    assert np.array_equal(by_run(events, 2, 4), expected)
