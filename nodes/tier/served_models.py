"""A node's models and the engine that runs them: all that goes by a model's name in plans.

A version of a pushed model is a model of its own, which joins the others while the node serves.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nodes.config.model_settings import check_labels, labels_of, preprocess_of, source_of, task_of, task_of_pushed
from nodes.config.sections import Config, StreamSection
from nodes.protocol.packages import family_of
from nodes.tier.answer_format import AnswerFormat
from nodes.tier.loading import load, with_input
from nodes.tier.pushed_models import Pushed
from nodes.tier.versions import Versions
from pipeline.answers.task import Task
from pipeline.engines.answering import AnsweringEngine, answering, classes_of
from pipeline.engines.pictured import InputSeconds, PicturedEngine, network_of
from pipeline.engines.replay import Replay, ReplayEngine
from pipeline.frames.decode import Preprocess
from pipeline.graph import ModelGraph
from pipeline.plan import NodeId, StreamId

if TYPE_CHECKING:
    from pipeline.engines import Engine, Loaded

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The models of a pipeline's streams as its configuration has them, before any is loaded.

    `of_files` and `pushed` are their names. Preprocessing is known for models of files; `labels` are those that
    the configuration gives to models of this device's streams, since only a device names classes.
    """

    of_files: tuple[str, ...]
    pushed: tuple[str, ...]
    preprocess: Mapping[str, Preprocess]
    labels: Mapping[str, tuple[str, ...] | None]

    @classmethod
    def read(cls, config: Config, streams: Mapping[StreamId, StreamSection]) -> ModelSettings:
        """Read the files of labels; `streams` are this device's. Raises ConfigError, ModelError, UnknownModel."""
        used = sorted({stream.model for stream in config.streams.values()})
        of_files = tuple(name for name in used if not config.models[name].is_pushed)
        named = {s.model: config.models[s.model] for s in streams.values() if s.model in of_files}
        return cls(
            of_files=of_files,
            pushed=tuple(name for name in used if name not in of_files),
            preprocess={name: preprocess_of(config.models[name]) for name in of_files},
            labels={name: labels_of(model) for name, model in named.items() if model.labels is not None},
        )


def _task_of(config: Config, pushed: Pushed) -> Task | None:
    return task_of_pushed(config.models[pushed.model], pushed.task, has_labels=pushed.labels is not None)


def check_fit(config: Config, pushed: Pushed) -> None:
    """Raise ModelError for a version whose outputs do not fit its model's task, ConfigError for its labels."""
    task = _task_of(config, pushed)
    check_labels(pushed.name, pushed.labels, classes_of(answering(pushed.package, task), task))


def replay_of(config: Config, node: NodeId) -> Replay | None:
    """What the node replays, None where it computes."""
    return Replay(config.replay.recording, config.replay.machines[node]) if config.replay is not None else None


class ServedModels:
    """Loaded models with their graphs, preprocessing, answer formats and profiles, by name in plans; and their engine.

    Versions that arrive join these mappings, so whoever uses them holds the mappings themselves. A profile is None
    where nothing was measured on this machine; `speed` then indicates what to expect, and is None where none is known.
    """

    def __init__(
        self,
        config: Config,
        node: NodeId,
        streams: Mapping[StreamId, StreamSection],
        settings: ModelSettings,
        pushed: Sequence[Pushed],
    ) -> None:
        """Load them, which takes seconds. Raises ConfigError, ModelError, UnknownModel."""
        from pipeline.profiling import calibration, profile

        self._config = config
        self.preprocess, self._labels = dict(settings.preprocess), dict(settings.labels)
        sources = {name: source_of(name, config.models[name]) for name in settings.of_files}
        packages = {one.name: one.package for one in pushed}
        threads = config.nodes[node].threads or os.cpu_count() or 1
        engine, models = load(
            config.engine_of(node),
            sources,
            threads,
            config.exact,
            packages,
            replay_of(config, node),
            batch=config.nodes[node].batch,
        )
        self.versions = Versions(streams, pushed)
        self._tasks: dict[str, Task | None] = {name: task_of(config.models[name]) for name in settings.of_files}
        for one in pushed:
            self._take_settings(one)
        self._replayed = engine if isinstance(engine, ReplayEngine) else None
        self.engine: Engine = PicturedEngine(AnsweringEngine(engine))
        self.loaded = {name: self._complete(name, model) for name, model in models.items()}
        self.promise = self.engine.promise(self.loaded.values())
        _log.info("engine %s %s: %s", self.engine.name, self.engine.version, self.promise)
        self.graphs = {name: model.graph for name, model in self.loaded.items()}
        self._settle_labels()
        self.answers = {name: self._answer_format(name) for name in self.graphs}
        self.profiles = {name: profile.cached(self.engine, model) for name, model in self.loaded.items()}
        # nobody asks how fast a node is that has profiled all its models, and a replay knows its seconds at once
        is_asked = None in self.profiles.values() and config.replay is None
        self.speed = (calibration.calibrate_or_load if is_asked else calibration.load_cached)(self.engine)

    def arrived(self, pushed: Pushed) -> tuple[StreamId, ...]:
        """Add a version that was rolled out, whose header is here; returns the streams that go over to it."""
        self._add(pushed)
        return self.versions.arrived(pushed)

    def add_older(self, pushed: Pushed) -> None:
        """Add a version that was rolled out before the newest, and that a plan has."""
        self._add(pushed)
        self.versions.older(pushed)

    def _add(self, pushed: Pushed) -> None:
        from pipeline.profiling import profile

        self._take_settings(pushed)
        model = self.loaded[pushed.name] = self._complete(pushed.name, pushed.package)
        self.graphs[pushed.name] = model.graph
        self.answers[pushed.name] = self._answer_format(pushed.name)
        self.profiles[pushed.name] = profile.cached(self.engine, model)
        self.promise = self.engine.promise(self.loaded.values())

    def manifests(self) -> dict[str, ModelGraph]:
        """The graphs by digest, each with its model's name without a version."""
        # packages of one network differ in labels only, say, and a digest names one manifest
        return {graph.digest: replace(graph, name=family_of(name)) for name, graph in dict(self.graphs).items()}

    def _take_settings(self, pushed: Pushed) -> None:
        """Keep what travels with a package."""
        self.preprocess[pushed.name], self._labels[pushed.name] = pushed.preprocess, pushed.labels
        self._tasks[pushed.name] = _task_of(self._config, pushed)

    def _complete(self, name: str, model: Loaded) -> Loaded:
        """The network between the blocks of its input and those of its task."""
        least = self._replayed.least_input_seconds(model.graph) if self._replayed is not None else InputSeconds()
        return with_input(name, answering(model, self._tasks[name]), self.preprocess[name], least)

    def _settle_labels(self) -> None:
        """Read the labels that come with models, and hold all of them against the networks."""
        unlabelled = set(self.versions.model_of.values()) - self._labels.keys()
        self._labels |= {name: labels_of(self._config.models[name]) for name in unlabelled}
        for name, labels in self._labels.items():
            check_labels(name, labels, classes_of(network_of(self.loaded[name]), self._tasks[name]))

    def _answer_format(self, name: str) -> AnswerFormat:
        return AnswerFormat(self.graphs[name], self.preprocess[name], self._tasks[name], self._labels.get(name))
