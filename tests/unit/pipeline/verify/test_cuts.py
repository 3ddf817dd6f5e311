"""Verifying: what it draws, what it compares, and that it notices a single differing bit."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.engines import Engine, Loaded, Segment, create
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.models.source import ModelSource
from pipeline.tensorflow_runtime import keras
from pipeline.verify.cuts import Original, Prepared, Split, random_placement, verdict, verify
from tests.graphs import all_placements
from tests.networks import L, trained

ENGINE = create("tensorflow", 1)


def _diamond() -> ModelGraph:
    reads = [(), (0,), (1,), (1,), (2,), (4, 3)]
    blocks = [Block(i, f"b{i}", "Conv2D" if i else "input", (), r, (i,)) for i, r in enumerate(reads)]
    tensors = [Tensor(i, f"t{i}", (1, 2), "float32") for i in range(len(reads))]
    return ModelGraph("diamond", "0", tuple(tensors), tuple(blocks), (0,), (5,))


def test_random_placements_are_monotone_and_every_one_of_a_diamond_comes_up() -> None:
    graph, draw = _diamond(), random.Random(0)
    drawn = {random_placement(graph, draw) for _ in range(3000)}
    assert drawn == set(all_placements(graph))


class OneBitOff:
    """An engine whose segments of fewer than all blocks are wrong in the last bit."""

    name, version, threads = "wrong", "0", 1

    def compile(self, model: Loaded, blocks: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> Segment:
        segment = ENGINE.compile(model, blocks, inputs, outputs)
        return segment if len(blocks) == len(model.graph) else _Wrong(segment)

    compile_tile, profile = ENGINE.compile_tile, ENGINE.profile
    promise, sketched = ENGINE.promise, ENGINE.sketched


class _Wrong:
    def __init__(self, right: Segment) -> None:
        self._right, self.inputs, self.outputs = right, right.inputs, right.outputs

    def run(self, tensors: Mapping[int, Any]) -> dict[int, Any]:
        return {i: np.nextafter(array, np.float32(9)) for i, array in self._right.run(tensors).items()}


def _saved(model: Any, path: Path) -> ModelSource:
    model.save(path)
    return ModelSource(path.stem, str(path))


def _branching() -> Any:
    image = keras.Input((12, 12, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(image)))
    x = L.Add()([x, L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(x))])
    return trained(keras.Model(image, L.Dense(5, activation="softmax")(L.Flatten()(L.ReLU()(x)))))


def _transformer() -> Any:
    """A small encoder over tokens: positions, attention, layer norms, an operation of keras.ops."""
    words = keras.Input((12,), dtype="int32", name="words")
    x = L.Embedding(50, 16, name="meaning")(words)
    x = x + L.Embedding(12, 16, name="position")(keras.ops.zeros_like(words) + np.arange(12, dtype=np.int32))
    for number in (1, 2):
        x = L.LayerNormalization()(L.Add()([x, L.MultiHeadAttention(2, 8, name=f"attention{number}")(x, x)]))
        y = L.Dense(16)(L.Dense(32, activation="gelu")(x))
        x = L.LayerNormalization()(L.Add()([x, y]))
    return keras.Model(words, L.Dense(4, activation="softmax")(keras.ops.mean(x, axis=1)))


def _shared_nested_and_many() -> Any:
    """Two inputs, one of them bytes; a layer called twice; a model inside; three outputs."""
    pixels, other = keras.Input((8, 8, 3), dtype="uint8", name="pixels"), keras.Input((8, 8, 4), name="other")
    inner = keras.Sequential([keras.Input((8, 8, 4)), L.Conv2D(4, 3, padding="same"), L.BatchNormalization(), L.ReLU()])
    conv = L.Conv2D(4, 3, padding="same", name="twice")
    x = conv(inner(L.Conv2D(4, 1)(L.Rescaling(1 / 255)(pixels))))
    y = conv(inner(other))
    z = keras.ops.maximum(x, y) * 0.5
    return trained(keras.Model([pixels, other], {"z": z, "mean": L.GlobalAveragePooling2D()(z), "y": y}))


def _sequential() -> Any:
    layers = [keras.Input((10, 3)), L.Conv1D(4, 3), L.BatchNormalization(), L.LSTM(5), L.Dense(2)]
    return trained(keras.Sequential(layers))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras 3.15 saving, NumPy 2.4
@pytest.mark.parametrize("build", [_branching, _transformer, _shared_nested_and_many, _sequential])
def test_both_laws_hold_for_every_kind_of_file(build: Any, tmp_path: Path) -> None:
    source = _saved(build(), tmp_path / "own.keras")
    steps = list(verify(ENGINE, source, placements=6, seed=1))
    assert [type(step) for step in steps] == [Prepared, Original, *[Split] * 6]
    made = verdict(steps, ENGINE)
    assert made.holds, made
    assert made.placements == made.equal == 6
    assert sum(step.sent_bytes for step in steps if isinstance(step, Split)) > 0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_one_differing_bit_is_noticed_and_named(tmp_path: Path) -> None:
    engine: Engine = OneBitOff()
    source = _saved(_branching(), tmp_path / "own.keras")
    made = verdict(list(verify(engine, source, placements=4)), engine)
    assert not made.holds
    assert made.equal < 4
    assert made.unequal[0].differing == ("dense",) or made.unequal[0].differing[0].startswith("dense")
    assert set(made.unequal[0].tiers) <= set("dec")


def test_a_deep_network_holds_both_laws() -> None:
    steps = list(verify(ENGINE, ModelSource("m", "resnet18"), placements=2))
    assert verdict(steps, ENGINE).holds


def test_the_command_writes_what_it_found_and_its_exit_code_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nodes.cli.models import run_verify

    path = tmp_path / "verdicts.json"
    options: dict[str, Any] = {"weights": "seed:0", "placements": 1, "seed": 0, "threads": 1, "json_path": path}
    assert run_verify(["mobilenet"], engine="tensorflow", **options) == 0
    (found,) = json.loads(path.read_text())
    assert (found["model"], found["equal"], found["holds"]) == ("mobilenet", 1, True)
    monkeypatch.setattr("pipeline.engines.create", lambda *_, **__: OneBitOff())
    assert run_verify(["mobilenet"], engine="wrong", **options | {"seed": 2}) == 1
    assert "differ when cut as d" in capsys.readouterr().out
