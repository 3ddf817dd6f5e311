"""What a package carries of a model's use besides the network: labels, preprocessing and task, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nodes.config.loader import load_config
from nodes.config.model_settings import labels_of, preprocess_of, read_labels, source_of
from nodes.config.task_section import TaskSection
from pipeline.answers.task import Kind, Task
from pipeline.errors import ConfigError
from pipeline.frames.decode import Preprocess
from pipeline.models import PreprocessMode
from pipeline.models.source import ModelSource


def from_section(path: Path, name: str) -> tuple[ModelSource, dict[str, Any]]:
    """The source of a model of a configuration, and what its section says of its use. Raises ConfigError."""
    models = load_config(path, runs=False).models
    if name not in models or models[name].is_pushed:
        usable = ", ".join(one for one, section in models.items() if not section.is_pushed) or "none"
        raise ConfigError(f"{path}: no model {name!r:.80} with a source to pack; there are: {usable}")
    section = models[name]
    task = section.task.task() if section.task is not None else None
    return source_of(name, section), _values(labels_of(section), preprocess_of(section), task)


def from_options(task: Kind | None, labels: Path | None, mode: PreprocessMode | None) -> dict[str, Any]:
    """The same of options of a command. Raises ConfigError for a file of labels that cannot be read."""
    preprocess = Preprocess(mode=mode) if mode is not None else None
    meant = TaskSection(kind=task).task() if task is not None else None
    return _values(read_labels(labels) if labels is not None else None, preprocess, meant)


def _values(labels: Sequence[str] | None, preprocess: Preprocess | None, task: Task | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if labels is not None:
        found["labels"] = list(labels)
    if preprocess is not None:
        found["preprocess"] = preprocess.mode
        found |= {"size": list(preprocess.size)} if preprocess.size else {}
    if task is not None:
        found["task"] = asdict(task)
    return found
