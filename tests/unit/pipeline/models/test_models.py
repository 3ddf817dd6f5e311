"""The zoo, and weights that are the same bits everywhere."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ModelError, UnknownModel
from pipeline.frames.decode import Preprocess, to_input
from pipeline.graph import Tensor
from pipeline.models import PAPERS, SCISSION, ZOO, ModelSource, lookup
from pipeline.models.facts import shipped
from tests.effort import in_longer_runs


def test_the_zoo_is_read_without_tensorflow() -> None:
    script = "import sys, pipeline.models, pipeline.profiling.profile, pipeline.frames.decode, pipeline.engines\n"
    script += "print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"tensorflow", "keras"} & set(done.stdout.split())


def test_an_unknown_model_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UnknownModel, match="did you mean mobilenet_v2"):
        lookup("mobilenetv2")


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_entry_names_a_function_that_exists(name: str) -> None:
    from importlib import import_module

    from pipeline.tensorflow_runtime import keras

    module, function = ZOO[name].build.split(":")
    assert callable(getattr(keras.applications if module.startswith("keras") else import_module(module), function))


def test_the_zoo_has_both_papers_networks_and_all_of_keras_applications() -> None:
    from pipeline.tensorflow_runtime import keras

    assert len(PAPERS) == 22
    assert len(SCISSION) == 18
    assert set(PAPERS) <= set(ZOO)
    offered = {name for name, value in vars(keras.applications).items() if callable(value)}
    assert {model.build.split(":")[1] for model in ZOO.values() if model.pretrained} == offered


@pytest.mark.parametrize("name", sorted(model.name for model in ZOO.values() if model.pretrained))
def test_pixels_are_preprocessed_as_keras_applications_does(name: str) -> None:
    """Its own function, found in the module that the network stands in, on random pixels."""
    from importlib import import_module

    from pipeline.tensorflow_runtime import keras

    function = getattr(keras.applications, ZOO[name].build.split(":")[1])
    home = import_module(function.__module__)
    if function.__module__.endswith(".resnet_v2") or not hasattr(home, "preprocess_input"):
        home = import_module("keras.src.applications.resnet_v2")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 5, 5, 3), np.uint8)
    expected = home.preprocess_input(pixels.astype(np.float32))
    made = to_input(pixels, Tensor(0, "x", (1, 5, 5, 3), "float32"), Preprocess(mode=ZOO[name].preprocess))
    assert np.array_equal(made, expected)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("alexnet", 61_100_840),
        ("vgg16", 138_357_544),
        ("resnet18", 11_689_512),
        ("darknet53", 41_609_928),
        ("inception_v4", 42_679_816),
    ],
)
def test_d3s_networks_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    from pipeline.models.build import _call
    from pipeline.tensorflow_runtime import keras

    with keras.StatelessScope(initialize_variables=False):
        model = _call(ZOO[name], weights=None)
        assert sum(math.prod(v.shape) for v in model.trainable_variables) == parameters
        assert model.output_shape == (None, 1000)
        assert model.input_shape == (None, *ZOO[name].input_shape)
    assert shipped()[name].parameters == parameters


@pytest.mark.parametrize("name", ["mobilenet", "mobilenet_v3_small", "efficientnet_b0"])
def test_what_is_shipped_of_a_model_is_what_it_is(name: str) -> None:
    from pipeline.models.measure import measure

    assert measure(ModelSource(name, name)) == shipped()[name]


def test_the_facts_of_the_whole_zoo_are_shipped() -> None:
    assert set(shipped()) == set(ZOO)
    assert shipped()["vgg16"].macs == pytest.approx(15.47e9, rel=0.01)
    assert shipped()["resnet50"].macs == pytest.approx(3.86e9, rel=0.01)
    assert shipped()["mobilenet_v2"].narrowest[0].nbytes == 1280 * 4
    assert all(facts.largest[0].nbytes >= facts.narrowest[0].nbytes for facts in shipped().values())


def test_models_are_listed_at_once_and_without_tensorflow() -> None:
    script = "import sys; from nodes.cli.app import main; sys.argv[1:] = ['models', '--json']\ntry: main()\n"
    script += "finally: assert not {'tensorflow', 'keras'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert [facts["name"] for facts in json.loads(done.stdout)] == list(PAPERS)


def test_a_model_is_too_large_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pipeline.models import host_memory
    from pipeline.models.build import build

    monkeypatch.setattr(host_memory, "available_bytes", lambda: 300_000_000)
    with pytest.raises(ModelError, match=r"to load and run model 'big' takes about 6\d\d MB of memory, 300 MB"):
        build(ModelSource("big", "vgg16"))
    with zipfile.ZipFile(tmp_path / "file.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", '{"class_name": "BatchNormalization"}')
        archive.writestr("model.weights.h5", bytes(200_000_000))
    with pytest.raises(host_memory.TooLarge, match="400 MB"):
        build(ModelSource("file", str(tmp_path / "file.keras")))
    assert host_memory.needed_bytes(ModelSource("none", str(tmp_path / "absent.keras"))) == 0
    package = tmp_path / "net.trisect"
    package.write_bytes(bytes(1234))
    assert host_memory.needed_bytes(ModelSource("net", str(package))) == 1234


def test_a_segment_is_too_large_before_it_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    from nodes.tier.segment_store import SegmentStore
    from pipeline import engines
    from pipeline.models import host_memory
    from pipeline.models.load import load
    from pipeline.tiles.tiling import Part

    engine = engines.create("tensorflow", 1)
    model = load(ModelSource("mobilenet", "mobilenet"))
    store = SegmentStore(engine, {"mobilenet": model})
    part = Part(tuple(range(1, len(model.graph))), model.graph.inputs, model.graph.outputs)
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 5_000_000)
    expected = r"31 blocks of model 'mobilenet' from '\w+' on take about [23]\d MB of memory, 5 MB are .*memory_mb"
    with pytest.raises(host_memory.TooLarge, match=expected):
        store.hold("cam", 1, "mobilenet", part)
    assert store.segment_of("cam", 1) is None
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 60_000_000)
    with pytest.raises(
        host_memory.TooLarge, match=r"32 blocks .* on, 2 times over, take about 7\d MB of memory, 60 MB"
    ):
        store.stand_by("mobilenet")
    monkeypatch.undo()
    store.hold("cam", 1, "mobilenet", part)
    assert store.segment_of("cam", 1) is not None


def test_a_limited_address_space_leaves_so_much_memory() -> None:
    script = (
        "import psutil, resource\n"
        "from pipeline.models.host_memory import available_bytes\n"
        "used = psutil.Process().memory_info().vms\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (192 << 20), resource.RLIM_INFINITY))\n"
        "print(available_bytes())\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), resource.RLIM_INFINITY))\n"
        "print(available_bytes())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    some, none = map(int, done.stdout.split())
    assert 0 < some <= 64 << 20
    assert none == 0


def test_memory_in_a_container_is_what_its_limit_leaves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from pipeline.models import host_memory

    monkeypatch.setattr(host_memory, "_CGROUP", tmp_path)
    free = host_memory.available_bytes()
    assert free > 1_000_000
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 600000\nfile 100000\n")
    assert host_memory.available_bytes() == 400_000
    (tmp_path / "memory.max").write_text("max\n")
    assert host_memory.available_bytes() > 1_000_000


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


@pytest.mark.parametrize(
    "name",
    [
        *("mobilenet_v2", "resnet18", "mobilenet_v3_small"),
        *(
            pytest.param(name, marks=in_longer_runs)
            for name in ("resnet50", "xception", "densenet121", "convnext_tiny")
        ),
    ],
)
def test_signals_neither_die_nor_explode_and_the_answer_depends_on_the_frame(name: str) -> None:
    from pipeline.models.activation_statistics import activation_of
    from pipeline.models.build import build
    from pipeline.tensorflow_runtime import tf

    flat = build(ModelSource("m", name))
    spec = Tensor(0, "x", flat.specs[flat.inputs[0]].shape, "float32")
    rng = np.random.default_rng(0)
    frames = [to_input(rng.integers(0, 256, spec.shape, np.uint8), spec, Preprocess(mode=ZOO[name].preprocess))
              for _ in range(2)]  # fmt: skip

    def run(image: Any) -> list[Any]:
        tensors = {flat.inputs[0]: image}
        for call in flat.calls:
            tensors.update(zip(call.outputs, call.perform(tensors), strict=True))
        return [tensors[call.outputs[0]] for call in flat.calls] + [tensors[flat.outputs[0]]]

    # not eagerly: layers of one shape would share a kernel, and it the first one's weights
    function = tf.function(run, autograph=False)
    (*made, first), (*_, second) = [[t.numpy() for t in function(tf.constant(frame))] for frame in frames]
    zeros, gates = [], set()
    for call, activation in zip(flat.calls, made, strict=True):
        if activation.ndim == 4 and call.inputs[0] not in flat.inputs:
            assert 0.05 < activation.std() < 20, call.layers
        if type(call.operation).__name__ == "Add" and len(call.inputs) == 1:  # x + 3, of a hard sigmoid
            gates.add(call.outputs[0])
        if activation_of(call.operation) in {"relu", "relu6"} and call.inputs[0] not in gates:
            zeros.append(float((activation == 0).mean()))
    assert not zeros or 0.35 < float(np.mean(zeros)) < 0.65
    assert 0.3 < np.log(first).std() < 5
    assert first.max() < 0.9
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


def test_a_file_whose_configuration_unpacks_to_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    from pipeline.models.load import load

    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("config.json", "w") as config:
        for _ in range(80):
            config.write(b" " * (1 << 20))
    with pytest.raises(ModelError, match=r"'config.json' in it unpacks to 83,886,080 bytes, more than the 67,108,864"):
        load(ModelSource("m", str(path)))
