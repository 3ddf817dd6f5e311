"""The zoo: the models that go by a name, readable without TensorFlow.

An entry says what a planner, a device and a command line need to know; `build` names the function that makes the model,
which `pipeline/models/build.py` calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import UnknownModel
from pipeline.models.source import ModelSource

__all__ = ["PreprocessMode", "ModelSource", "ZOO", "ZooModel", "lookup", "D3", "SCISSION", "PAPERS"]

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


_KERAS: tuple[tuple[str, int, PreprocessMode, dict[str, str]], ...] = (
    ("VGG", 224, "caffe", {"vgg16": "16", "vgg19": "19"}),
    ("ResNet", 224, "caffe", {"resnet50": "50", "resnet101": "101", "resnet152": "152"}),
    ("ResNet", 224, "tf", {"resnet50v2": "50V2", "resnet101v2": "101V2", "resnet152v2": "152V2"}),
    ("Xception", 299, "tf", {"xception": ""}),
    ("Inception", 299, "tf", {"inception_v3": "V3", "inception_resnet_v2": "ResNetV2"}),
    ("MobileNet", 224, "tf", {"mobilenet": "", "mobilenet_v2": "V2"}),
    ("MobileNet", 224, "none", {"mobilenet_v3_small": "V3Small", "mobilenet_v3_large": "V3Large"}),
    ("DenseNet", 224, "torch", {"densenet121": "121", "densenet169": "169", "densenet201": "201"}),
    ("NASNet", 331, "tf", {"nasnet_large": "Large"}),
    ("NASNet", 224, "tf", {"nasnet_mobile": "Mobile"}),
    *(
        ("EfficientNet", size, "none", {f"efficientnet_b{number}": f"B{number}"})
        for number, size in enumerate((224, 240, 260, 300, 380, 456, 528, 600))
    ),
    *(
        ("EfficientNetV2", size, "none", {f"efficientnet_v2_{letter.lower()}": letter})
        for letter, size in (("B0", 224), ("B1", 240), ("B2", 260), ("B3", 300), ("S", 384), ("M", 480), ("L", 480))
    ),
    ("ConvNeXt", 224, "none", {f"convnext_{s.lower()}": s for s in ("Tiny", "Small", "Base", "Large", "XLarge")}),
)
"""Family, height and width, preprocessing, and each name's ending in keras.applications; `none`: it is built in."""

_OWN: tuple[tuple[str, int, PreprocessMode], ...] = (
    ("alexnet", 224, "torch"),
    ("darknet53", 256, "unit"),
    ("inception_v4", 299, "tf"),
    ("resnet18", 224, "torch"),
)
_CLASSES = 1000

_ALL = (
    *(
        ZooModel(name, (size, size, 3), mode, _CLASSES, f"keras.applications:{family}{ending}")
        for family, size, mode, endings in _KERAS
        for name, ending in endings.items()
    ),
    *(
        ZooModel(name, (size, size, 3), mode, _CLASSES, f"pipeline.models.{name}:{name}", pretrained=False)
        for name, size, mode in _OWN
    ),
)

ZOO: dict[str, ZooModel] = {model.name: model for model in _ALL}


D3 = ("alexnet", "vgg16", "resnet18", "darknet53", "inception_v4")
"""The networks of D3 (Zhang et al.), in its order."""

SCISSION = (
    *("vgg16", "vgg19", "xception", "resnet50", "resnet101", "resnet152", "resnet50v2", "resnet101v2", "resnet152v2"),
    *("inception_v3", "inception_resnet_v2", "mobilenet", "mobilenet_v2", "densenet121", "densenet169", "densenet201"),
    *("nasnet_large", "nasnet_mobile"),
)
"""The networks of Scission (Lockhart et al.), all from keras.applications."""

PAPERS = tuple(dict.fromkeys((*D3, *SCISSION)))
"""Both papers' networks, each once."""


def lookup(name: str) -> ZooModel:
    """The zoo's model of this name. Raises UnknownModel with the nearest names."""
    try:
        return ZOO[name]
    except KeyError:
        raise UnknownModel(name, ZOO) from None


def mode_of(source: ModelSource) -> PreprocessMode | None:
    """Pixel mode of a model of the zoo; None for a file, which does not say. Raises UnknownModel."""
    return None if source.is_file else lookup(source.source).preprocess
