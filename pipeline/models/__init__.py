"""The zoo: the models that go by a name, readable without TensorFlow.

An entry says what a planner, a device and a command line need to know; `build` names the function that makes the model,
which `pipeline/models/build.py` calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import UnknownModel
from pipeline.models.source import ModelSource

__all__ = ["PreprocessMode", "ModelSource", "ZOO", "ZooModel", "lookup"]

PreprocessMode = Literal["tf", "torch", "caffe", "unit", "none"]
"""How pixels become inputs, in the words of keras.applications; `unit` is x/255, `none` leaves 0 to 255."""


@dataclass(frozen=True, slots=True)
class ZooModel:
    """A named model: `input_shape` is (height, width, channels), `build` is "module:function".

    `pretrained` says whether `weights: imagenet` exists for it.
    """

    name: str
    input_shape: tuple[int, int, int]
    preprocess: PreprocessMode
    classes: int
    build: str
    pretrained: bool = True


_KERAS = "keras.applications"
_ALL = (
    ZooModel("mobilenet_v2", (224, 224, 3), "tf", 1000, f"{_KERAS}:MobileNetV2"),
    ZooModel("resnet18", (224, 224, 3), "torch", 1000, "pipeline.models.resnet18:resnet18", pretrained=False),
    ZooModel("vgg16", (224, 224, 3), "caffe", 1000, f"{_KERAS}:VGG16"),
)

ZOO: dict[str, ZooModel] = {model.name: model for model in _ALL}


def lookup(name: str) -> ZooModel:
    """The zoo's model of this name. Raises UnknownModel with the nearest names."""
    try:
        return ZOO[name]
    except KeyError:
        raise UnknownModel(name, ZOO) from None
