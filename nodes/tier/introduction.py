"""What a node says of itself before it serves: its answers to seeded frames, and what it makes of test pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nodes.config.sections import Config
from pipeline.engines.pictured import Pictured, network_of
from pipeline.frames.fingerprint import fingerprint
from pipeline.frames.input_blocks import network_input

if TYPE_CHECKING:
    from pipeline.engines.base import Engine, Loaded


def answers_where_asked(config: Config, engine: Engine, models: Mapping[str, Loaded]) -> dict[str, str]:
    """Answers to seeded frames by model, where other engines' are compared with them; else none."""
    if config.exact != "close":
        return {}
    from pipeline.engines.answers import answers
    from pipeline.profiling import profile

    found = {}
    for name, model in ((name, network_of(model)) for name, model in models.items()):
        key = f"answers-{model.graph.digest}"
        known = profile.kept(key, engine, lambda value: str(value["answers"]))
        found[name] = known or answers(engine, model)
        profile.keep_if_possible(key, engine, {"answers": found[name]})
    return found


def pictures_of(models: Mapping[str, Loaded]) -> dict[str, str]:
    """Fingerprint of the test pictures by model, for the models that take pictures."""
    return {
        name: fingerprint(network_input(model.graph), model.preprocess)
        for name, model in models.items()
        if isinstance(model, Pictured)
    }
