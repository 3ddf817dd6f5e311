"""What a node says of itself before it serves: its answers to seeded frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nodes.config.sections import Config

if TYPE_CHECKING:
    from pipeline.engines.base import Engine, Loaded


def answers_where_asked(config: Config, engine: Engine, models: Mapping[str, Loaded]) -> dict[str, str]:
    """Answers to seeded frames by model, where other engines' are compared with them; else none."""
    if config.exact != "close":
        return {}
    from pipeline.engines.answers import answers
    from pipeline.profiling import profile

    found = {}
    for name, model in models.items():
        key = f"answers-{model.graph.digest}"
        known = profile.kept(key, engine, lambda value: str(value["answers"]))
        found[name] = known or answers(engine, model)
        profile.keep_if_possible(key, engine, {"answers": found[name]})
    return found
