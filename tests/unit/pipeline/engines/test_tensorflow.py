"""Segments of the TensorFlow engine: what they give back, what they refuse, what they leave behind."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.engines import Engine, create, unsplit
from pipeline.errors import ConfigError, PlanError
from pipeline.prepare.model import PreparedModel, prepare
from pipeline.tensorflow_runtime import keras
from tests.networks import L, frame_of, trained


@pytest.fixture(scope="module")
def engine() -> Engine:
    return create("tensorflow", 1)


@pytest.fixture(scope="module")
def model() -> PreparedModel:
    image = keras.Input((8, 8, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3)(image)))
    return prepare(trained(keras.Model(image, L.Dense(2)(L.Flatten()(x)))), "small")


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown engine 'onnx': known: litert, tensorflow"):
        create("onnx", 1)


def test_a_process_keeps_its_number_of_threads(engine: Engine) -> None:
    assert create("tensorflow", engine.threads).version == engine.version
    with pytest.raises(ConfigError, match="already runs with 1 threads"):
        create("tensorflow", 2)
    with pytest.raises(ConfigError, match="at least 1"):
        create("tensorflow", 0)


def test_a_segment_without_blocks_hands_its_inputs_on(engine: Engine, model: PreparedModel) -> None:
    frame = frame_of(model.graph)
    for blocks in ((), (0,)):
        segment = engine.compile(model, blocks, (0,), (0,))
        assert np.array_equal(segment.run(frame)[0], frame[0])


def test_outputs_outlive_the_next_run_and_are_contiguous(engine: Engine, model: PreparedModel) -> None:
    segment = unsplit(engine, model)
    first = segment.run(frame_of(model.graph, 1))[model.graph.outputs[0]]
    kept = first.copy()
    second = segment.run(frame_of(model.graph, 2))[model.graph.outputs[0]]
    assert first.flags.c_contiguous
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)


def test_an_input_that_is_a_strided_or_unaligned_view_gives_the_same_bits(engine: Engine, model: PreparedModel) -> None:
    segment, frame = unsplit(engine, model), frame_of(model.graph)
    strided = np.empty((1, 8, 8, 6), np.float32)
    strided[..., ::2] = frame[0]
    unaligned = np.frombuffer(b"x" + frame[0].tobytes(), np.float32, offset=1)
    for view in (strided[..., ::2], unaligned.reshape(frame[0].shape)):
        for tensor, array in segment.run({0: view}).items():
            assert np.array_equal(array, segment.run(frame)[tensor])


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((1, 8, 8, 4), np.float32), r"is float32\(1, 8, 8, 4\), the model needs float32\(1, 8, 8, 3\)"),
        (np.zeros((1, 8, 8, 3), np.float64), "is float64"),
        (None, "is missing"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(
    engine: Engine, model: PreparedModel, array: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None, reason: str
) -> None:
    with pytest.raises(PlanError, match=reason):
        unsplit(engine, model).run({} if array is None else {0: array})


def test_blocks_that_do_not_fit_together_are_refused(engine: Engine, model: PreparedModel) -> None:
    with pytest.raises(PlanError, match="block 2 needs tensors"):
        engine.compile(model, (2,), (0,), (2,))
    with pytest.raises(PlanError, match="not made in its blocks"):
        engine.compile(model, (1,), (0,), (2,))
    with pytest.raises(PlanError, match="has 4"):
        engine.compile(model, (9,), (0,), (1,))
    with pytest.raises(PlanError, match="only tensors 0 to"):
        engine.compile(model, (1,), (0,), (99,))


class Liar(keras.Layer):  # type: ignore[misc]
    def call(self, x: object) -> object:
        return x

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*input_shape[:-1], 99)


def test_a_layer_that_declares_a_wrong_shape_has_the_one_it_makes(engine: Engine) -> None:
    image = keras.Input((3,))
    model = prepare(keras.Model(image, Liar(name="liar")(image)), "m")
    (output,) = model.graph.outputs
    assert model.graph.tensors[output].shape == (1, 3)
    assert unsplit(engine, model).run(frame_of(model.graph))[output].shape == (1, 3)


def test_a_dropped_segment_leaves_no_memory_behind(engine: Engine, model: PreparedModel) -> None:
    sizes = []
    for _ in range(4):
        for _ in range(8):
            unsplit(engine, model).run(frame_of(model.graph))
        gc.collect()
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
    assert sizes[-1] - sizes[1] < 8_000_000


def test_segments_share_the_weights_of_dense_layers(engine: Engine) -> None:
    row = keras.Input((4096,))
    wide = prepare(trained(keras.Model(row, L.Dense(8)(L.Dense(4096, activation="relu")(row)))), "wide")  # 67 MB
    held, sizes = [], []
    for _ in range(4):
        held.append(unsplit(engine, wide))
        held[-1].run(frame_of(wide.graph))
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
    assert sizes[-1] - sizes[0] < 67_000_000


@pytest.mark.parametrize(("activation", "use_bias"), [(None, True), ("relu", True), ("softmax", False)])
@pytest.mark.parametrize("size", [64, 2048])  # small ones are Keras's own, large ones are made in slices
def test_a_dense_layer_is_what_keras_computes(
    engine: Engine, activation: str | None, use_bias: bool, size: int
) -> None:
    row = keras.Input((size,))
    keras_model = trained(keras.Model(row, L.Dense(size, activation=activation, use_bias=use_bias)(row)))
    weights = [*keras_model.layers[-1].get_weights(), np.zeros(size)]
    model = prepare(keras_model, "dense")
    frame = frame_of(model.graph)
    product = frame[0].astype(np.float64) @ weights[0] + weights[1]
    expected = np.asarray(keras.activations.get(activation)(keras.ops.convert_to_tensor(product)))
    found = unsplit(engine, model).run(frame)[model.graph.outputs[0]]
    assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()


def test_nothing_is_written_to_stderr_by_a_whole_life() -> None:
    script = (
        "from pipeline.engines import *; e = create('tensorflow', 1)\n"
        "from pipeline.models.load import *; m = load(ModelSource('m', 'resnet18')); e.profile(m, 2)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
