"""Load a node's models and choose its engine: the same on every node of a pipeline.

Imports TensorFlow only where the engine is that.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.engines.pictured import InputSeconds, pictured
from pipeline.errors import ConfigError, FrameError, ModelError, NoKernel
from pipeline.frames.decode import Preprocess
from pipeline.models.source import ModelSource

if TYPE_CHECKING:
    from pipeline.engines import Engine, Loaded
    from pipeline.engines.replay import Replay

_log = logging.getLogger(__name__)

_NAMED = 3


def import_ahead(engine: str) -> None:
    """Import what `load` needs for this engine, where that takes a fraction of a second: not TensorFlow."""
    from pipeline import engines

    if engine in {"auto", "litert"} and "litert" in engines.installed():
        import pipeline.engines.litert
        import pipeline.models.store
        import pipeline.profiling.calibration  # noqa: F401  (imported for later)


def load(
    engine: str,
    sources: Mapping[str, ModelSource],
    threads: int,
    exact: str,
    pushed: Mapping[str, Loaded] | None = None,
    replay: Replay | None = None,
    batch: int = 1,
) -> tuple[Engine, dict[str, Loaded]]:
    """The engine by its name, or for `auto` litert if it has every block of all models, and the loaded models.

    `pushed` are packages that are open already; `replay` is what is waited for instead of computing, whatever
    `engine` says. Where the engine can, its segments run `batch` frames together. Raises ConfigError for an engine that
    is not installed, UnknownModel, ModelError.
    """
    from pipeline import engines

    if replay is not None:
        return _load_replay(replay, sources, threads, pushed or {})
    if engine != "tensorflow":
        from pipeline.models import store

        packages: dict[str, Loaded] = dict(pushed or {})
        try:
            packages.update((name, store.load(source)) for name, source in sources.items())
            lacking = _lacking(packages) if engine == "auto" else ""
        except NoKernel as error:
            if engine != "auto":
                raise
            lacking = str(error)
        if not lacking:
            everywhere = exact != "machine"
            made = engines.create("litert", threads, everywhere=everywhere, batch=batch, is_room=_is_room)
            return made, packages
        _log.info("engine auto takes tensorflow: %s", lacking)
        if "tensorflow" not in engines.installed():
            raise ConfigError(
                f"engine auto takes tensorflow ({lacking}), and TensorFlow is not installed; "
                "pip install 'trisect[tensorflow]', or give engine: litert, which runs such blocks as converted"
            )
    if packages_only := [*(pushed or ()), *(name for name, source in sources.items() if source.is_package)]:
        raise ModelError(
            f"model {packages_only[0]!r} is a package, which engine litert runs; give engine: auto or litert"
        )
    made = engines.create("tensorflow", threads)
    from pipeline.models.load import load as prepare

    return made, {name: prepare(source) for name, source in sources.items()}


def _load_replay(
    replay: Replay, sources: Mapping[str, ModelSource], threads: int, pushed: Mapping[str, Loaded]
) -> tuple[Engine, dict[str, Loaded]]:
    """An engine that waits, and packages of which no weight is read. Raises ConfigError, ModelError."""
    from pipeline.engines.replay import ReplayEngine
    from pipeline.models import store

    engine = ReplayEngine(replay, threads)
    packages: dict[str, Loaded] = {**pushed, **{name: store.load(source) for name, source in sources.items()}}
    for model in packages.values():
        engine.require(model)
    _log.warning("a replay: nothing is computed, answers mean nothing; block times are %s", engine.source)
    return engine, packages


def _is_room(nbytes: int) -> bool:
    from pipeline.models.host_memory import available_bytes

    return nbytes < available_bytes()


def with_input(name: str, model: Loaded, preprocess: Preprocess, least: InputSeconds) -> Loaded:
    """The model with its input's blocks, measured here; the model itself where it takes no pictures.

    The blocks take `least` seconds in any case.
    So it is, too, where the preprocessing does not fit it: its device then answers each frame with what is wrong.
    """
    from pipeline.profiling.input_seconds import with_measured_input

    try:
        return with_measured_input(pictured(model, preprocess, least))
    except (FrameError, ConfigError) as error:
        _log.warning("model %s: its preprocessing does not fit it: %s", name, error)
        return model


def _lacking(packages: Mapping[str, Loaded]) -> str:
    """The blocks that only the converter makes, in words; "" when there are none."""
    found = [
        f"{model.graph.blocks[index].kind} ({name}: {model.graph.blocks[index].name})"
        for name, model in packages.items()
        for index in model.package.program.foreign
    ]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"litert lacks {', '.join(found[:_NAMED])}{more}" if found else ""
