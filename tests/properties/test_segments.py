"""The law of this project: wherever a model is cut, its answer is the same, bit for bit."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engines import Engine, create, unsplit
from pipeline.models.load import load
from pipeline.models.source import ModelSource
from pipeline.prepare.model import prepare
from pipeline.tensorflow_runtime import keras
from tests.effort import examples
from tests.networks import frame_of, random_network, random_placement, run_split


@pytest.fixture(scope="module")
def engine() -> Engine:
    return create("tensorflow", 1)


@settings(max_examples=examples(5))
@given(seed=st.integers(0, 2**32 - 1))
def test_a_random_network_gives_the_same_bits_however_it_is_cut(engine: Engine, seed: int) -> None:
    draw = random.Random(seed)
    keras_model = random_network(draw)
    expected = keras_model.predict_on_batch  # before preparing uses the model up
    model_frame = np.random.default_rng(0).standard_normal((1, 12, 12, 3)).astype(np.float32)
    original = keras.tree.flatten(expected(model_frame))
    model = prepare(keras_model, "random")
    frame = frame_of(model.graph)
    frame[model.graph.inputs[0]] = model_frame
    whole = unsplit(engine, model).run(frame)
    for output, before in zip(model.graph.outputs, original, strict=True):
        assert np.abs(whole[output] - before).max() <= 1e-5 * max(1.0, float(np.abs(before).max()))
    for _ in range(2):
        split = run_split(engine, model, random_placement(model.graph, draw), frame)
        for output, array in zip(model.graph.outputs, split, strict=True):
            assert np.array_equal(whole[output], array)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
def test_a_real_network_gives_the_same_bits_however_it_is_cut(engine: Engine, name: str) -> None:
    model = load(ModelSource(name, name))
    frame = frame_of(model.graph)
    whole = unsplit(engine, model).run(frame)[model.graph.outputs[0]]
    assert np.isfinite(whole).all()
    assert whole.max() < 0.9, "a saturated softmax would hide differences"
    for seed in range(5):
        placement = random_placement(model.graph, random.Random(seed))
        assert np.array_equal(run_split(engine, model, placement, frame)[0], whole)
