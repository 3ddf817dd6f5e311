"""Bounds for all sets of nodes at once, from what each node takes by itself: most sets need no price of their own.

A placement's value is a sum of what its first cut is worth, which depends on device and edge, and its second, which
depends on edge and cloud. The sums are those of `cuts`; what is left out here (the period, seconds of coding, joules
of handling and of bytes) only adds to them, and tensors have as few bytes as any codec makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import NamedTuple, TypeVar

import numpy as np

from pipeline.codecs import CODECS, NONE
from pipeline.cost import Link
from pipeline.frames.input_blocks import first_block
from pipeline.graph import ModelGraph
from pipeline.partition.cut_family import CutFamily, Floats
from pipeline.partition.objective import MEGABYTE, Objective
from pipeline.placement import Tier

Name = TypeVar("Name", bound=str)


@dataclass(frozen=True, slots=True)
class NodeTerms:
    """What a node takes in any set: `seconds` by block, and each of them worth `worth` but for the period; seconds of a
    byte to the broker and from it, of a message's way there, to receive and send a frame and, of a device, to read and
    answer it.
    """

    seconds: Sequence[float]
    worth: float
    up_byte_s: float
    down_byte_s: float
    latency_s: float
    overhead_s: float
    frame_overhead_s: float = 0.0


_NOBODY = NodeTerms((), 0.0, 0.0, 0.0, 0.0, 0.0)


class SetBound(NamedTuple):
    """What no placement on a set of nodes is worth less than, and none that has the network on its last tier alone;
    `without_edge` where the least is that of a placement without blocks on the edge.
    """

    least: float
    alone: float
    without_edge: bool = False


def bounds_of_each(
    graph: ModelGraph,
    family: CutFamily,
    nbytes: Floats,
    objective: Objective,
    sets: Sequence[Mapping[Tier, Name]],
    terms: Mapping[Name, NodeTerms],
    links: Mapping[Tier, Link],
) -> list[SetBound]:
    """Bound the placements by the family's cuts on each set of nodes; `nbytes` are the tensors' least.

    `links` by lower tier are given, whatever the nodes. The input's blocks may be on the device, whoever has the
    network. A bound is reached, but for rounding, where nothing is coded,
    given, and the objective has neither period nor joules.
    """
    row: dict[str, int] = {node: number for number, node in enumerate(terms)}
    number = {tier: np.array([row.get(nodes.get(tier, ""), len(terms)) for nodes in sets], np.int64) for tier in Tier}
    known = [*terms.values(), _NOBODY]
    per_second = objective.latency
    before = np.stack([_before(family, each) for each in known])
    up, down, latency, overhead, frame = np.array(
        [(n.up_byte_s, n.down_byte_s, n.latency_s, n.overhead_s, n.frame_overhead_s) for n in known]
    ).T
    sent = family.crossing @ nbytes + family.returned @ nbytes[list(graph.results)]
    is_left = (np.arange(len(family)) < len(family) - 1).astype(float)
    uses = is_left + family.returned.any(axis=1)
    device, edge, cloud = (number[tier] for tier in Tier)

    def way(lower: Tier, byte: float) -> Floats:
        ends = number[lower], number[Tier(lower + 1)]
        byte_s, latency_s = up[ends[0]] + down[ends[1]], latency[ends[0]] + latency[ends[1]]
        if lower in links:
            byte_s = np.full(len(sets), 1 / links[lower].bandwidth_bytes_per_s)
            latency_s = np.full(len(sets), links[lower].latency_s)
        found: Floats = np.outer(per_second * byte_s + byte, sent) + np.outer(per_second * latency_s, uses)
        return found

    first = before[device] - before[edge] + way(Tier.DEVICE, 0.0) + np.outer(per_second * overhead[device], is_left)
    second = before[edge] + (before[cloud, -1:] - before[cloud]) + way(Tier.EDGE, objective.backbone / MEGABYTE)
    second += np.outer(per_second * overhead[cloud], is_left) + per_second * frame[device, None]
    second[cloud == len(terms), :-1] = np.inf
    apart = np.where(edge == len(terms), np.inf, per_second * overhead[edge])[:, None]
    without = (first + second).min(axis=1)
    least = np.minimum(without, (first + apart + family.least_behind(second)).min(axis=1))
    begin = family.inside.sum(axis=1) <= first_block(graph)
    handled = np.outer(per_second * overhead[edge], is_left[begin])
    on_edge = (first[:, begin] + handled).min(axis=1) + second[:, -1]
    on_cloud = (first + second)[:, begin].min(axis=1)
    whole = np.where(edge == len(terms), first[:, -1] + second[:, -1], on_edge)
    alone = np.where(cloud == len(terms), whole, on_cloud)
    return list(starmap(SetBound, zip(least.tolist(), alone.tolist(), (without <= least).tolist(), strict=True)))


def without_doubles(bounds: Sequence[SetBound], sets: Sequence[Mapping[Tier, Name]]) -> list[SetBound]:
    """Bounds without a least value (inf) where an edge's or a cloud's node is of no use: the set without it has a plan
    that is no worse.

    Where no constraint is on any set, since that might forbid the one's plan and not the other's, and where bounds are
    reached.
    """
    pairs = list(zip(bounds, sets, strict=True))
    least = {nodes.get(Tier.EDGE): bound.least for bound, nodes in pairs if Tier.CLOUD not in nodes}
    return [
        bound._replace(least=math.inf)
        if (Tier.EDGE in nodes and bound.without_edge)
        or (Tier.CLOUD in nodes and bound.least >= least.get(nodes.get(Tier.EDGE), math.inf))
        else bound
        for bound, nodes in pairs
    ]


def _before(family: CutFamily, terms: NodeTerms) -> Floats:
    """`[cut]`: the worth of the node's seconds for all blocks before a cut."""
    if terms is _NOBODY:
        return np.zeros(len(family))
    found: Floats = terms.worth * (family.inside @ np.asarray(terms.seconds, float))
    return found


def is_coded(ratios: Mapping[int, Mapping[str, float]]) -> bool:
    """True when some codec makes fewer bytes of some tensor."""
    return any(codec in CODECS for by_codec in ratios.values() for codec in by_codec)


def fewest_bytes(graph: ModelGraph, ratios: Mapping[int, Mapping[str, float]], nbytes: Floats) -> Floats:
    """`[tensor]`: bytes with whichever codec makes fewest of it, from the most that each has."""
    if not ratios:
        return nbytes
    fewer = np.ones(len(nbytes))
    for tensor in graph.tensors:
        known = ratios.get(tensor.id, {})
        able = [ratio for codec, ratio in known.items() if codec in CODECS or (codec == NONE and tensor.varies)]
        fewer[tensor.id] = max([1.0, *able])
    fewest: Floats = np.ceil(nbytes / fewer)
    return fewest
