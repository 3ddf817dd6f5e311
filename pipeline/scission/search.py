"""The search: validate, price all placements, filter, take the best; and why nothing is left.

Pure functions: systems, a network table and a query in, answers out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from pipeline.errors import PlanError
from pipeline.placement import Tier
from pipeline.scission.candidates import HOPS, Candidates, Flags, Floats, candidates
from pipeline.scission.filters import MEGABYTE, Filter
from pipeline.scission.network import Network
from pipeline.scission.system import MOST_BYTES, System, bounded

INPUT_BYTES = 150_000.0
TOP = 5
_BITS = 63
"""Of a positive int64; more filters than that are counted in Python's own integers."""


@dataclass(frozen=True)
class Query:
    """A query for the `top` best placements of a model that pass all filters. Raises PlanError for impossible values.

    `input_bytes` is what the device sends when it computes nothing: the image's file.
    """

    model: str
    filters: tuple[Filter, ...] = ()
    input_bytes: float = INPUT_BYTES
    top: int = TOP

    def __post_init__(self) -> None:
        if self.top < 1:
            raise PlanError(f"the number of answers must be at least 1, not {self.top}")
        try:
            bounded(self.input_bytes, 0, MOST_BYTES)
        except ValueError as error:
            raise PlanError(f"the input's bytes: {error}") from None


@dataclass(frozen=True, slots=True)
class Stage:
    """A tier's part: its layers half-open, None when it is unused. An unused device's system is the input's source."""

    system: str | None
    layers: tuple[int, int] | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Hop:
    """A transfer from one system up to the next: seconds and megabytes, both 0 where nothing is sent."""

    seconds: float
    megabytes: float


@dataclass(frozen=True)
class Answer:
    """A placement with its seconds and the megabytes sent in all, and the parts that add up to both."""

    seconds: float
    megabytes: float
    stages: Mapping[Tier, Stage]
    hops: Mapping[tuple[Tier, Tier], Hop]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; layers half-open, null for an unused tier, as is its system on edge and cloud."""
        value: dict[str, Any] = {"seconds": self.seconds, "megabytes": self.megabytes}
        for tier, stage in self.stages.items():
            value[tier.label] = {"system": stage.system, "layers": list(stage.layers) if stage.layers else None}
        predicted: dict[str, Any] = {tier.label: stage.seconds for tier, stage in self.stages.items()}
        for (lower, upper), hop in self.hops.items():
            predicted[f"{lower.label}_{upper.label}"] = {"seconds": hop.seconds, "megabytes": hop.megabytes}
        return value | {"predicted": predicted}


def search(systems: Iterable[System], network: Network, query: Query) -> list[Answer]:
    """The best placements, fastest first, fewer than asked where fewer pass; none when the filters exclude all.

    Systems without a profile of the model take no part. Raises PlanError for a model, layer or system that is not
    there or profiles that do not fit together, ConfigError for a pair that the network table lacks.
    """
    best: list[tuple[float, Candidates, int]] = []
    for found in _candidates(systems, network, query):
        seconds = found.seconds
        if query.filters:
            seconds = np.where(_allowed(found, query.filters), seconds, np.inf)
        flat = seconds.ravel()
        best += ((float(flat[at]), found, at) for at in _smallest(flat, query.top) if math.isfinite(flat[at]))
        best = sorted(best, key=lambda entry: entry[0])[: query.top]
    return sorted((_answer(found, query.model, at) for _, found, at in best), key=lambda answer: answer.seconds)


def explain(systems: Iterable[System], network: Network, query: Query) -> tuple[Filter, ...]:
    """A smallest set of filters that together exclude every placement. Raises ValueError when one passes."""
    numbers = range(len(query.filters))
    bits = np.asarray([1 << number for number in numbers], np.int64 if len(numbers) < _BITS else object)
    excluding: set[frozenset[int]] = set()
    for found in _candidates(systems, network, query):
        codes = np.zeros(found.shape, bits.dtype)
        for bit, one in zip(bits, query.filters, strict=True):
            codes += (~one.allows(found)).astype(bits.dtype) * bit
        excluding |= {frozenset(n for n in numbers if code >> n & 1) for code in np.unique(codes).tolist()}
    if frozenset() in excluding:
        raise ValueError("some placement passes all filters")
    needed = [one for one in excluding if not any(other < one for other in excluding)]
    size = 1
    while (chosen := _hitting(needed, size)) is None:
        size += 1
    return tuple(query.filters[index] for index in sorted(chosen))


def notes(systems: Iterable[System], query: Query) -> list[str]:
    """Warnings for the user: numbers that are also systems' names, and systems that were left out."""
    systems = tuple(systems)
    measured = _by_tier(systems, query.model)
    said = [one.note([system.name for system in measured[one.tier]]) for one in query.filters]
    absent = [f"{s.tier.label} {s.name}" for s in systems if query.model not in s.models]
    left_out = [f"without a profile of {query.model}, so left out: {', '.join(absent)}"] if absent else []
    return [note for note in said if note] + left_out


def _candidates(systems: Iterable[System], network: Network, query: Query) -> Iterator[Candidates]:
    """Check the query and the systems, then give all placements."""
    measured = _by_tier(systems, query.model)
    last_layer = measured[Tier.DEVICE][0].models[query.model].last_layer[-1]
    for one in query.filters:
        one.check([system.name for system in measured[one.tier]], last_layer)
    return candidates(measured, query.model, network, query.input_bytes)


def _by_tier(systems: Iterable[System], model: str) -> Mapping[Tier, tuple[System, ...]]:
    systems = tuple(systems)
    measured = [system for system in systems if model in system.models]
    if not measured:
        raise _unknown(model, sorted({name for system in systems for name in system.models}))
    by_tier = {tier: tuple(system for system in measured if system.tier == tier) for tier in Tier}
    if not by_tier[Tier.DEVICE]:
        raise PlanError(
            f"no device has a profile of {model!r}: it is where the input is; profile the model on a device"
        )
    reference = measured[0].models[model]
    for system in measured[1:]:
        blocks = system.models[model]
        if (blocks.first_layer, blocks.last_layer, blocks.output_bytes) != (
            reference.first_layer,
            reference.last_layer,
            reference.output_bytes,
        ):
            raise PlanError(
                f"{blocks.source} has other layers or sizes in its {len(blocks)} blocks than {reference.source} in its "
                f"{len(reference)}; profile the same model with the same versions on both"
            )
    return by_tier


def _unknown(model: str, known: Sequence[str]) -> PlanError:
    near = get_close_matches(model, known, n=3, cutoff=0.4)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return PlanError(f"no profile of model {model!r}: {meant}there are {', '.join(known)}")


def _allowed(found: Candidates, filters: Iterable[Filter]) -> Flags:
    allowed: Flags = np.ones((1, 1, 1), bool)
    for one in filters:
        allowed = allowed & one.allows(found)
    return allowed


def _smallest(values: Floats, count: int) -> list[int]:
    """Indices of the smallest values in ascending order; of equal ones the first."""
    if len(values) > count:
        threshold = np.partition(values, count - 1)[count - 1]
        within = np.flatnonzero(values <= threshold)
    else:
        within = np.arange(len(values))
    order = np.argsort(values[within], kind="stable")[:count]
    return [int(index) for index in within[order]]


def _hitting(sets: Sequence[frozenset[int]], size: int) -> set[int] | None:
    """At most `size` numbers of which each set has one, or None."""
    if not sets:
        return set()
    if size:
        smallest = sorted(sets, key=len)[0]
        for number in sorted(smallest):
            rest = _hitting([one for one in sets if number not in one], size - 1)
            if rest is not None:
                return rest | {number}
    return None


def _answer(found: Candidates, model: str, at: int) -> Answer:
    edge, cloud, cut = (int(index) for index in np.unravel_index(at, found.shape))
    chosen = {Tier.DEVICE: 0, Tier.EDGE: edge, Tier.CLOUD: cloud}
    stages = {tier: _stage(found, model, tier, chosen[tier], cut) for tier in Tier}
    hops = {}
    for hop in HOPS:
        seconds = np.broadcast_to(found.hops[hop], found.shape)[edge, cloud, cut] if hop in found.hops else 0.0
        hops[hop] = Hop(float(seconds), float(found.sent[hop[0]][cut]) / MEGABYTE if hop in found.hops else 0.0)
    seconds = math.fsum([*(stage.seconds for stage in stages.values()), *(hop.seconds for hop in hops.values())])
    return Answer(seconds, math.fsum(hop.megabytes for hop in hops.values()), stages, hops)


def _stage(found: Candidates, model: str, tier: Tier, chosen: int, cut: int) -> Stage:
    system, first, last = found.systems[tier][chosen], int(found.first[tier][cut]), int(found.last[tier][cut])
    if system is None or first < 0:
        return Stage(system.name if system else None, None, 0.0)
    i, j = (int(cuts[cut]) for cuts in found.cuts)
    start, stop = {Tier.DEVICE: (0, i), Tier.EDGE: (i, j), Tier.CLOUD: (j, None)}[tier]
    return Stage(system.name, (first, last + 1), math.fsum(system.models[model].seconds[start:stop]))
