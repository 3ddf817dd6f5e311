"""Reads a configuration file into a frozen Config, or says what is wrong: file, line, key, value, and what is allowed.

Reads no other file and starts nothing. What the keys may hold stands in `nodes.config.sections`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from broker.topics import valid_id
from nodes.config import enrolment
from nodes.config.bounded_yaml import Key, Problem, read_yaml
from nodes.config.broker_section import BrokerSection
from nodes.config.plan_request import DEVICE_STAYS
from nodes.config.sections import (
    Config,
    ModelSection,
    NodeSection,
    PlannerSection,
    PreprocessSection,
    SourceSection,
    StreamSection,
    TelemetrySection,
)
from nodes.config.transport_section import TransportSection
from nodes.display.text import plain
from pipeline.errors import ConfigError
from pipeline.files import read_bounded
from pipeline.placement import Tier
from pipeline.plan import NodeId

__all__ = [
    "BrokerSection",
    "Config",
    "ModelSection",
    "NodeSection",
    "PlannerSection",
    "PreprocessSection",
    "SourceSection",
    "StreamSection",
    "TelemetrySection",
    "TransportSection",
    "identity_of",
    "require_node",
    "load_config",
    "parse_config",
    "with_node",
]

_log = logging.getLogger(__name__)

FILES = "TRISECT_FILES"
"""Names the folder that an enrolment's relative paths begin at, where that is not its own: a service's is a copy."""
MAX_BYTES = 1 << 20
MAX_PROBLEMS = 20
"""That are shown: a file of another kind has thousands."""
_KEY_CHARACTERS = 80
_SHOWN_CHARACTERS = 200
_OTHERS_MAY_READ = 0o077


def load_config(path: Path | str, *, runs: bool = True) -> Config:
    """Read the YAML file at `path`, a configuration or an enrolment with one.

    Raises ConfigError with every problem in it, each on its line.

    A pipeline that `runs` needs models and streams; one that is only planned for does not.
    """
    path = Path(path)
    try:
        text = read_bounded(path, MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}", file=path) from error
    if enrolment.is_enrolment(text):
        return _enrolled(enrolment.parse(text, path), path, runs=runs)
    config = parse_config(text, path, runs=runs)
    if config.broker.password is not None and path.stat().st_mode & _OTHERS_MAY_READ:
        _log.warning("%s has a password in it, and others on this machine may read it; chmod 600 %s", path, path)
    return config


def identity_of(config: Config, name: str) -> str:
    """Who a process is: the name that it was given, or its enrolment's. Raises ConfigError for none, or two."""
    member = config.broker.credentials
    if member is None and not name:
        raise ConfigError(f"which node is this? give --id, one of {', '.join(config.nodes)}, or --enrolment FILE")
    if member is not None and name and name != member.name:
        raise ConfigError(f"this is the enrolment of {member.name!r}, so that --id cannot be {name!r}; leave it out")
    return name or (member.name if member else "")


def _enrolled(member: enrolment.Enrolment, path: Path, *, runs: bool) -> Config:
    """The configuration that an enrolment carries, with the member's way into the broker."""
    folder = os.environ.get(FILES)
    config = parse_config(member.configuration, Path(folder) / path.name if folder else path, runs=runs)
    warning = member.credentials.warning()
    if warning is not None:
        _log.warning("%s", warning)
    return config.model_copy(update={"broker": member.enter(config.broker)})


def parse_config(text: str, path: Path, *, runs: bool = True) -> Config:
    """Read `text` as if it were the file at `path`, which its relative paths start from. Raises ConfigError."""
    values, lines, problems = read_yaml(text, path)
    if not problems:
        try:
            config = Config.model_validate(values, context={"folder": path.resolve().parent})
        except ValidationError as error:
            found = error.errors(include_url=False)
            problems = [_worded(details) for details in found[:MAX_PROBLEMS]]
            if len(found) > MAX_PROBLEMS:
                problems.append(((), f"and {len(found) - MAX_PROBLEMS:,} more"))
        else:
            problems = list(islice((*(_lacking(config) if runs else ()), *_loose_ends(config)), MAX_PROBLEMS))
            if not problems:
                return config
    raise ConfigError("\n".join(f"{path}{_place(key, lines)}: {problem}" for key, problem in problems))


def require_node(config: Config, id_: NodeId) -> None:
    """Raise ConfigError for a node that the configuration does not have."""
    if id_ not in config.nodes:
        raise ConfigError(
            f"no node {id_!r:.150} in the configuration; it has: {', '.join(config.nodes)}; one more joins with --tier"
        )


def with_node(config: Config, id_: NodeId, values: Mapping[str, Any]) -> Config:
    """The configuration with one more node of these values. Raises ConfigError for one that it has, or wrong values."""
    if not valid_id(id_):
        raise ConfigError(f"{id_!r:.150} is no node's id; allowed: 1 to 128 of a-z, 0-9 and -; give another --id")
    if id_ in (*config.nodes, config.planner.id):
        raise ConfigError(f"node {id_!r} is in the configuration already: leave out --tier, or give another --id")
    try:
        section = NodeSection.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False)
        for details in found:
            details["loc"] = ("nodes", id_, *details["loc"])
        problems = "; ".join(f"{key[-1]}: {problem}" for key, problem in map(_worded, found))
        raise ConfigError(f"node {id_}: {problems}") from error
    return config.model_copy(update={"nodes": MappingProxyType({**config.nodes, id_: section})})


def _place(key: Key, lines: Mapping[Key, int]) -> str:
    """`:line: key`, with the line of the nearest key above where it is missing itself."""
    line = next((lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in lines), None)
    parts = (f"[{part}]" if isinstance(part, int) else f".{plain(part, _KEY_CHARACTERS)}" for part in key)
    name = "".join(parts).removeprefix(".")
    return (f":{line}" if line else "") + (f": {name}" if name else "")


def _worded(details: ErrorDetails) -> Problem:
    """One of pydantic's errors in our words."""
    key: Key = details["loc"]
    kind, value = details["type"], details["input"]
    if key and key[-1] == "[key]":
        mend = "a-z, 0-9 and -, for models also _ and ." if isinstance(value, str) else "text; put it in quotes"
        if kind == "value_error":  # of a table whose keys are given
            mend = f"give {details['ctx']['error']}"
        return (*key[:-2], str(key[-2])), f"{plain(repr(value), _SHOWN_CHARACTERS)} is not allowed as a name; {mend}"
    section, description = _section(key), _description(key)
    if kind == "extra_forbidden":
        return key, _unknown_key(str(key[-1]), section)
    if kind == "missing":
        return key, f"is missing; {description}"
    shown = _shown(key, value)
    if kind == "value_error":
        # Raised by a section's own check: about the section as a whole, or about one value in it.
        reason = str(details["ctx"]["error"])
        return key, reason if isinstance(value, dict) else f"{shown} is not allowed; {reason}"
    if kind in {"model_type", "dict_type", "mapping_type"}:
        wrong = "is empty" if value is None else f"{shown} is not allowed"
        return key, f"{wrong}; a section with the keys {', '.join(_keys(section))}"
    return key, f"{shown} is not allowed; {description or details['msg']}"


def _shown(key: Key, value: Any) -> str:
    """The value in an error: never one that may hold a password, nor more than a line of it."""
    if isinstance(value, (list, tuple, Mapping)):
        return "a list" if isinstance(value, (list, tuple)) else "a section"
    secret = "password" in key or (key[:1] == ("broker",) and key[1:] not in {("host",), ("port",)})
    return "the value" if secret else plain(repr(value), _SHOWN_CHARACTERS)


def _nested(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, by itself or as entries of a table."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _nested(part))), None)


def _section(key: Key) -> type[BaseModel]:
    """The innermost section on the way to `key`."""
    section: type[BaseModel] = Config
    for part in key:
        field = section.model_fields.get(part)
        section = (_nested(field.annotation) if field else None) or section
    return section


def _description(key: Key) -> str:
    """Description of the last field on the path to `key`."""
    section: type[BaseModel] = Config
    description = ""
    for part in key:
        field = section.model_fields.get(part)
        if field is not None:
            description = field.description or ""
            section = _nested(field.annotation) or section
    return description


def _unknown_key(name: str, section: type[BaseModel]) -> str:
    allowed = _keys(section)
    return f"unknown key;{_meant(name, allowed)} allowed here: {', '.join(allowed)}"


def _keys(section: type[BaseModel]) -> list[str]:
    """Its keys, those of the section itself before inherited ones."""
    return sorted(section.model_fields, key=lambda key: key not in section.__annotations__)


def _meant(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name[:_KEY_CHARACTERS], known, n=2, cutoff=0.6)
    return f" did you mean {' or '.join(near)}?" if near else ""


def _lacking(config: Config) -> Iterator[Problem]:
    """Sections that a running pipeline needs something in."""
    for name in ("models", "streams"):
        if not getattr(config, name):
            yield (name,), f"missing or empty; {Config.model_fields[name].description}, at least one"


def _loose_ends(config: Config) -> Iterator[Problem]:
    """References that lead nowhere."""
    for id_, stream in config.streams.items():
        node = config.nodes.get(stream.device)
        if node is None:
            yield (
                ("streams", id_, "device"),
                f"no node is named {stream.device!r};{_meant(stream.device, config.nodes)} "
                f"nodes of tier device: {', '.join(config.nodes_of(Tier.DEVICE)) or 'none'}",
            )
        elif node.tier != Tier.DEVICE:
            yield (
                ("streams", id_, "device"),
                f"{stream.device!r} is of tier {node.tier.label}, and frames enter on a device; "
                f"nodes of tier device: {', '.join(config.nodes_of(Tier.DEVICE)) or 'none'}",
            )
        if stream.model not in config.models:
            yield (
                ("streams", id_, "model"),
                f"no model is named {stream.model!r};{_meant(stream.model, config.models)} "
                f"models here: {', '.join(config.models)}",
            )
    for id_, stream in config.streams.items():
        for node_id in stream.plan.constraints.exclude_nodes:
            if node_id not in config.nodes:
                yield (
                    ("streams", id_, "plan", "constraints", "exclude_nodes"),
                    f"no node is named {node_id!r};{_meant(node_id, config.nodes)} "
                    f"nodes here: {', '.join(config.nodes)}",
                )
            elif node_id == stream.device:
                yield (
                    ("streams", id_, "plan", "constraints", "exclude_nodes"),
                    f"{node_id!r} {DEVICE_STAYS}",
                )
    if config.planner.id in config.nodes:
        yield ("planner", "id"), f"{config.planner.id!r} is the id of a node already; every process needs its own"
