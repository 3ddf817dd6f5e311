"""The LiteRT engine: the same laws as TensorFlow's, and the same answers to five digits."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import engines
from pipeline.engines import Engine, create, unsplit
from pipeline.errors import ConfigError, PlanError
from pipeline.prepare.model import PreparedModel, prepare
from pipeline.tensorflow_runtime import keras
from tests.networks import L, frame_of, random_network, random_placement, run_split, trained


@pytest.fixture(scope="module")
def litert() -> Engine:
    return create("litert", 1)


@pytest.fixture(scope="module")
def model() -> PreparedModel:
    return prepare(random_network(random.Random(3)), "random")


def test_an_engine_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "tensorflow" else name)
    with pytest.raises(ConfigError, match=r"pip install 'trisect\[tensorflow\]'"):
        create("tensorflow", 1)
    assert engines.installed() == ("litert",)


@pytest.mark.parametrize("seed", range(6))
def test_a_random_network_gives_the_same_bits_however_it_is_cut(litert: Engine, seed: int) -> None:
    draw = random.Random(seed)
    cut = prepare(random_network(draw), "random")
    frame = frame_of(cut.graph)
    whole, reference = unsplit(litert, cut).run(frame), unsplit(create("tensorflow", 1), cut).run(frame)
    for output in cut.graph.outputs:
        assert np.abs(whole[output] - reference[output]).max() <= 1e-5 * np.abs(reference[output]).max()
        assert whole[output].argmax() == reference[output].argmax()
    for _ in range(2):
        split = run_split(litert, cut, random_placement(cut.graph, draw), frame)
        for output, array in zip(cut.graph.outputs, split, strict=True):
            assert np.array_equal(whole[output], array)


def test_arithmetic_is_not_moved_across_a_block_border(litert: Engine) -> None:
    image = keras.Input((6, 6, 3))
    x = L.Conv2D(4, 3)(image)
    cut = prepare(trained(keras.Model(image, ((x * 3.0) * 0.7 + 0.1) * 1.3)), "scaled")
    frame = frame_of(cut.graph)
    whole = unsplit(litert, cut).run(frame)[cut.graph.outputs[0]]
    known = dict(frame)
    for block in cut.graph.blocks[1:]:
        known.update(litert.compile(cut, (block.index,), block.inputs, block.outputs).run(known))
    assert np.array_equal(known[cut.graph.outputs[0]], whole)


def test_a_reshape_to_the_same_shape_passes_its_input_on(litert: Engine) -> None:
    vector = keras.Input((4,))
    cut = prepare(keras.Model(vector, L.Reshape((4,))(L.Flatten()(L.ReLU()(vector)))), "flat")
    frame = frame_of(cut.graph)
    for blocks in ((1,), (1, 2), (1, 2, 3)):
        last = blocks[-1]
        output = cut.graph.blocks[last].outputs[0]
        found = litert.compile(cut, blocks, cut.graph.inputs, (output,)).run(frame)[output]
        assert np.array_equal(found, np.maximum(frame[0], 0))
    output = cut.graph.blocks[3].outputs[0]
    middle = cut.graph.blocks[1].outputs[0]
    assert np.array_equal(litert.compile(cut, (2, 3), (middle,), (output,)).run({middle: frame[0]})[output], frame[0])


def _loops() -> Any:
    steps = keras.Input((9, 4))
    return keras.Model(steps, L.Dense(2)(L.GRU(5)(L.LSTM(6, return_sequences=True)(steps))))


def _attention() -> Any:
    words = keras.Input((12,), dtype="int32")
    x = L.Embedding(50, 16)(words)
    x = L.LayerNormalization()(L.Add()([x, L.MultiHeadAttention(2, 8)(x, x)]))
    return keras.Model(words, [L.Dense(4, activation="softmax")(L.GlobalAveragePooling1D()(x)), x])


def _bytes_and_more() -> Any:
    pixels, depth = keras.Input((8, 8, 3), dtype="uint8"), keras.Input((8, 8, 1))
    x = L.Conv2D(4, 3, padding="same", activation="relu")(L.Concatenate()([L.Rescaling(1 / 255)(pixels), depth]))
    wide = L.UpSampling2D(2, interpolation="bilinear")(x)
    return keras.Model([pixels, depth], [L.Conv2DTranspose(2, 3, strides=2)(wide), L.GlobalMaxPooling2D()(x)])


@pytest.mark.parametrize("build", [_loops, _attention, _bytes_and_more])
def test_other_kinds_of_networks_give_the_same_bits_too(litert: Engine, build: Callable[[], Any]) -> None:
    cut = prepare(trained(build()), "other")
    frame, draw = frame_of(cut.graph), random.Random(1)
    whole, reference = unsplit(litert, cut).run(frame), unsplit(create("tensorflow", 1), cut).run(frame)
    for output in cut.graph.outputs:
        assert np.abs(whole[output] - reference[output]).max() <= 1e-5 * np.abs(reference[output]).max()
    for _ in range(4):
        split = run_split(litert, cut, random_placement(cut.graph, draw), frame)
        for output, array in zip(cut.graph.outputs, split, strict=True):
            assert np.array_equal(whole[output], array)


def test_a_dropped_segment_gives_its_packed_weights_back(litert: Engine) -> None:
    row = keras.Input((2048,))
    wide = prepare(keras.Model(row, L.Dense(8)(L.Dense(2048)(row))), "wide")  # 17 MB
    frame, sizes = frame_of(wide.graph), []
    for _ in range(6):
        unsplit(litert, wide).run(frame)
        gc.collect()
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
    assert sizes[-1] - sizes[1] < 17_000_000


def test_outputs_outlive_the_next_run(litert: Engine, model: PreparedModel) -> None:
    segment, output = unsplit(litert, model), model.graph.outputs[0]
    first = segment.run(frame_of(model.graph, 1))[output]
    kept = first.copy()
    segment.run(frame_of(model.graph, 2))
    assert np.array_equal(first, kept)


def test_what_does_not_fit_is_refused(litert: Engine, model: PreparedModel) -> None:
    with pytest.raises(PlanError, match="is missing"):
        unsplit(litert, model).run({})
    with pytest.raises(PlanError, match="not made in its blocks"):
        litert.compile(model, (1,), (0,), (2,))


def test_a_profile_adds_up_to_the_whole(litert: Engine, model: PreparedModel) -> None:
    times = litert.profile(model, repeats=3)
    assert len(times.seconds) == len(times.spread) == len(model.graph)
    assert times.seconds[0] == 0.0
    assert sum(times.seconds) == pytest.approx(times.total_seconds)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras, when it saves
def test_bench_engines_prints_a_row_per_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nodes.cli import bench as bench_commands

    image = keras.Input((8, 8, 3))
    path = tmp_path / "tiny.keras"
    trained(keras.Model(image, L.Dense(3)(L.Flatten()(L.Conv2D(2, 3)(image))))).save(path)
    assert bench_commands.run([str(path)], threads=1, weights=None, json_path=tmp_path / "rows.json") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in engines.installed())
    assert (tmp_path / "rows.json").read_text().count('"relative_error"') == len(engines.installed())
