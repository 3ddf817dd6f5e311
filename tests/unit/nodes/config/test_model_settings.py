"""What a model's section means on a node: its labels, its preprocessing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nodes.config.model_settings import check_labels, labels_of, preprocess_of
from nodes.config.sections import ModelSection, PreprocessSection
from pipeline.errors import ConfigError


def with_labels(path: Path) -> ModelSection:
    return ModelSection.model_validate({"source": "vgg16", "labels": str(path)})


def test_labels_come_from_lines_or_a_keras_index(tmp_path: Path) -> None:
    lines, index, broken = tmp_path / "a.txt", tmp_path / "b.json", tmp_path / "c.json"
    lines.write_text("cat\ndog\n")
    index.write_text(json.dumps({"0": ["n1", "cat"], "1": ["n2", "dog"]}))
    broken.write_text("[]")
    assert labels_of(with_labels(lines)) == ("cat", "dog")
    assert labels_of(with_labels(index)) == ("cat", "dog")
    assert labels_of(ModelSection(source="vgg16")) is None
    for path in (broken, tmp_path / "missing.txt"):
        if path is broken:
            path.write_text('{"1": 3}')
        with pytest.raises(ConfigError, match=path.name):
            labels_of(with_labels(path))


def test_preprocessing_is_the_models_own_unless_configured() -> None:
    assert preprocess_of(ModelSection(source="vgg16")).mode == "caffe"
    own = PreprocessSection(size=(32, 48), mode="unit")
    chosen = preprocess_of(ModelSection(source="vgg16", preprocess=own))
    assert (chosen.size, chosen.mode) == ((32, 48), "unit")


def test_labels_that_are_more_or_fewer_than_classes_are_refused_and_a_byte_order_mark_is_none(tmp_path: Path) -> None:
    from nodes.config.model_settings import check_labels

    check_labels("net", ["x"] * 1000, 1000)
    check_labels("net", None, 1000)
    check_labels("net", ["x"] * 3, 0)
    with pytest.raises(ConfigError, match=r"models.net.labels: 999 labels for 1,000 classes"):
        check_labels("net", ["x"] * 999, 1000)
    (tmp_path / "labels.txt").write_bytes("\ufeffcat\ndog\n".encode())
    assert labels_of(with_labels(tmp_path / "labels.txt")) == ("cat", "dog")


@pytest.mark.parametrize("host", ["[::1]", "mqtts://broker", "broker/x", "user@broker", "a b"])
def test_a_host_is_a_host_alone(host: str) -> None:
    from pydantic import ValidationError

    from nodes.config.broker_section import BrokerSection

    with pytest.raises(ValidationError):
        BrokerSection(host=host)
    assert BrokerSection(host="::1").host == "::1"


@pytest.mark.parametrize("label", ["x" * 201, "\ud800"])
def test_a_label_that_no_result_can_carry_is_refused(label: str) -> None:
    check_labels("net", ["ä" * 200, "b"], 2)
    with pytest.raises(ConfigError, match=r"models\.net\.labels: label 2 is .* at most 200"):
        check_labels("net", ["a", label], 2)
