"""Readers of measured systems' files: trisect's own profile, Scission's data as JSON, Scission's `.dat`.

Knows no directory. Raises ConfigError that begins with the file.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, TypeGuard

from pipeline.errors import ConfigError, ModelError, PlanError
from pipeline.graph import ModelGraph
from pipeline.placement import Tier
from pipeline.profiling.profile import Profile
from pipeline.scission import pickled
from pipeline.scission.system import Blocks, System

_JSON_KEYS = ("first_layer", "last_layer", "seconds", "output_bytes")
_DAT_KEYS = ("input_layer", "output_layer", "second_prediction", "output_size")
"""Both in the order of the columns of `Blocks`."""


def is_own_profile(value: object) -> TypeGuard[Mapping[str, Any]]:
    """True for an object that looks like a profile of `trisect profile`."""
    return isinstance(value, dict) and "profile" in value and "graph" in value


def is_scission_json(value: object) -> TypeGuard[Mapping[str, Any]]:
    """True for an object that looks like Scission's data as JSON."""
    return isinstance(value, dict) and {"system", "tier", "models"} <= value.keys()


def is_query_list(value: object) -> bool:
    """True for a list that looks like queries with expected answers, which are kept next to such data."""
    keys = {"model", "network", "args", "top"}
    return isinstance(value, list) and bool(value) and all(isinstance(q, dict) and keys <= q.keys() for q in value)


def own_profile(source: str, value: Mapping[str, Any]) -> tuple[str, Blocks]:
    """The model's name and its blocks: the ranges of our blocks between boundaries that one tensor crosses.

    A layer here is our block's index. The input block belongs to the first range, as Scission has it.
    """
    try:
        profile, graph = Profile.from_json(value["profile"]), ModelGraph.from_json(value["graph"])
    except ModelError as error:
        raise ConfigError(f"{source}: {error}; profile it again") from None
    if len(profile.seconds) != len(graph):
        raise ConfigError(
            f"{source}: {len(profile.seconds)} block times for {len(graph)} blocks of {graph.name!r}; profile it again"
        )
    boundaries = list(_boundaries(graph))
    ranges = list(pairwise([0, *(last + 1 for last, _ in boundaries)]))
    return profile.model, Blocks(
        tuple(start for start, _ in ranges),
        tuple(last for last, _ in boundaries),
        tuple(sum(profile.seconds[start:stop]) for start, stop in ranges),
        tuple(nbytes for _, nbytes in boundaries),
        f"{source}: model {profile.model!r}",
    )


def _boundaries(graph: ModelGraph) -> Iterator[tuple[int, int]]:
    """Pairs of a last block and its bytes, where one tensor is all that is still needed; never after the
    input alone.
    """
    needed_until = [max(readers, default=-1) for readers in graph.consumers]
    for output in graph.outputs:
        needed_until[output] = len(graph)
    needed: set[int] = set()
    for block in graph.blocks:
        needed = {t for t in (*needed, *block.outputs) if needed_until[t] > block.index}
        if (block.index and len(needed) == 1) or block.index == len(graph) - 1:
            yield block.index, sum(graph.tensors[t].nbytes for t in needed)


def scission_json(source: str, value: Mapping[str, Any]) -> System:
    """A system of `{"system", "tier", "models": {name: [{first_layer, last_layer, seconds, output_bytes}]}}`."""
    name, models = value["system"], value["models"]
    if not isinstance(name, str) or not name or not isinstance(models, dict) or not models:
        raise ConfigError(f"{source}: needs a system's name and its models by name, not {reprlib.repr((name, models))}")
    return System(
        name, tier_of(source, value["tier"]), {m: _blocks(source, m, r, _JSON_KEYS) for m, r in models.items()}
    )


def scission_dat(source: str, stem: str, content: bytes) -> System:
    """A system of Scission's pickle; `stem` is the file's name, TIER-SYSTEM, without its ending."""
    label, dash, name = stem.partition("-")
    if not dash or not name:
        raise ConfigError(f"{source}: call it TIER-SYSTEM.dat, as Scission does, such as device-raspi4.dat")
    try:
        models = pickled.read(content)
    except ValueError as error:
        raise ConfigError(f"{source}: not Scission's: {error}") from None
    if not isinstance(models, dict) or not models or not all(isinstance(model, str) for model in models):
        raise ConfigError(
            f"{source}: not Scission's: it is no dictionary of models; give what scission_benchmark.py wrote"
        )
    tier = tier_of(source, label)
    return System(name, tier, {m: _blocks(source, m, _attributes(r), _DAT_KEYS) for m, r in models.items()})


def tier_of(source: str, label: object) -> Tier:
    """The tier that a file or directory gives. Raises ConfigError."""
    try:
        return Tier.named(label.lower() if isinstance(label, str) else reprlib.repr(label))
    except PlanError as error:
        raise ConfigError(f"{source}: {error}") from None


def _attributes(rows: object) -> object:
    if isinstance(rows, list):
        return [row.attributes if isinstance(row, pickled.LayerBenchmark) else row for row in rows]
    return rows


def _blocks(source: str, model: str, rows: object, keys: Iterable[str]) -> Blocks:
    where = f"{source}: model {model!r}"
    if not isinstance(rows, list):
        raise ConfigError(f"{where}: its blocks are a {type(rows).__name__}, not a list; profile it again")
    columns: list[list[Any]] = [[] for _ in keys]
    for index, row in enumerate(rows):
        for column, key in zip(columns, keys, strict=True):
            if not isinstance(row, dict) or key not in row:
                raise ConfigError(f"{where}: block {index} has no {key}; profile it again")
            column.append(row[key])
    first, last, seconds, nbytes = map(tuple, columns)
    return Blocks(first, last, seconds, nbytes, where)
