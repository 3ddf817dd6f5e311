"""Pack a source: load it with Keras, prepare it, write its operations and weights to a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.errors import TrisectError
from pipeline.graph import ModelGraph
from pipeline.lite.package import write
from pipeline.models import mode_of
from pipeline.models.labels import imagenet_labels
from pipeline.models.load import proved
from pipeline.models.source import ModelSource
from pipeline.prepare.lowering import lower


def pack(source: ModelSource, path: Path, carried: Mapping[str, Any] | None = None) -> ModelGraph:
    """Write the package of a source, with what is `carried` in it of its use: labels, preprocess, size, task.

    Raises UnknownModel, NotFunctional, ModelError.
    """
    model = proved(source)
    about: dict[str, Any] = {
        "source": Path(source.source).name,
        "weights": Path(source.weights).name,
        "preprocess": mode_of(source),
        "labels": imagenet_labels() if source.weights == "imagenet" else None,
        "trisect": version("trisect"),
        "keras": version("keras"),
        **(carried or {}),
    }
    write(path, lower(model), about)
    return model.graph


def serve() -> None:
    """Pack what standard input asks for, as JSON; standard output's last line says `error`, empty when it was done."""
    asked = json.load(sys.stdin)
    try:
        pack(ModelSource(**asked["source"]), Path(asked["path"]), asked["carried"])
    except TrisectError as error:
        print(json.dumps({"error": str(error), "kind": type(error).__name__}))
        raise SystemExit(1) from None
    print(json.dumps({"error": ""}))
