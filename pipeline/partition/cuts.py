"""Placements that cut the blocks' order twice: device up to i, edge up to j, the rest in the cloud.

For a chain these are all placements. For other graphs they are good ones, found for all (i, j) at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipeline.coding import WAYS
from pipeline.cost import LINKS, Costs
from pipeline.graph import ModelGraph
from pipeline.partition.codings import Codings, Shares
from pipeline.partition.objective import Objective
from pipeline.partition.worth import answer_worth, fixed_worth, overhead_worth
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
    total: Floats = np.full((n, n), fixed_worth(costs, objective))
    period: Floats = np.zeros((n, n))
    for tier, seconds in stages.items():
        total = total + seconds * objective.per_second(costs, tier)
        waiting_s = costs.tiles.seconds - costs.tiles.own_seconds if costs.tiles and tier == Tier.EDGE else 0.0
        period = np.maximum(period, seconds - waiting_s) if objective.period else period
    codings = Codings.under(graph, costs)
    total = total + crossing(graph, Shares.adding(*(codings.worth(costs, objective, way) for way in WAYS)))
    answers = _answers(graph)
    for lower, at in zip(LINKS, (first, second), strict=True):
        link = costs.link(lower)
        uses = (np.arange(n + 1) < n).astype(float) + (answers > 0)
        total = (
            total + (answer_worth(costs, objective, lower) * answers + objective.latency * uses * link.latency_s)[at]
        )
        if objective.period:
            sent = crossing(graph, link_bytes(codings, lower)) + answers[at]
            period = np.maximum(period, sent / link.bandwidth_bytes_per_s)
    for coder in coders(codings) if objective.period and codings.is_coded else ():
        period = np.maximum(period, crossing(graph, coder))
    used = {Tier.DEVICE: first < n, Tier.EDGE: second > first, Tier.CLOUD: second < n}
    for tier in costs.send_receive_overhead:
        total = total + overhead_worth(costs, objective, tier) * used[tier]
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


def crossing(graph: ModelGraph, shares: Shares) -> Floats:
    """`[i - 1, j - 1]`: the sum over what crosses if the device has blocks below i and the cloud those from j on."""
    n = len(graph)
    below, above, beyond = np.zeros(n + 1), np.zeros(n + 1), np.zeros((n + 1, n + 1))
    for tensor, readers in enumerate(graph.consumers):
        producer = graph.producer[tensor]
        if readers:
            below[producer + 1 : readers[-1] + 1] += shares.below[tensor]
            above[producer + 1 : readers[-1] + 1] += shares.above[tensor]
            beyond[producer + 1, readers[-1]] += shares.beyond[tensor]
    found: Floats = below[1:, None] + above[None, 1:]
    if shares.beyond.any():  # of what is made below i and read from j on
        found += np.cumsum(np.cumsum(beyond, axis=0)[:, ::-1], axis=1)[1:, ::-1][:, 1:]
    return found


def link_bytes(codings: Codings, lower: Tier) -> Shares:
    """Bytes that go up a link."""
    below, whole, above = (codings.ways[way].nbytes for way in WAYS)
    nothing = np.zeros_like(whole)
    return Shares.adding(below, whole, nothing) if lower == Tier.DEVICE else Shares.adding(nothing, whole, above)


def coders(codings: Codings) -> Iterator[Shares]:
    """Seconds of those who encode (device, edge) and of those who decode (edge, cloud)."""
    below, whole, above = (codings.ways[way] for way in WAYS)
    nothing = np.zeros_like(whole.nbytes)
    yield Shares.adding(below.encode_s, whole.encode_s, nothing)
    yield Shares.adding(nothing, nothing, above.encode_s)
    yield Shares.adding(below.decode_s, nothing, nothing)
    yield Shares.adding(nothing, whole.decode_s, above.decode_s)


def _answers(graph: ModelGraph) -> Floats:
    """`[i]`, i from 0 to len(graph): bytes of outputs made at or above block i."""
    answers = np.zeros(len(graph) + 1)
    for tensor in set(graph.outputs):
        answers[: graph.producer[tensor] + 1] += graph.tensors[tensor].nbytes
    return answers


def _sums(costs: Costs, tier: Tier, n: int) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.asarray(costs.seconds.get(tier, np.zeros(n)), float))])
