"""A model's section of the configuration, resolved on a node: its source, preprocessing and labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from broker.complaints import shortened
from nodes.config.sections import ModelSection
from nodes.config.task_section import TaskSection
from pipeline.answers.task import Task, read_task
from pipeline.errors import ConfigError
from pipeline.files import read_bounded
from pipeline.frames.decode import Preprocess
from pipeline.lite.package import SUFFIX, Package
from pipeline.models import ZOO, PreprocessMode, lookup
from pipeline.models.source import ModelSource

MOST_LABELS_BYTES = 16 << 20
MOST_LABEL = 200
"""Characters of a label, as in a pushed package: results carry several of them."""
MOST_SIDE = 65_536


def source_of(name: str, section: ModelSection) -> ModelSource:
    """The model's source, as its section has it."""
    weights = "seed:0" if section.weights is None else section.weights
    return ModelSource(name, section.source, weights, section.input_size, section.imports)


def preprocess_of(section: ModelSection) -> Preprocess:
    """Preprocessing of frames: as configured, else that of the zoo's model; a file's default are pixels from
    0 to 255.
    """
    if section.preprocess is not None:
        return Preprocess(size=section.preprocess.size, mode=section.preprocess.mode)
    if section.source.endswith(SUFFIX):
        return _packed_preprocess(section)
    if section.is_file:
        return Preprocess(size=None, mode="none")
    model = lookup(section.source)
    return Preprocess(size=model.input_shape[:2], mode=model.preprocess)


def _packed_preprocess(section: ModelSection) -> Preprocess:
    """Preprocessing as stored in a package. Raises ModelError for a file that is no package."""
    about = Package(Path(section.source)).about
    known: tuple[PreprocessMode, ...] = get_args(PreprocessMode)
    mode: PreprocessMode = next((one for one in known if one == about.get("preprocess")), "none")
    match about.get("size"):
        case [int(height), int(width)] if 0 < height <= MOST_SIDE and 0 < width <= MOST_SIDE:
            return Preprocess(size=(height, width), mode=mode)
    return Preprocess(size=None, mode=mode)


def labels_of(section: ModelSection) -> tuple[str, ...] | None:
    """The names of the model's classes: as configured, or ImageNet's with its weights. Raises ConfigError."""
    if section.labels is None and section.source.endswith(SUFFIX):
        held = Package(Path(section.source)).about.get("labels")
        return tuple(map(str, held)) if isinstance(held, list) else None
    if section.labels is None:
        return _imagenet_labels() if section.weights == "imagenet" else None
    return read_labels(section.labels)


def read_labels(path: Path) -> tuple[str, ...]:
    """The names of classes in a file: one a line, or as Keras's index. Raises ConfigError."""
    try:
        return _read_labels(path)
    except OSError as error:
        raise ConfigError(f"models: labels: {path}: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = shortened(f"{type(error).__name__}: {error}")
        raise ConfigError(f"models: labels: {path}: not labels, one a line or as Keras's index: {why}") from error


def task_of(section: ModelSection) -> Task | None:
    """The task of a model of a file or of the zoo: as configured, else as its package says.

    Else to classify for one of the zoo or one with labels; None if nobody says. Raises ModelError.
    """
    about = Package(Path(section.source)).about if section.source.endswith(SUFFIX) else {}
    if section.task is not None:
        return section.task.task()
    if isinstance(about.get("task"), dict):
        return read_task(about["task"])
    is_of_zoo = not section.is_file or about.get("source") in ZOO
    has_labels = section.labels is not None or about.get("labels") is not None
    return TaskSection(kind="classify").task() if is_of_zoo or has_labels else None


def task_of_pushed(section: ModelSection, carried: Task | None, *, has_labels: bool) -> Task | None:
    """The task of a pushed model: as configured, else as `carried` by its package, else to classify with labels."""
    if section.task is not None:
        return section.task.task()
    return carried or (TaskSection(kind="classify").task() if has_labels else None)


def check_labels(model: str, labels: Sequence[str] | None, classes: int) -> None:
    """Raise ConfigError where there are labels, for another number of `classes` than the model has (0: any).

    So it is for a label that no result can carry: too long, or no text that can be sent.
    """
    for number, label in enumerate(labels or (), start=1):
        if len(label) > MOST_LABEL or not _can_be_sent(label):
            raise ConfigError(
                f"models.{model}.labels: label {number} is {label[:40]!a}... of {len(label):,} characters; at most "
                f"{MOST_LABEL} of Unicode text expected"
            )
    if labels is not None and classes and len(labels) != classes:
        raise ConfigError(
            f"models.{model}.labels: {len(labels):,} labels for {classes:,} classes; each needs a line, in their order"
        )


def _can_be_sent(label: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in label)  # surrogates, which JSON can name


def _read_labels(path: Path) -> tuple[str, ...]:
    text = read_bounded(path, MOST_LABELS_BYTES).decode("utf-8-sig")  # Windows writes a byte order mark
    if path.suffix != ".json":
        return tuple(text.splitlines())
    # a class index as Keras has it: {"0": ["n01440764", "tench"], ...}
    index = json.loads(text)
    if not isinstance(index, dict):
        raise TypeError(f"a JSON {type(index).__name__}, no object")
    return tuple(str(index[str(number)][1]) for number in range(len(index)))


def _imagenet_labels() -> tuple[str, ...] | None:
    from pipeline.models.labels import imagenet_labels

    return imagenet_labels()
