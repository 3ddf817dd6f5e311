"""A node's models and engine: light where it can be, the same on every node, refused in words."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nodes.cli.models import run_pack
from nodes.config.packed import from_options
from nodes.tier.loading import load
from pipeline import engines
from pipeline.errors import ConfigError, ModelError, NoKernel
from pipeline.lite.package import Package
from pipeline.models import store
from pipeline.models.source import ModelSource
from pipeline.tensorflow_runtime import keras
from tests.networks import L, trained

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras, when it saves


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "trisect" / "packages"


def saved(folder: Path, *layers: Any) -> ModelSource:
    image = keras.Input((12, 12, 3))
    x = image
    for layer in layers:
        x = layer(x)
    path = folder / "own.keras"
    trained(keras.Model(image, x)).save(path)
    return ModelSource("own", str(path))


def test_a_model_is_packed_once_for_all_nodes_and_comes_out_as_keras_computes_it(tmp_path: Path, cache: Path) -> None:
    source = saved(tmp_path, L.Conv2D(8, 3, activation="relu"), L.Flatten(), L.Dense(4))
    engine, models = load("auto", {"own": source}, 1, "everywhere")
    assert (engine.name, engine.promise(models.values()).tiles) == ("litert", "exact")
    (packed,) = cache.glob("*.trisect")
    written = packed.stat().st_ino  # a package is written to a new file, and its time of change is that of its last use
    load("auto", {"own": source}, 1, "everywhere")
    assert packed.stat().st_ino == written
    frame = np.random.default_rng(0).random((1, 12, 12, 3), np.float32)
    (made,) = engines.unsplit(engine, models["own"]).run({0: frame}).values()
    expected = keras.saving.load_model(source.source)(frame).numpy()
    assert np.abs(made - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_light_node_runs_a_package_where_there_is_no_tensorflow(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, L.Conv2D(8, 3, activation="relu"), L.GlobalAveragePooling2D())
    package = tmp_path / "own.trisect"
    monkeypatch.chdir(tmp_path)  # as a person names files
    here = ModelSource("own", "own.keras")
    assert run_pack(here, Path("own.trisect"), from_options("classify", None, "unit")) == 0
    about = Package(package).about
    assert (about["preprocess"], about["task"]["kind"], about["labels"]) == ("unit", "classify", None)
    script = f"""
import sys
sys.modules.update(dict.fromkeys(("tensorflow", "keras", "h5py")))
from nodes.tier import node  # all that a node needs
from nodes.cli.models import run_pack
from nodes.config.packed import from_options
from nodes.tier.loading import load
from pipeline import engines
from pipeline.models.source import ModelSource
from pipeline.profiling import calibration, cpu_probe, profile
engine, models = load("auto", {{"own": ModelSource("own", {str(package)!r})}}, 1, "everywhere")
print(engines.unsplit(engine, models["own"]).outputs, calibration.calibrate(engine).macs_per_s > 0)
print(cpu_probe.ProcessorProbe(engine).seconds() > 0, profile.measure(engine, models["own"], 2).total_seconds > 0)
try:
    load("auto", {{"zoo": ModelSource("zoo", "resnet18")}}, 1, "everywhere")
except Exception as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    first, second, third = done.stdout.strip().splitlines()
    assert first.endswith("True")
    assert second == "True True"
    assert "on a machine that has it: `trisect pack resnet18 -o resnet18.trisect`" in third


def test_auto_takes_tensorflow_for_a_block_that_litert_lacks_and_says_so(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved(tmp_path, L.Conv2D(8, 3), L.UpSampling2D(2, interpolation="bilinear"))
    with caplog.at_level(logging.INFO):
        engine, _ = load("auto", {"own": source}, 1, "everywhere")
    assert engine.name == "tensorflow"
    assert "engine auto takes tensorflow: litert lacks UpSampling2D (own: up_sampling2d" in caplog.text
    engine, models = load("litert", {"own": source}, 1, "everywhere")
    assert engine.name == "litert"
    assert "everywhere" not in engine.promise(models.values()).bits
    monkeypatch.setattr(engines, "installed", lambda: ("litert",))
    with pytest.raises(ConfigError, match=r"pip install 'trisect\[tensorflow\]', or give engine: litert"):
        load("auto", {"own": source}, 1, "everywhere")


def test_auto_takes_tensorflow_for_what_the_converter_refuses_and_litert_says_why(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved(tmp_path, L.Conv2D(8, 3))

    def refuse(_: ModelSource) -> None:
        raise NoKernel("no kernel for block 7")

    monkeypatch.setattr(store, "load", refuse)
    with caplog.at_level(logging.INFO):
        assert load("auto", {"own": source}, 1, "everywhere")[0].name == "tensorflow"
    assert "engine auto takes tensorflow: no kernel for block 7" in caplog.text
    with pytest.raises(NoKernel):
        load("litert", {"own": source}, 1, "everywhere")


def test_a_package_runs_with_litert_only(tmp_path: Path, cache: Path) -> None:
    package = tmp_path / "own.trisect"
    store.make(saved(tmp_path, L.Conv2D(8, 3)), package)
    source = ModelSource("own", str(package))
    model = store.load(source)
    with pytest.raises(ConfigError, match="'own' is a package: use engine litert"):
        engines.unsplit(engines.create("tensorflow", 1), model)
    with pytest.raises(ModelError, match="'own' is a package, which engine litert runs; give engine: auto or litert"):
        load("tensorflow", {"own": source}, 1, "everywhere")


def test_what_cannot_be_packed_says_why_and_leaves_nothing_behind(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ModelError, match="no model file at"):
        store.load(ModelSource("gone", str(tmp_path / "gone.keras")))
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"broken\.keras cannot be loaded as a Keras model"):
        store.load(ModelSource("broken", str(broken)))
    assert not list(cache.glob("*.trisect"))
