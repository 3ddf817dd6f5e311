"""Cores that nodes of one machine share: of frames that follow each other, how long one occupies all of them.

A node that computes with t threads on a machine of c cores, and would take s seconds alone, is taken to occupy
min(t, c) cores for so long, as if none of its threads ever waited for another one: those of LiteRT's kernels spin where
they do. A frame occupies all cores for the sum of that over the machine's nodes, divided by c, and frames follow each
other no sooner. A node by itself on its machine is the special case that its own seconds already say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, TypeAlias

from pydantic import Field, Strict

from pipeline.placement import Tier
from pipeline.ranges import Id, Sum, TierLabel

MOST_CORES = 4096
MOST_WORKERS = 256

CoreCount: TypeAlias = Annotated[float, Strict(), Field(ge=0, le=MOST_CORES, allow_inf_nan=False)]
"""A quota may leave a part of one."""


@dataclass(frozen=True, slots=True)
class SharedCores:
    """The cores of one machine: `count` of them, of which a tier's node takes the part `shares[tier]`, up to 1, while
    it computes. Its `workers` can compute tiles; `tiled` are the seconds of a frame in which their tiles take all of
    the cores, by worker, where a stack is shared out.
    """

    machine: str
    count: float
    shares: Mapping[Tier, float]
    workers: tuple[str, ...] = ()
    tiled: Mapping[str, float] = field(default_factory=dict)

    @property
    def tiles_s(self) -> float:
        """Seconds of a frame in which workers' tiles take all of the cores."""
        return sum(self.tiled.values())

    def among(self, tiers: Collection[Tier]) -> SharedCores:
        """The same where only these tiers have blocks."""
        return replace(self, shares={tier: share for tier, share in self.shares.items() if tier in tiers})

    def with_tiles(self, seconds: Mapping[str, float]) -> SharedCores:
        """The same with what tiles take of workers' machines, by worker."""
        return replace(self, tiled={worker: seconds[worker] for worker in self.workers if worker in seconds})

    def cost(self, stages: Mapping[str, float], waiting_s: float) -> CoresCost | None:
        """Under a placement with these seconds by tier label; for `waiting_s` of them the edge waits for tiles.

        None where a single node of the placement is on the machine.
        """
        used = {tier: share for tier, share in self.shares.items() if tier.label in stages}
        if len(used) + len(self.tiled) <= 1:
            return None
        busy_s = self.tiles_s + sum(share * stages[tier.label] for tier, share in used.items())
        busy_s -= used.get(Tier.EDGE, 0.0) * waiting_s
        return CoresCost(self.count, tuple(tier.label for tier in used), max(busy_s, 0.0), tuple(self.tiled))


@dataclass(frozen=True, slots=True)
class CoresCost:
    """What a frame takes of the cores that the nodes of these tiers, and workers of its tiles, share: all of them for
    `busy_seconds`.
    """

    cores: CoreCount
    tiers: Annotated[tuple[TierLabel, ...], Field(max_length=len(Tier))]
    busy_seconds: Sum
    workers: Annotated[tuple[Id, ...], Field(max_length=MOST_WORKERS)] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"tiers": list(self.tiers), "workers": list(self.workers)}

    def __str__(self) -> str:
        *others, last = *self.tiers, *self.workers
        names = f"{', '.join(others)} and {last}" if others else last
        return f"the {self.cores:g} cores that {names} share"


def joined(costs: Iterable[tuple[SharedCores, ...]]) -> tuple[SharedCores, ...]:
    """Cores that all have alike, so that with any of them a frame takes as much of these; the others are left out."""
    first, *others = costs
    return tuple(shared for shared in first if all(shared in other for other in others))
