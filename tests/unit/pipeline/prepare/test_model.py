"""Preparing: what is folded, what is refused, and that the digest names the function and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.engines import create, unsplit
from pipeline.errors import ModelError, NotFunctional
from pipeline.graph import ModelGraph
from pipeline.models.load import load
from pipeline.models.source import ModelSource
from pipeline.prepare.model import PreparedModel, prepare
from pipeline.tensorflow_runtime import keras, tf
from tests.networks import L, frame_of, trained

create("tensorflow", 1)


def _conv_bn(make: Callable[[], Any], shape: tuple[int, ...]) -> Any:
    image = keras.Input(shape)
    return trained(keras.Model(image, L.ReLU()(L.BatchNormalization()(make()(image)))))


def _kinds(model: PreparedModel) -> list[str]:
    return [block.kind for block in model.graph.blocks[1:]]


def _same_answer(model: Any, tolerance: float = 1e-5) -> PreparedModel:
    """Prepare it, and compare with what it answered before."""
    original = keras.Model(model.inputs, model.outputs)
    seed_frame = [
        np.random.default_rng(1).integers(0, 4, (1, *t.shape[1:])).astype(t.dtype)
        if "int" in t.dtype
        else np.random.default_rng(1).standard_normal((1, *t.shape[1:])).astype(t.dtype)
        for t in model.inputs
    ]
    # not eagerly: there, layers of one shape share a kernel, and with it their weights
    answer = tf.function(lambda *arrays: original(list(arrays), training=False), autograph=False)
    expected = keras.tree.flatten(answer(*map(tf.constant, seed_frame)))
    expected = [np.asarray(array) for array in expected]
    prepared = prepare(model, "m")
    made = unsplit(create("tensorflow", 1), prepared).run(dict(zip(prepared.graph.inputs, seed_frame, strict=True)))
    for tensor, array in zip(prepared.graph.outputs, expected, strict=True):
        assert np.abs(made[tensor] - array).max() <= tolerance * max(float(np.abs(array).max()), 1e-3)
    return prepared


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: L.Conv2D(4, 3, use_bias=False), (8, 8, 3)),
        (lambda: L.Conv2D(4, 3, strides=2, groups=2), (8, 8, 2)),
        (lambda: L.Conv1D(4, 3, dilation_rate=2), (12, 3)),
        (lambda: L.Conv3D(2, 2), (4, 4, 4, 1)),
        (lambda: L.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 3)),
        (lambda: L.DepthwiseConv1D(3), (8, 3)),
        (lambda: L.SeparableConv2D(5, 3), (8, 8, 3)),
        (lambda: L.SeparableConv1D(5, 3), (8, 3)),
        (lambda: L.Conv2DTranspose(4, 3, strides=2), (5, 5, 3)),
        (lambda: L.Conv1DTranspose(4, 3), (5, 3)),
        (lambda: L.Dense(6), (7,)),
        (lambda: L.Dense(6, use_bias=False), (4, 7)),
    ],
)
def test_batch_norm_goes_into_every_kind_of_linear_layer(make: Callable[[], Any], shape: tuple[int, ...]) -> None:
    prepared = _same_answer(_conv_bn(make, shape))
    assert len(prepared.graph) == 2
    assert len(prepared.graph.blocks[1].layers) == 3


def test_batch_norm_stays_where_another_layer_reads_the_convolution() -> None:
    image = keras.Input((6, 6, 3))
    conv = L.Conv2D(3, 1)(image)
    model = trained(keras.Model(image, L.Add()([conv, L.BatchNormalization()(conv)])))
    assert _kinds(_same_answer(model)) == ["Conv2D", "BatchNormalization", "Add"]


def test_batch_norm_stays_where_the_convolution_is_an_output_nonlinear_or_shared() -> None:
    image = keras.Input((6, 6, 3))
    conv = L.Conv2D(3, 1)(image)
    shared = L.Conv2D(3, 1)
    ends = [
        conv,
        L.BatchNormalization()(conv),
        L.BatchNormalization()(L.Conv2D(3, 1, activation="relu")(image)),
        L.BatchNormalization()(shared(shared(image))),
        L.BatchNormalization(axis=1)(L.Conv2D(2, 1)(image)),
    ]
    prepared = _same_answer(trained(keras.Model(image, ends)))
    assert _kinds(prepared).count("BatchNormalization") == 4
    assert len({b.name for b in prepared.graph.blocks}) == len(prepared.graph)
    calls = [call.operation for block in prepared.calls for call in block]
    assert [calls.count(operation) for operation in calls].count(2) == 2, "two blocks share one layer"


def test_what_does_nothing_at_inference_is_no_block() -> None:
    image = keras.Input((6, 6, 3))
    x = L.GaussianNoise(0.1)(L.Dropout(0.5)(L.Identity()(image)))
    x = L.SpatialDropout2D(0.5)(L.Activation("linear")(L.Conv2D(3, 1)(x)))
    x = L.ActivityRegularization(0.1)(L.BatchNormalization()(x))
    assert _kinds(_same_answer(trained(keras.Model(image, x)))) == ["Conv2D"]


def test_an_input_that_is_the_output_passes_through() -> None:
    image = keras.Input((3,))
    prepared = _same_answer(keras.Model(image, [L.Dropout(0.5)(image), L.Dense(2)(image)]))
    assert prepared.graph.outputs[0] == prepared.graph.inputs[0]


def test_nested_models_are_opened_and_keep_their_path() -> None:
    inner = keras.Sequential([keras.Input((8,)), L.Dense(4, name="squeeze"), L.Dense(8)], name="inner")
    image = keras.Input((8,))
    outer = keras.Model(image, L.Add()([inner(inner(image)), image]), name="outer")
    top = keras.Input((8,))
    prepared = _same_answer(keras.Model(top, outer(top)))
    names = [block.name for block in prepared.graph.blocks]
    assert "outer/inner/squeeze" in names
    assert len(names) == len(set(names)) == 6


def test_a_nested_model_casts_its_input_as_keras_does() -> None:
    inner = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    counts = keras.Input((4,), dtype="int32")
    _same_answer(keras.Model(counts, inner(counts)))


def test_several_inputs_operations_constants_and_integers_work() -> None:
    words, bias = keras.Input((5,), dtype="int32"), keras.Input((4,))
    x = L.Embedding(10, 4)(words)
    x = keras.ops.mean(x, axis=1) * 2.0 + bias
    x = keras.ops.concatenate([x, keras.ops.relu(bias)], axis=-1)
    x = L.Reshape((2, 4))(x)
    x = L.MultiHeadAttention(2, 3)(x, x)
    _same_answer(keras.Model([words, bias], [x, keras.ops.cast(words, "float32")]))


def test_recurrent_and_pixel_models_work() -> None:
    series = keras.Input((6, 3))
    x, _ = L.GRU(4, return_state=True)(L.Bidirectional(L.LSTM(4, return_sequences=True))(series))
    _same_answer(keras.Model(series, x))
    pixels = keras.Input((6, 6, 3), dtype="uint8")
    _same_answer(trained(keras.Model(pixels, L.Conv2D(2, 3)(L.Rescaling(1 / 255)(pixels)))))


def test_macs_and_parameters_are_those_of_the_textbook() -> None:
    image = keras.Input((8, 8, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, padding="same", use_bias=False)(image)))
    x = L.DepthwiseConv2D(3, padding="same")(x)
    x = L.SeparableConv2D(6, 3, padding="same")(x)
    x = L.Conv2DTranspose(2, 2, strides=2)(x)
    model = prepare(keras.Model(image, L.Dense(5)(L.Flatten()(x))), "m")
    macs = {block.kind: (block.macs, block.parameters) for block in model.graph.blocks}
    assert macs["Conv2D"] == (64 * 27 * 4, 27 * 4 + 4)
    assert macs["DepthwiseConv2D"] == (64 * 9 * 4, 9 * 4 + 4)
    assert macs["SeparableConv2D"] == (64 * (9 * 4 + 4 * 6), 9 * 4 + 24 + 6)
    assert macs["Conv2DTranspose"] == (64 * 6 * 4 * 2, 4 * 2 * 6 + 2)
    assert macs["Dense"] == (512 * 5, 512 * 5 + 5)
    assert ModelGraph.from_json(model.graph.to_json()) == model.graph


def test_macs_of_attention_recurrence_and_products_are_those_of_the_textbook() -> None:
    series = keras.Input((6, 8))
    x = L.MultiHeadAttention(2, 4)(series, series)
    y = L.EinsumDense("abc,cd->abd", (6, 5))(x)
    z = keras.ops.matmul(y, keras.ops.transpose(y, (0, 2, 1)))
    model = prepare(keras.Model(series, [z, L.Bidirectional(L.LSTM(3))(x), L.GRU(3)(x)]), "m")
    macs = {block.kind: block.macs for block in model.graph.blocks}
    assert macs["MultiHeadAttention"] == 4 * 6 * 8 * 8 + 2 * 2 * 6 * 6 * 4
    assert macs["EinsumDense"] == 6 * 8 * 5
    assert macs["Matmul"] == 6 * 5 * 6
    assert macs["Bidirectional"] == 2 * 6 * (8 * 12 + 3 * 12)
    assert macs["GRU"] == 6 * (8 * 9 + 3 * 9)


class Subclassed(keras.Model):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x


class Dice(keras.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x + keras.random.normal((1, 3), seed=1) if not hasattr(self, "dice") else x + self.throw()

    def throw(self) -> Any:
        return keras.random.uniform((1, 3), seed=self.dice)


class SeededDice(Dice):
    def __init__(self) -> None:
        super().__init__()
        self.dice = keras.random.SeedGenerator(1)


class Counter(keras.Layer):  # type: ignore[misc]
    def build(self, shape: Any) -> None:
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x: Any) -> Any:
        self.count.assign(self.count + 1.0)
        return x * self.count


def _of(layer: Any, **arguments: Any) -> Any:
    x = keras.Input((3,))
    return keras.Model(x, layer(x, **arguments))


def _series(layer: Any, **options: Any) -> Any:
    x = keras.Input(batch_shape=(1, 4, 3))
    return keras.Model(x, layer(x))


def _any_size() -> Any:
    image = keras.Input((None, None, 3))
    return keras.Model(image, L.Conv2D(2, 3)(image))


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (Subclassed, "own call"),
        (lambda: keras.Sequential([L.Dense(3)]), "unknown input shape"),
        (_any_size, "unknown sizes"),
        (lambda: _series(L.LSTM(3, stateful=True)), "from frame to frame"),
        (lambda: _of(L.Dropout(0.5), training=True), "training=True"),
        (lambda: _of(SeededDice()), "random numbers"),
        (lambda: _of(Counter()), "changes a variable"),
    ],
)
def test_a_model_without_a_static_graph_is_refused_with_the_reason(build: Callable[[], Any], reason: str) -> None:
    with pytest.raises(NotFunctional, match=reason):
        prepare(build(), "m")


def _digest_of(**changes: float) -> str:
    image = keras.Input((6, 6, 2))
    x = L.BatchNormalization()(L.Conv2D(3, 3)(image))
    model = trained(keras.Model(image, L.LeakyReLU(negative_slope=changes.get("slope", 0.25))(x)), seed=3)
    model.layers[1].kernel.assign(np.linspace(-1, 1, 54).reshape(3, 3, 2, 3) + changes.get("weight", 0.0))
    return prepare(model, "m").graph.digest


def test_the_digest_names_structure_and_weights_not_layer_counters() -> None:
    digest = _digest_of()
    assert len(digest) == 32
    assert _digest_of() == digest
    assert _digest_of(weight=1e-6) != digest
    assert _digest_of(slope=0.3) != digest


def test_the_digest_changes_with_one_bit_of_one_weight() -> None:
    from pipeline.prepare.digest import digest
    from pipeline.prepare.flatten import Spec

    model = prepare(keras.Sequential([keras.Input((3,)), L.Dense(2)]), "m")
    specs = {t.id: Spec(t.shape, t.dtype) for t in model.graph.tensors}
    before = digest(model.calls, model.graph.inputs, model.graph.outputs, specs)
    assert before == model.graph.digest
    kernel = model.calls[1][0].operation.kernel
    bits = kernel.numpy().view(np.uint32)
    bits[0, 0] ^= 1
    kernel.assign(bits.view(np.float32))
    assert digest(model.calls, model.graph.inputs, model.graph.outputs, specs) != before


def test_another_process_that_built_other_models_before_gets_the_same_manifest() -> None:
    script = (
        "from pipeline.models.load import *; from pipeline.tensorflow_runtime import keras\n"
        "keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(1, 1), keras.layers.ReLU()])\n"
        "g = load(ModelSource('m', 'mobilenet_v2', 'seed:5')).graph; print(g.digest, hash(g.blocks) and g.blocks)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    graph = load(ModelSource("m", "mobilenet_v2", "seed:5")).graph
    assert done.stdout.strip() == f"{graph.digest} {graph.blocks}"
    assert done.stderr == "", "TensorFlow's start-up noise came through"
    assert load(ModelSource("m", "mobilenet_v2", "seed:6")).graph.digest != graph.digest


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras 3.15 saving, NumPy 2.4
def test_a_keras_file_brings_its_own_weights(tmp_path: Path) -> None:
    model = _conv_bn(lambda: L.Conv2D(4, 3), (8, 8, 3))
    model.save(tmp_path / "own.keras")
    model.save_weights(tmp_path / "own.weights.h5")
    from_file = load(ModelSource("m", str(tmp_path / "own.keras"))).graph.digest
    assert from_file == load(ModelSource("m", str(tmp_path / "own.keras"), "seed:9")).graph.digest
    weights = str(tmp_path / "own.weights.h5")
    assert from_file == load(ModelSource("m", str(tmp_path / "own.keras"), weights)).graph.digest
    assert from_file == prepare(model, "m").graph.digest
    with pytest.raises(ModelError, match=r"do not fit resnet18: the model needs 1\d\d arrays .* the file has 6 of 128"):
        load(ModelSource("m", "resnet18", weights))


def test_weights_that_were_folded_away_are_freed() -> None:
    import gc
    import weakref

    model = _conv_bn(lambda: L.Conv2D(4, 3), (8, 8, 3))
    originals = [weakref.ref(v) for v in model.variables]
    prepared = prepare(model, "m")
    del model
    gc.collect()
    assert [ref() for ref in originals] == [None] * len(originals)
    assert frame_of(prepared.graph)
