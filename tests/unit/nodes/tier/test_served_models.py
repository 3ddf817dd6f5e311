"""A node's models: settings read before they are loaded, labels held against them, and versions that join them."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from nodes.cli.models import check_carried
from nodes.config.sections import Config
from nodes.tier.pushed_models import Pushed
from nodes.tier.served_models import ModelSettings, ServedModels, check_fit
from pipeline.answers.task import Task
from pipeline.errors import ConfigError, ModelError
from pipeline.lite.package import Package
from pipeline.lite.sketch import Layer, Sketch, save
from pipeline.pieces.manifest import manifest_of
from pipeline.plan import NodeId, StreamId
from pipeline.profiling import calibration

NODE, CAM, DOOR = NodeId("device-1"), StreamId("camera"), StreamId("door")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(calibration, "calibrate_or_load", lambda engine: None)  # seconds of measuring


def package(path: Path, side: int, **carried: Any) -> Path:
    layers = (Layer("conv", "conv", ("image",), 3, 8), Layer("mean", "mean", ("conv",)))
    sketch = Sketch("net", (side, side, 3), (*layers, Layer("head", "dense", ("mean",), 1, 2)))
    save(sketch, path, preprocess="unit", carried=carried)
    return path


def configured(models: Mapping[str, Mapping[str, Any]]) -> Config:
    """The first model is that of this device's stream, the last one another device's."""
    names = list(models)
    return Config.model_validate(
        {
            "pipeline": "p",
            "nodes": {NODE: {"tier": "device", "threads": 1}, "device-2": {"tier": "device"}},
            "models": models,
            "streams": {CAM: {"device": NODE, "model": names[0]}, DOOR: {"device": "device-2", "model": names[-1]}},
        }
    )


def own(config: Config) -> dict[StreamId, Any]:
    return {name: stream for name, stream in config.streams.items() if stream.device == NODE}


def loaded(config: Config, *pushed: Pushed) -> ServedModels:
    return ServedModels(config, NODE, own(config), ModelSettings.read(config, own(config)), pushed)


def version(path: Path) -> Pushed:
    opened = Package(path)
    manifest = manifest_of(opened, name="net", labels=(path.stem, "none"))
    return Pushed("net", f"net.{manifest.digest[:12]}", manifest.digest, opened, manifest)


def test_files_of_labels_are_read_on_the_device_that_needs_them(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    here = {"source": "vgg16", "labels": str(tmp_path / "labels.txt")}
    there = {"source": "resnet18", "labels": str(tmp_path / "missing.txt")}
    config = configured({"a": here, "b": there})
    settings = ModelSettings.read(config, own(config))
    assert (settings.of_files, settings.pushed, settings.labels) == (("a", "b"), (), {"a": ("cat", "dog")})
    assert settings.preprocess["b"].size == (224, 224)
    config = configured({"b": there, "a": here})
    with pytest.raises(ConfigError, match=r"missing\.txt"):
        ModelSettings.read(config, own(config))


@pytest.mark.parametrize("labels", ["cat\ndog\n", "cat\ndog\nhen\n"])
def test_labels_have_to_be_as_many_as_classes(tmp_path: Path, labels: str) -> None:
    (tmp_path / "labels.txt").write_text(labels)
    source = str(package(tmp_path / "net.trisect", 16))
    config = configured({"net": {"source": source, "labels": str(tmp_path / "labels.txt"), "task": "classify"}})
    if labels.count("\n") == 2:
        assert loaded(config).answers["net"].labels == ("cat", "dog")
    else:
        with pytest.raises(ConfigError, match=r"models\.net\.labels: 3 labels for 2 classes"):
            loaded(config)


def test_a_package_carries_its_use_and_the_configuration_comes_before_it(tmp_path: Path) -> None:
    carried = {"labels": ["cat", "dog"], "size": [8, 8], "task": asdict(Task("classify", "softmax", most=1))}
    path = package(tmp_path / "net.trisect", 8, **carried)
    manifest = manifest_of(Package(path), name="net")
    pushed = Pushed("net", "net.0123456789ab", manifest.digest, Package(path), manifest)
    served = [
        loaded(configured({"net": {"source": str(path)}})).answers["net"],
        loaded(configured({"net": {"source": "pushed"}}), pushed).answers[pushed.name],
    ]
    for answers in served:
        assert (answers.task, answers.labels) == (Task("classify", "softmax", most=1), ("cat", "dog"))
        assert (answers.preprocess.size, answers.preprocess.mode) == ((8, 8), "unit")
        assert answers.graph.blocks[-1].name == "answer_classify"
    check_carried(Package(path), carried)
    with pytest.raises(ConfigError, match="1 labels for 2 classes"):
        check_carried(Package(path), {**carried, "labels": ["cat"]})
    with pytest.raises(ModelError, match="segment"):
        check_carried(Package(path), {"task": asdict(Task("segment"))})
    raw = loaded(configured({"net": {"source": str(path), "task": "raw"}})).answers["net"]
    assert raw.task is not None
    assert raw.task.kind == "raw"


def test_a_version_joins_the_others_under_its_own_name(tmp_path: Path) -> None:
    first, second = version(package(tmp_path / "cat.trisect", 16)), version(package(tmp_path / "dog.trisect", 24))
    models = loaded(configured({"net": {"source": "pushed"}}), first)
    held = models.loaded, models.graphs, models.preprocess, models.answers, models.profiles
    assert [list(one) for one in held] == [[first.name]] * len(held)
    assert models.arrived(second) == (CAM,)
    assert [list(one) for one in held] == [[first.name, second.name]] * len(held)
    assert models.versions.model_of == {CAM: second.name}
    assert [models.answers[one.name].labels for one in (first, second)] == [("cat", "none"), ("dog", "none")]
    assert {graph.name for graph in models.manifests().values()} == {"net"}
    assert len(models.manifests()) == 2


def test_a_version_that_fits_neither_its_task_nor_its_labels_is_refused_in_words(tmp_path: Path) -> None:
    pushed = version(package(tmp_path / "cat.trisect", 16))
    check_fit(configured({"net": {"source": "pushed"}}), pushed)
    with pytest.raises(ModelError, match="boxes"):
        check_fit(configured({"net": {"source": "pushed", "task": "detect"}}), pushed)
    manifest = manifest_of(pushed.package, name="net", labels=("one", "two", "three"))
    with pytest.raises(ConfigError, match="3 labels for 2 classes"):
        check_fit(configured({"net": {"source": "pushed"}}), replace(pushed, manifest=manifest))


def test_an_older_version_that_a_plan_has_moves_no_stream_and_can_be_gone_back_to(tmp_path: Path) -> None:
    old, new = version(package(tmp_path / "cat.trisect", 16)), version(package(tmp_path / "dog.trisect", 24))
    models = loaded(configured({"net": {"source": "pushed"}}), new)
    models.add_older(old)
    assert models.versions.model_of == {CAM: new.name}
    assert models.graphs.keys() == {old.name, new.name}
    assert models.versions.refuses(CAM, new.name, ModelError("array 3 is damaged")) == old.name
