"""A directory of measured systems.

    DIR/TIER/SYSTEM/*.json   trisect's own profiles: `trisect profile MODEL… -o DIR/edge/nuc` on each machine
    DIR/*.json               Scission's data as JSON, which names tier and system itself
    DIR/TIER-SYSTEM.dat      what Scission's own benchmark wrote

TIER is device, edge or cloud. All three kinds may lie side by side. What else belongs there is passed over: `.csv`
(network tables), `.svg` and `.png` (pictures), lists of queries, and whatever is hidden. Any other file is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.files import read_bounded
from pipeline.placement import Tier
from pipeline.scission import formats
from pipeline.scission.system import Blocks, System

MAX_BYTES = 32 << 20
"""Of one file; a profile of 1,041 blocks has some hundred kilobytes."""
_PASSED_OVER = frozenset({".csv", ".svg", ".png"})
_LAYOUT = "DIR/TIER/SYSTEM/MODEL.json (TIER is device, edge or cloud)"


def load_systems(directory: Path) -> tuple[System, ...]:
    """All systems below a directory, in the order of tier and name. Raises ConfigError."""
    found: dict[tuple[Tier, str], tuple[Path, System]] = {}
    for path, system in _systems(directory):
        before, _ = found.setdefault((system.tier, system.name), (path, system))
        if before != path:
            raise ConfigError(
                f"{path}: {system.tier.label} {system.name!r} is in {before} already; remove one of them", file=path
            )
    if not found:
        raise ConfigError(
            f"{directory}: no profiles; run `trisect profile MODEL -o {directory}/TIER/SYSTEM` on each machine, or put "
            "Scission's TIER-SYSTEM.dat or JSON files there"
        )
    return tuple(system for _, (_, system) in sorted(found.items(), key=lambda item: item[0]))


def _systems(directory: Path) -> Iterator[tuple[Path, System]]:
    for path in _entries(directory):
        if path.is_dir():
            if path.name not in {tier.label for tier in Tier}:
                raise ConfigError(
                    f"{path}: a directory here is called device, edge or cloud; profiles are in {_LAYOUT}", file=path
                )
            for below in _entries(path):
                if not below.is_dir():
                    raise ConfigError(f"{below}: which system is it of? profiles are in {_LAYOUT}")
                yield below, System(below.name, formats.tier_of(str(path), path.name), _own_profiles(below))
        elif (system := _file(path)) is not None:
            yield path, system


def _file(path: Path) -> System | None:
    if path.suffix.lower() == ".dat":
        return formats.scission_dat(str(path), path.name[: -len(path.suffix)], _content(path))
    value = _json(path) if path.suffix.lower() == ".json" else None
    if formats.is_scission_json(value):
        return formats.scission_json(str(path), value)
    if formats.is_own_profile(value):
        raise ConfigError(f"{path}: a profile that says neither tier nor system; move it to {_LAYOUT}", file=path)
    if formats.is_query_list(value):
        return None
    raise _foreign(path)


def _own_profiles(directory: Path) -> dict[str, Blocks]:
    models: dict[str, Blocks] = {}
    for path in _entries(directory):
        value = _json(path) if path.is_file() and path.suffix.lower() == ".json" else None
        if not formats.is_own_profile(value):
            raise _foreign(path)
        model, blocks = formats.own_profile(str(path), value)
        if model in models:
            raise ConfigError(f"{path}: {models[model].source} is of the same model; remove one of them", file=path)
        models[model] = blocks
    if not models:
        raise ConfigError(f"{directory}: no profiles; run `trisect profile MODEL -o {directory}` on that machine")
    return models


def _foreign(path: Path) -> ConfigError:
    return ConfigError(
        f"{path}: neither a profile of trisect nor Scission's data as JSON or .dat; take it out of the directory"
    )


def _entries(directory: Path) -> list[Path]:
    try:
        entries: Iterable[Path] = sorted(directory.iterdir())
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}; give a directory of profiles") from None
    shown = (path for path in entries if not path.name.startswith("."))
    return [path for path in shown if path.is_dir() or path.suffix.lower() not in _PASSED_OVER]


def _content(path: Path) -> bytes:
    try:
        return read_bounded(path, MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", file=path) from None


def _json(path: Path) -> Any:
    try:
        return json.loads(_content(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: no JSON: {error}; write it again, or take it out of the directory", file=path
        ) from None
