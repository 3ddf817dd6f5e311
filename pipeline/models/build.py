"""Make the Keras model that a source names, with its weights; translate Keras's complaints into ModelError.

Knows where models and weights come from, nothing of blocks.
"""

from __future__ import annotations

import math
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py

from pipeline.errors import ModelError
from pipeline.models import ModelSource, ZooModel, lookup
from pipeline.models.container import check_container
from pipeline.models.host_memory import check_fits
from pipeline.models.weights import Drawing, plan_weights, seed_of
from pipeline.prepare.flatten import FlatModel, flatten
from pipeline.prepare.unsupported import error_text
from pipeline.tensorflow_runtime import keras, own_as_tensor


def build(source: ModelSource) -> FlatModel:
    """The flattened model of a source. Raises UnknownModel, NotFunctional, ModelError."""
    return make(source)[1]


def make(source: ModelSource) -> tuple[Any, FlatModel]:
    """The Keras model of a source as Keras runs it, and the same flattened. They share layers and weights.

    Raises UnknownModel, NotFunctional, and ModelError, also for a model that would not fit into this machine's memory.
    """
    check_fits(source)
    if source.is_file:
        return _from_file(source)
    if source.input_size or source.imports:
        raise ModelError(f"model {source.source!r} is of the zoo: an input size and imports are for .keras files")
    zoo = lookup(source.source)
    if source.weights.startswith("seed:"):
        return _seeded(source.name, zoo, seed_of(source.weights))
    if source.weights == "imagenet":
        model = _pretrained(zoo)
    else:
        with keras.StatelessScope():
            model = _call(zoo, weights=None)
        model = _with_weights(model, source)
    return model, _of_zoo(model, source.name)


def _call(zoo: ZooModel, weights: str | None) -> Any:
    module, function = zoo.build.split(":")
    make = keras.applications if module == "keras.applications" else import_module(module)
    return getattr(make, function)(weights=weights, input_shape=zoo.input_shape, classes=zoo.classes)


def _seeded(name: str, zoo: ZooModel, seed: int) -> tuple[Any, FlatModel]:
    """In a StatelessScope Keras leaves variables empty until its end: the seeded draw is then their first value.

    Otherwise Keras would draw all of them first (4 s for VGG-16), and both copies would be in memory.
    """
    with keras.StatelessScope():
        model = _call(zoo, weights=None)
        flat = _of_zoo(model, name)
        drawings = plan_weights(flat, seed, zoo.preprocess)
        for variable in model.variables:
            if id(variable) in drawings:
                variable._initializer = _as_initializer(drawings[id(variable)])
    return model, flat


def _of_zoo(model: Any, name: str) -> FlatModel:
    flat = flatten(model, name, renumber=True, is_declared=True)
    flat.trace = None  # what it holds would stay in memory
    return flat


def _as_initializer(drawing: Drawing) -> Any:
    return lambda shape, dtype=None: own_as_tensor(drawing(shape), dtype)


def _pretrained(zoo: ZooModel) -> Any:
    if not zoo.pretrained:
        raise ModelError(f"model {zoo.name!r} has no imagenet weights; give seed:N or a weights file")
    try:
        return _call(zoo, weights="imagenet")
    except Exception as error:
        raise ModelError(
            f"imagenet weights of {zoo.name!r}: {error}; without a network give seed:N or a file"
        ) from error


def _from_file(source: ModelSource) -> tuple[Any, FlatModel]:
    path = Path(source.source).expanduser()
    if not path.is_file():
        raise ModelError(f"no model file at {path}")
    for package in source.imports:
        _import(package)
    check_container(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)  # safe: a file must not bring code
    except Exception as error:
        raise ModelError(f"{path} cannot be loaded as a Keras model: {error_text(error)}{_way_out(error)}") from error
    own = source.weights.startswith("seed:")
    model = model if own else _with_weights(model, source)
    return model, flatten(model, source.name, renumber=False, sizes=source.input_size)


def _import(package: str) -> None:
    """Import a package, from the present folder too: it registers its layers with Keras. Raises ModelError."""
    try:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        import_module(package)
    except Exception as error:
        raise ModelError(f"package {package!r} cannot be imported: {type(error).__name__}: {error}") from error


def _way_out(error: Exception) -> str:
    text = str(error)
    if "Could not locate" in text:
        return "; name the Python package that registers it: --import PACKAGE, in a configuration imports: [PACKAGE]"
    if "lambda" in text.lower() and "safe_mode" in text:
        return "; trisect runs no code out of a file: make the lambda a registered layer or function, and --import it"
    return ""


def _with_weights(model: Any, source: ModelSource) -> Any:
    path = Path(source.weights).expanduser()
    if not path.is_file():
        raise ModelError(f"model {source.name!r}: weights {source.weights!r} are neither seed:N, imagenet, nor a file")
    shapes = [tuple(variable.shape) for variable in model.variables]
    try:
        model.load_weights(path)
    except Exception as error:
        needed = f"the model needs {len(shapes):,} arrays of {sum(map(math.prod, shapes)):,} values"
        raise ModelError(
            f"weights {path} do not fit {source.source}: {needed}, {_held(path)}; {error_text(error)}"
        ) from error
    return model


def _held(path: Path) -> str:
    sizes: list[int] = []
    try:
        with h5py.File(path) as file:
            file.visititems(lambda _, item: sizes.append(item.size) if isinstance(item, h5py.Dataset) else None)
    except OSError:
        return "the file is no HDF5"
    return f"the file has {len(sizes):,} of {sum(sizes):,}"
