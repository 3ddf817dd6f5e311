"""What a node says and checks before it serves: answers to seeded frames, and what the broker takes in a packet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from broker.session import Session
from nodes.config.sections import Config
from pipeline.errors import ConfigError
from pipeline.wire import HEADER_LIMIT_BYTES

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


def check_packet_limit(session: Session, chunk_bytes: int) -> None:
    """Raise ConfigError when a chunk with its header exceeds what the broker accepts in a packet."""
    limit, needed = session.max_packet_bytes, chunk_bytes + HEADER_LIMIT_BYTES
    if limit is not None and limit < needed:
        raise ConfigError(
            f"transport.chunk_bytes is {chunk_bytes:,}; with a header of up to {HEADER_LIMIT_BYTES:,} bytes it exceeds "
            f"the {limit:,} bytes that the broker at {session.address} accepts in a packet",
            size=needed,
            limit=limit,
            hint=f"raise max_packet_size there, or set chunk_bytes to {limit - HEADER_LIMIT_BYTES:,} or less",
        )
