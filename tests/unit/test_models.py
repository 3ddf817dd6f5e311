"""The zoo, and weights that are the same bits everywhere."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ModelError, UnknownModel
from pipeline.models import ZOO, ModelSource, lookup


def test_the_zoo_is_read_without_tensorflow() -> None:
    script = "import sys, pipeline.models, pipeline.profile, pipeline.frames, pipeline.engines; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"tensorflow", "keras"} & set(done.stdout.split())


def test_an_unknown_model_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UnknownModel, match="did you mean mobilenet_v2"):
        lookup("mobilenetv2")


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_entry_names_a_function_that_exists(name: str) -> None:
    from importlib import import_module

    from pipeline.backend import keras

    module, function = ZOO[name].build.split(":")
    assert callable(getattr(keras.applications if module.startswith("keras") else import_module(module), function))


def test_resnet18_has_the_published_number_of_parameters() -> None:
    from pipeline.backend import keras
    from pipeline.models.resnet18 import resnet18

    with keras.StatelessScope(initialize_variables=False):
        model = resnet18()
        assert sum(math.prod(v.shape) for v in model.trainable_variables) == 11_689_512
        assert model.output_shape == (None, 1000)


def test_a_draw_depends_on_its_key_alone_and_has_these_bits() -> None:
    from pipeline.models.weights import draw

    drawn = draw((3, 5), (7, 2, 1), -1.0, 1.0)
    assert np.array_equal(drawn, draw((3, 5), (7, 2, 1), -1.0, 1.0))
    assert not np.array_equal(drawn, draw((3, 5), (7, 2, 0), -1.0, 1.0))
    assert drawn.dtype == np.float32
    assert drawn.tobytes().hex().startswith(FIRST_BITS), "a change here changes every seeded model's digest"


FIRST_BITS = "70ad54bf026b523fe8b353bfa4a1113f"


def test_a_long_draw_is_uniform_and_begins_like_a_short_one() -> None:
    from pipeline.models.weights import draw

    drawn = draw((3_000_000,), (0, 0, 0), 2.0, 4.0)
    assert 2.0 <= drawn.min() < 2.001
    assert 3.999 < drawn.max() <= 4.0
    assert abs(float(drawn.mean(dtype=np.float64)) - 3.0) < 0.002
    assert np.array_equal(drawn[:10], draw((10,), (0, 0, 0), 2.0, 4.0))


@pytest.mark.parametrize("weights", ["seed:", "seed:-1", "seed:x", "seed:²", "seed:18446744073709551616"])
def test_a_seed_that_is_no_number_is_refused(weights: str) -> None:
    from pipeline.models.weights import seed_of

    with pytest.raises(ModelError, match="give seed:N"):
        seed_of(weights)


def test_signals_neither_die_nor_explode_and_the_answer_depends_on_the_frame() -> None:
    from pipeline.backend import tf
    from pipeline.models.build import build

    flat = build(ModelSource("m", "mobilenet_v2"))
    rng = np.random.default_rng(0)
    frames = [tf.constant(rng.uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)) for _ in range(2)]
    known = [{flat.inputs[0]: frame} for frame in frames]
    zeros = []
    for call in flat.calls:
        for tensors in known:
            tensors.update(zip(call.outputs, call.perform(tensors), strict=True))
        made = known[0][call.outputs[0]].numpy()
        if call is not flat.calls[-1]:
            assert 0.05 < made.std() < 20, call.layers
        if type(call.operation).__name__ == "ReLU":
            zeros.append(float((made == 0).mean()))
    assert 0.35 < float(np.mean(zeros)) < 0.65
    first, second = (tensors[flat.outputs[0]].numpy() for tensors in known)
    assert 1.0 / 1000 < first.max() < 0.9
    assert np.abs(first - second).max() > 1e-5


def test_weights_that_are_nothing_are_refused_before_the_model_is_filled() -> None:
    from pipeline.models.build import build

    with pytest.raises(ModelError, match="neither seed:N, imagenet, nor a file"):
        build(ModelSource("m", "mobilenet_v2", "no/such.weights.h5"))
    with pytest.raises(ModelError, match="no imagenet weights"):
        build(ModelSource("m", "resnet18", "imagenet"))


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    from pipeline.models.build import build

    path = tmp_path / "noise.keras"
    path.write_bytes(b"this is no model")
    with pytest.raises(ModelError, match=r"noise\.keras cannot be loaded"):
        build(ModelSource("m", str(path)))
    with pytest.raises(ModelError, match=r"no model file at .*absent\.keras"):
        build(ModelSource("m", str(tmp_path / "absent.keras")))


def test_the_names_of_imagenets_classes_come_in_the_order_of_their_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src.applications import imagenet_utils

    from pipeline.models.labels import imagenet_labels

    index = {str(i): [f"n{i}", f"class {i}"] for i in range(1000)}
    monkeypatch.setattr(imagenet_utils, "CLASS_INDEX", index)  # what Keras keeps of its download
    labels = imagenet_labels()
    assert labels is not None
    assert labels[:2] == ("class 0", "class 1")
    assert len(labels) == 1000


def test_without_a_network_there_are_no_names_and_no_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from keras.src.applications import imagenet_utils

    from pipeline.models.labels import imagenet_labels

    def offline(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(imagenet_utils, "CLASS_INDEX", None)
    monkeypatch.setattr(imagenet_utils.file_utils, "get_file", offline)
    assert imagenet_labels() is None
    assert "no network" in caplog.text
