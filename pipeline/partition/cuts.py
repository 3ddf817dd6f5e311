"""Placements that cut the blocks' order twice: device up to i, edge up to j, the rest in the cloud.

For a chain these are all placements. For other graphs they are good ones, found for all (i, j) at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipeline.cost import LINKS, Costs
from pipeline.graph import ModelGraph
from pipeline.partition.objective import MEGABYTE, Objective
from pipeline.placement import Placement, Tier

_MOST = 20

Floats = npt.NDArray[np.float64]


def placement_of(graph: ModelGraph, edge_from: int, cloud_from: int) -> Placement:
    """The device has blocks below `edge_from` (at least 1), the edge those below `cloud_from`, the cloud the rest."""
    first, second = sorted((edge_from, cloud_from))
    return (Tier.DEVICE,) * first + (Tier.EDGE,) * (second - first) + (Tier.CLOUD,) * (len(graph) - second)


def values(graph: ModelGraph, costs: Costs, objective: Objective) -> Floats:
    """`[i - 1, j - 1]`: the objective of `placement_of(graph, i, j)`, i and j from 1 to len(graph).

    Infinite where j < i, or where a tier without a node would have blocks. With `costs.tiles` right only where the
    stack is on the edge.
    """
    n = len(graph)
    computed = {tier: _sums(costs, tier, n) for tier in Tier}
    first, second = np.arange(1, n + 1)[:, None], np.arange(1, n + 1)[None, :]
    stages = {
        Tier.DEVICE: computed[Tier.DEVICE][first],
        Tier.EDGE: computed[Tier.EDGE][second] - computed[Tier.EDGE][first],
        Tier.CLOUD: computed[Tier.CLOUD][n] - computed[Tier.CLOUD][second],
    }
    total: Floats = np.full((n, n), objective.latency * costs.frame_overhead_s)
    period: Floats = np.zeros((n, n))
    for tier, seconds in stages.items():
        total = total + seconds * (objective.latency + objective.price * costs.prices.get(tier, 0.0))
        waiting_s = costs.tiles.seconds - costs.tiles.own_seconds if costs.tiles and tier == Tier.EDGE else 0.0
        period = np.maximum(period, seconds - waiting_s) if objective.period else period
    moved, answers = crossing_bytes(graph)
    for lower, at in zip(LINKS, (first, second), strict=True):
        link = costs.link(lower)
        nbytes = moved + answers
        uses = (np.arange(n + 1) < n).astype(float) + (answers > 0)
        backbone = objective.backbone / MEGABYTE if lower == Tier.EDGE else 0.0
        latency = nbytes / link.bandwidth_bytes_per_s + uses * link.latency_s
        total = total + (objective.latency * latency + backbone * nbytes)[at]
        if objective.period:
            period = np.maximum(period, (nbytes / link.bandwidth_bytes_per_s)[at])
    used = {Tier.DEVICE: first < n, Tier.EDGE: second > first, Tier.CLOUD: second < n}
    for tier, overhead_s in costs.send_receive_overhead.items():
        total = total + objective.latency * overhead_s * used[tier]
    period = np.maximum(period, costs.tiles.busy_seconds if costs.tiles else 0.0)
    total = total + objective.period * period
    total[np.broadcast_to(second < first, (n, n))] = np.inf
    if Tier.EDGE not in costs.seconds:
        total[np.broadcast_to(second > first, (n, n))] = np.inf
    if Tier.CLOUD not in costs.seconds:
        total[:, : n - 1] = np.inf
    return total


def best_cuts(graph: ModelGraph, costs: Costs, objective: Objective) -> Iterator[Placement]:
    """The single tiers and the best such placements, cheapest first."""
    n, found = len(graph), values(graph, costs, objective)
    flat = found.ravel()
    order = np.argpartition(flat, min(_MOST, flat.size - 1))[: _MOST + 1]
    single = [at for at in (n * n - 1, n - 1, 0) if np.isfinite(flat[at])]  # device, edge, cloud
    for at in sorted({*order.tolist(), *single}, key=lambda at: (flat[at], -at)):
        if np.isfinite(flat[at]):
            yield placement_of(graph, at // n + 1, at % n + 1)


def crossing_bytes(graph: ModelGraph) -> tuple[Floats, Floats]:
    """`[i]`, i from 0 to len(graph): bytes made below block i and read at or above it, and of outputs made above."""
    moved, answers = np.zeros(len(graph) + 1), np.zeros(len(graph) + 1)
    for tensor, readers in enumerate(graph.consumers):
        producer, nbytes = graph.producer[tensor], graph.tensors[tensor].nbytes
        if readers:
            moved[producer + 1 : readers[-1] + 1] += nbytes
        if tensor in graph.outputs:
            answers[: producer + 1] += nbytes
    return moved, answers


def _sums(costs: Costs, tier: Tier, n: int) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.asarray(costs.seconds.get(tier, np.zeros(n)), float))])
