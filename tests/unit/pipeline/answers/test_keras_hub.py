"""A model of KerasHub with random weights: its outputs fit its task, and its answer has its shape.

Where keras-hub is installed (it is no dependency: it brings tensorflow-text), in longer runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nodes.tier.answer_format import AnswerFormat
from pipeline import engines
from pipeline.answers.task import Task
from pipeline.engines.answering import AnsweringEngine, answering
from pipeline.frames.decode import Preprocess
from pipeline.lite.package import Package
from pipeline.models import store
from pipeline.models.source import ModelSource
from tests.effort import in_longer_runs

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras, when it saves
SIDE = 64
CLASSES = 5


@in_longer_runs
def test_a_classifier_of_keras_hub_answers_its_task(tmp_path: Path) -> None:
    hub = pytest.importorskip("keras_hub")
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64] * 4,
        stackwise_num_blocks=[1] * 4,
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
        image_shape=(SIDE, SIDE, 3),
    )
    hub.models.ResNetImageClassifier(backbone=backbone, num_classes=CLASSES).save(tmp_path / "hub.keras")
    source = ModelSource("hub", str(tmp_path / "hub.keras"), imports=("keras_hub",))
    store.make(source, tmp_path / "hub.trisect")
    task = Task("classify", "softmax", most=3)
    model = answering(Package(tmp_path / "hub.trisect"), task)
    frame = np.random.default_rng(0).random((1, SIDE, SIDE, 3), np.float32)
    outputs = engines.unsplit(AnsweringEngine(engines.create("litert", 1)), model).run({0: frame})
    result = AnswerFormat(model.graph, Preprocess(), task).fields(outputs, np.zeros((SIDE, SIDE, 3), np.uint8), None)
    assert result["task"] == "classify"
    assert [0 <= one["index"] < CLASSES for one in result["top"]] == [True] * 3
