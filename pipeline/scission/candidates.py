"""All placements of a model on combinations of systems, as arrays. Knows no filter and chooses nothing.

A placement is two cuts: the device has the blocks [0, i), the edge [i, j), the cloud [j, n). Placements that use the
same tiers on the same device are priced at once, in arrays of shape (edge systems, cloud systems, cuts).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.placement import Tier
from pipeline.scission.network import Network
from pipeline.scission.system import System

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]

HOPS = ((Tier.DEVICE, Tier.EDGE), (Tier.EDGE, Tier.CLOUD), (Tier.DEVICE, Tier.CLOUD))
"""A hop goes from one tier to another; the last one only where the edge is unused."""


@dataclass(frozen=True)
class Candidates:
    """Placements on one device that use the same of edge and cloud. All arrays broadcast to `shape`.

    `systems[tier]` holds the names along that tier's axis, None for an unused edge or cloud. `first` and `last` are
    layers, inclusive, -1 where a tier has none. `sent` is bytes up from device and edge, 0 where nothing goes.
    """

    systems: Mapping[Tier, tuple[System | None, ...]]
    cuts: tuple[Ints, Ints]
    first: Mapping[Tier, Ints]
    last: Mapping[Tier, Ints]
    stages: Mapping[Tier, Floats]
    computing: Floats
    hops: Mapping[tuple[Tier, Tier], Floats]
    sent: Mapping[Tier, Floats]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Edge systems, cloud systems, cuts."""
        return len(self.systems[Tier.EDGE]), len(self.systems[Tier.CLOUD]), len(self.cuts[0])

    @property
    def seconds(self) -> Floats:
        """Seconds of each placement in all, float64 of `shape`."""
        return np.broadcast_to(sum(self.hops.values(), self.computing), self.shape)

    def uses(self, tier: Tier) -> Flags:
        """Mask of the placements in which the tier has layers."""
        return self.first[tier] >= 0

    def along(self, tier: Tier, values: Sequence[bool]) -> Flags:
        """One flag per system of the tier, along its axis."""
        return np.asarray(values, bool).reshape(_along(tier))


def candidates(
    systems: Mapping[Tier, tuple[System, ...]], model: str, network: Network, input_bytes: float
) -> Iterator[Candidates]:
    """Yield every placement once. Raises ConfigError when the network table lacks a pair of these systems."""
    edges, clouds = systems[Tier.EDGE], systems[Tier.CLOUD]
    for device in systems[Tier.DEVICE]:
        for on_edge in [edges, ()] if edges else [()]:
            for in_cloud in [clouds, ()] if clouds else [()]:
                yield _priced(device, on_edge, in_cloud, model, network, input_bytes)


def _priced(
    device: System, edges: Sequence[System], clouds: Sequence[System], model: str, network: Network, input_bytes: float
) -> Candidates:
    blocks = device.models[model]
    i, j = _cuts(len(blocks), bool(edges), bool(clouds))
    ranges = {Tier.DEVICE: (np.zeros_like(i), i), Tier.EDGE: (i, j), Tier.CLOUD: (j, np.full_like(j, len(blocks)))}
    chosen = {Tier.DEVICE: [device], Tier.EDGE: edges, Tier.CLOUD: clouds}
    starts, ends = np.asarray(blocks.first_layer), np.asarray(blocks.last_layer)
    outputs = np.asarray([input_bytes, *blocks.output_bytes], float)
    sent = {
        Tier.DEVICE: outputs[i] if edges or clouds else np.zeros(len(i)),
        Tier.EDGE: outputs[j] if edges and clouds else np.zeros(len(i)),
    }
    stages = {tier: _stage(tier, chosen[tier], model, ranges[tier]) for tier in Tier}
    return Candidates(
        systems={tier: tuple(found) or (None,) for tier, found in chosen.items()},
        cuts=(i, j),
        first={t: np.where(a < b, starts[np.minimum(a, len(blocks) - 1)], -1) for t, (a, b) in ranges.items()},
        last={t: np.where(a < b, ends[b - 1], -1) for t, (a, b) in ranges.items()},
        stages=stages,
        computing=stages[Tier.DEVICE] + stages[Tier.EDGE] + stages[Tier.CLOUD],
        hops={
            (lower, upper): _hop(network, chosen, lower, upper, sent[lower])
            for lower, upper in HOPS
            if chosen[lower] and chosen[upper] and not (upper - lower > 1 and edges)
        },
        sent=sent,
    )


def _cuts(n: int, edge: bool, cloud: bool) -> tuple[Ints, Ints]:
    """All (i, j) that give blocks to the edge, or none, and to the cloud, or none; the device may go without."""
    if edge and cloud:
        i, j = np.triu_indices(n, k=1)
        return i.astype(np.int64), j.astype(np.int64)
    every, end = np.arange(n, dtype=np.int64), np.full(n, n, dtype=np.int64)
    if edge:
        return every, end
    return (every, every) if cloud else (end[:1], end[:1])


def _stage(tier: Tier, systems: Sequence[System], model: str, cuts: tuple[Ints, Ints]) -> Floats:
    if not systems:
        return np.zeros((1, 1, 1))
    before = np.asarray([np.concatenate([[0.0], np.cumsum(s.models[model].seconds)]) for s in systems])
    seconds = np.maximum(before[:, cuts[1]] - before[:, cuts[0]], 0.0)
    return np.expand_dims(seconds, {Tier.DEVICE: 0, Tier.EDGE: 1, Tier.CLOUD: 0}[tier])


def _hop(network: Network, systems: Mapping[Tier, Sequence[System]], lower: Tier, upper: Tier, sent: Floats) -> Floats:
    links = [[network.link(s.name, d.name) for d in systems[upper]] for s in systems[lower]]
    latency_s = _pairs(lower, upper, [[link.latency_s for link in row] for row in links])
    bandwidth = _pairs(lower, upper, [[link.bandwidth_bytes_per_s for link in row] for row in links])
    return latency_s + sent / bandwidth


def _pairs(lower: Tier, upper: Tier, values: Sequence[Sequence[float]]) -> Floats:
    table = np.asarray(values, float)
    return table[:, :, None] if lower == Tier.EDGE else table[0].reshape(_along(upper))


def _along(tier: Tier) -> tuple[int, int, int]:
    """Shape that puts values per system of a tier on that tier's axis."""
    return {Tier.DEVICE: (1, 1, 1), Tier.EDGE: (-1, 1, 1), Tier.CLOUD: (1, -1, 1)}[tier]
