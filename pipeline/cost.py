"""The cost model: the seconds, bytes, money and joules of a placement, per stage and link. All planners and every
printed price use it.

Source: D3's serial sum, with a tensor sent once to however many readers it has, coded where that is cheaper. The broker
stands at the edge, so what goes from device to cloud pays both links.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import compress
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from pipeline import ranges
from pipeline.coding import QUICKEST, CodecCosts, Coding, CodingWorth, PlannedCodecs, Way, fewest, given, least
from pipeline.energy import NO_DRAW, Draw
from pipeline.errors import PlanError
from pipeline.graph import ModelGraph, Tensor
from pipeline.placement import Crossing, Tier, crossings, returning
from pipeline.ranges import Count, Label, Sum
from pipeline.shared_cores import CoresCost, SharedCores
from pipeline.tiles_cost import TilesCost

INTERVAL = 0.9
INTERVAL_DEVIATIONS = 1.645
"""Deviations from the middle of a normal distribution between which INTERVAL of it lies."""
LINKS = (Tier.DEVICE, Tier.EDGE)
"""A link is named by its lower tier."""


def link_label(lower: Tier) -> str:
    """`device_edge` or `edge_cloud`."""
    return f"{lower.label}_{Tier(lower + 1).label}"


@dataclass(frozen=True, slots=True)
class Link:
    """A link between neighbouring tiers: bytes per second, and seconds of latency one way."""

    bandwidth_bytes_per_s: float
    latency_s: float

    def __post_init__(self) -> None:
        if not (self.bandwidth_bytes_per_s > 0 and math.isfinite(self.latency_s) and self.latency_s >= 0):
            raise PlanError(
                f"a link needs a bandwidth above 0 and a latency of at least 0, not "
                f"{self.bandwidth_bytes_per_s} bytes/s and {self.latency_s} s; measure it again"
            )


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs that planners work with: `seconds[tier][block]` for the tiers that have a node, and both links.

    `prices` are money per second of a tier's node at work, and `draws` its watts and joules per byte, 0 where none is
    given. `send_receive_overhead` are seconds
    that a frame takes a tier's node, wherever it passes from node to node, to receive and to send beside what links
    take, `frame_overhead_s` those that it takes the device to read the frame and to answer it, whatever the placement.
    With `tiles` all holds for placements that have a certain stack on the edge, shared out: `seconds` are then what its
    blocks take so, waiting included. `codecs` is what is known of codecs, None to send all tensors as they are, and
    `worth` by what the codec of each tensor is chosen; `fixed` are the codecs that a plan has, whatever is
    cheapest now. `cores` are those that several of the nodes share. With `is_bound` they are a lower bound of several
    nodes' costs.
    """

    seconds: Mapping[Tier, Sequence[float]]
    device_edge: Link
    edge_cloud: Link
    prices: Mapping[Tier, float] = field(default_factory=lambda: MappingProxyType({}))
    send_receive_overhead: Mapping[Tier, float] = field(default_factory=lambda: MappingProxyType({}))
    frame_overhead_s: float = 0.0
    tiles: TilesCost | None = None
    codecs: CodecCosts | None = None
    worth: CodingWorth = QUICKEST
    fixed: PlannedCodecs | None = None
    draws: Mapping[Tier, Draw] = field(default_factory=lambda: MappingProxyType({}))
    cores: tuple[SharedCores, ...] = ()
    is_bound: bool = False
    _chosen: dict[tuple[Tensor, Way], Coding] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Codings that were asked for."""

    def check(self, graph: ModelGraph, checked: set[int] | None = None) -> None:
        """Raise PlanError unless there is a finite, non-negative time for each block of each tier with a node.

        `checked` are ids of times that others share, and that were good; these are added.
        """
        if Tier.DEVICE not in self.seconds:
            raise PlanError("no costs for the device: it is where frames enter")
        for tier, seconds in self.seconds.items():
            if checked is not None and id(seconds) in checked:
                continue
            if len(seconds) != len(graph):
                raise PlanError(
                    f"{len(seconds)} block times on the {tier.label} for {len(graph)} blocks; profile again"
                )
            taken = np.asarray(seconds, float)
            for block in np.flatnonzero(~(np.isfinite(taken) & (taken >= 0))).tolist():
                name = graph.blocks[block].name
                raise PlanError(f"block {name!r} takes {seconds[block]} s on the {tier.label}; profile again")
            if checked is not None:
                checked.add(id(seconds))
        for tier, price in self.prices.items():
            if not (math.isfinite(price) and price >= 0):
                raise PlanError(f"a second on the {tier.label} costs {price}; give a price of at least 0")
        if not (math.isfinite(self.frame_overhead_s) and self.frame_overhead_s >= 0):
            raise PlanError(
                f"the device takes {self.frame_overhead_s} s to read a frame and answer it; measure it again"
            )
        for tier, seconds_s in self.send_receive_overhead.items():
            if not (math.isfinite(seconds_s) and seconds_s >= 0):
                raise PlanError(f"the {tier.label} takes {seconds_s} s to receive and send; measure it again")
        for tier, draw in self.draws.items():
            if not (0 <= draw.watts < math.inf and 0 <= draw.joules_per_byte < math.inf):
                raise PlanError(
                    f"the {tier.label} draws {draw.watts} W and {draw.joules_per_byte} J a byte; give finite values of "
                    "at least 0"
                )

    @property
    def waiting_s(self) -> float:
        """Seconds of the edge's stage in which it waits for other nodes' tiles."""
        return self.tiles.waiting_seconds if self.tiles is not None else 0.0

    def draw(self, tier: Tier) -> Draw:
        """What work on a tier's node draws."""
        return self.draws.get(tier, NO_DRAW)

    def link(self, lower: Tier) -> Link:
        """The link from `lower` to the next tier."""
        return self.device_edge if lower == Tier.DEVICE else self.edge_cloud

    def coding(self, tensor: Tensor, way: Way) -> Coding:
        """How the tensor is sent from one tier to another."""
        found = self._chosen.get((tensor, way))
        if found is None:
            found = self._chosen[tensor, way] = self._coding(tensor, way)
        return found

    def _coding(self, tensor: Tensor, way: Way) -> Coding:
        if self.fixed is not None:
            return given(tensor, way, self.codecs, self.fixed.on(tensor.id, way))
        bandwidths = {lower: self.link(lower).bandwidth_bytes_per_s for lower in LINKS}
        return least(tensor, way, self.codecs, bandwidths, self.worth, self.draws)

    def sent_bytes(self, tensor: Tensor, way: Way) -> int:
        """Bytes of the tensor on a way; of a bound, as few as any of its nodes may send."""
        return fewest(tensor, way, self.codecs) if self.is_bound else self.coding(tensor, way).nbytes

    def sent_joules(self, tensor: Tensor, way: Way) -> float:
        """Joules of both ends of a way; of a bound, those of the bytes alone."""
        sender, reader = self.draw(way[0]), self.draw(way[1])
        if self.is_bound:
            return (sender.joules_per_byte + reader.joules_per_byte) * self.sent_bytes(tensor, way)
        return self.coding(tensor, way).joules(sender, reader)


@dataclass(frozen=True, slots=True)
class LinkCost:
    """Tensors going up a link and the result coming down it: seconds and bytes of both, as they are sent.

    In `seconds` is also what the nodes at its ends take to send and receive: the edge's between device and edge.
    `busy_seconds` are those in which the link is taken and no other frame's bytes can pass. `uncoded_nbytes` are the
    tensors as they are; `encode_seconds` those of tensors that begin their way here, `decode_seconds` of those that end
    it. With `result_` before it, the same of outputs on their way down, and seconds at both ends of those that begin it
    here.
    """

    seconds: Sum
    nbytes: Count
    result_nbytes: Count
    busy_seconds: Sum
    uncoded_nbytes: Count = 0
    encode_seconds: Sum = 0.0
    decode_seconds: Sum = 0.0
    result_uncoded_nbytes: Count = 0
    result_encode_seconds: Sum = 0.0
    result_decode_seconds: Sum = 0.0

    @property
    def ratio(self) -> float:
        """How many times fewer bytes go up than the tensors have."""
        return self.uncoded_nbytes / self.nbytes if self.nbytes and self.uncoded_nbytes else 1.0

    @property
    def result_ratio(self) -> float:
        """How many times fewer bytes come down than the outputs have."""
        known = self.result_nbytes and self.result_uncoded_nbytes
        return self.result_uncoded_nbytes / self.result_nbytes if known else 1.0


_NO_LINK = LinkCost(0.0, 0, 0, 0.0)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The predicted cost of a placement: seconds of each stage by tier label, each link by `device_edge`/`edge_cloud`.

    `seconds` is the latency of one frame, the sum of these and of `frame_overhead_seconds`, in which the device reads
    it and answers it; `price` is what it costs in money, `joules` what it adds to what the nodes draw when idle. Of
    frames that have the pipeline to themselves, INTERVAL take from `low` to `high` seconds; None where nothing is known
    of that. `cores` are those that several of its nodes share.
    """

    seconds: Sum
    stages: Mapping[Label, Sum]
    links: Mapping[Label, LinkCost]
    price: Sum = 0.0
    tiles: TilesCost | None = None
    frame_overhead_seconds: Sum = 0.0
    joules: Sum = 0.0
    low: Sum | None = None
    high: Sum | None = None
    cores: Annotated[tuple[CoresCost, ...], Field(max_length=len(Tier))] = ()

    def within(self, deviation: float) -> Prediction:
        """The same with the interval that belongs to a standard deviation of the logarithm of a frame's seconds."""
        wide = math.exp(INTERVAL_DEVIATIONS * deviation)
        return replace(self, low=self.seconds / wide, high=self.seconds * wide)

    @property
    def period_s(self) -> float:
        """Seconds between a stream's frames at full load: those of whatever is busiest with each."""
        return max(self._busy(), default=(0.0, ""), key=lambda one: one[0])[0]

    @property
    def bottleneck(self) -> str:
        """Whatever is busiest with each frame, in words; empty where nothing is."""
        return max(self._busy(), default=(0.0, ""), key=lambda one: one[0])[1]

    def _busy(self) -> Iterator[tuple[float, str]]:
        """Each stage, tile worker, coder, link, and what nodes share of a machine's cores."""
        for label, seconds in self.stages.items():
            waiting_s = self.tiles.waiting_seconds if self.tiles and label == Tier.EDGE.label else 0.0
            yield seconds - waiting_s, f"the {label}"
        if self.tiles is not None:
            yield self.tiles.busy_seconds, "a tile worker or its link"
        yield from ((link.busy_seconds, f"the link {label.replace('_', '-')}") for label, link in self.links.items())
        yield from ((seconds, "coding tensors") for seconds in self._coders())
        yield from ((cores.busy_seconds, str(cores)) for cores in self.cores)

    def _coders(self) -> Iterator[float]:
        """Seconds of each node's thread that encodes, and of each one's that decodes."""
        below, above = (self.links.get(link_label(lower), _NO_LINK) for lower in LINKS)
        yield from (below.encode_seconds, above.encode_seconds + below.result_encode_seconds)
        yield from (above.result_encode_seconds, above.decode_seconds)
        yield from (below.decode_seconds, below.result_decode_seconds + above.result_decode_seconds)

    @property
    def backbone_nbytes(self) -> int:
        """Bytes of one frame between edge and cloud, its result's included."""
        link = self.links.get(link_label(Tier.EDGE))
        return link.nbytes + link.result_nbytes if link else 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"cores": [cores.to_json() for cores in self.cores]}

    def period_json(self) -> dict[str, Any]:
        """What follows from it, as plain JSON values, for those who only read."""
        return {"period_seconds": self.period_s, "bottleneck": self.bottleneck}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Prediction:
        """Read it back. Raises PlanError for anything else."""
        return ranges.read(cls, value, error=PlanError, what="a prediction")


def predict(graph: ModelGraph, placement: Sequence[Tier], costs: Costs) -> Prediction:
    """Latency of one frame under `placement`, in seconds, with its parts.

    Raises PlanError when the placement uses a tier that `costs` has no node for, or is not of the graph's length.
    """
    if len(placement) != len(graph):
        raise PlanError(f"a placement of {len(placement)} blocks, and {graph.name} has {len(graph)}")
    stages: dict[str, float] = {}
    for tier in dict.fromkeys(placement):
        if tier not in costs.seconds:
            name = graph.blocks[placement.index(tier)].name
            raise PlanError(f"block {name!r} is placed on the {tier.label}, which has no node")
        own = [at == tier for at in placement]
        stages[tier.label] = float(sum(compress(costs.seconds[tier], own)))
    links, crossing = {}, crossings(graph, placement)
    for lower in LINKS:
        cost = _link_cost(graph, placement, costs, lower, crossing)
        if cost is not None:
            links[link_label(lower)] = cost
    total = costs.frame_overhead_s + sum(stages.values()) + sum(cost.seconds for cost in links.values())
    price = sum(costs.prices.get(tier, 0.0) * stages.get(tier.label, 0.0) for tier in Tier)
    tiles = costs.tiles if Tier.EDGE.label in stages else None
    joules = _joules(graph, placement, costs, stages, crossing)
    cores = tuple(
        taken for shared in costs.cores if (taken := shared.cost(stages, costs.waiting_s if tiles else 0.0)) is not None
    )
    return Prediction(total, stages, links, price, tiles, costs.frame_overhead_s, joules, cores=cores)


def _joules(
    graph: ModelGraph,
    placement: Sequence[Tier],
    costs: Costs,
    stages: Mapping[str, float],
    crossing: Sequence[Crossing],
) -> float:
    """Joules of all nodes: computing, coding, handling and bytes; a tensor's bytes at its sender and furthest reader.

    The seconds in which the edge waits for other nodes' tiles draw nothing there; the tiles draw their own.
    """
    if not costs.draws and costs.tiles is None:
        return 0.0
    total = costs.draw(Tier.DEVICE).joules(costs.frame_overhead_s)
    leaves = max(placement) > Tier.DEVICE
    for tier in set(placement):  # the input is a block of the device's
        handled_s = costs.send_receive_overhead.get(tier, 0.0) if leaves else 0.0
        total += costs.draw(tier).joules(stages[tier.label] + handled_s)
    if costs.tiles is not None and Tier.EDGE in placement:
        total += costs.tiles.joules - costs.draw(Tier.EDGE).joules(costs.tiles.seconds)
    for one in (*crossing, *returning(graph, placement)):
        sender, reader = costs.draw(one.source), costs.draw(one.readers[-1])
        total += coding_of(graph, costs, one).joules(sender, reader)
    return total


def _link_cost(
    graph: ModelGraph, placement: Sequence[Tier], costs: Costs, lower: Tier, leaving: Sequence[Crossing]
) -> LinkCost | None:
    if max(placement) <= lower:
        return None
    link = costs.link(lower)
    crossing = [c for c in leaving if c.crosses(lower)]
    codings = {c.tensor: coding_of(graph, costs, c) for c in crossing}
    nbytes = sum(coding.nbytes for coding in codings.values())
    encode_s = sum(codings[c.tensor].encode_s for c in crossing if c.source == lower)
    decode_s = sum(codings[c.tensor].decode_s for c in crossing if c.readers[-1] == lower + 1)
    back = {c: coding_of(graph, costs, c) for c in returning(graph, placement) if c.crosses(lower)}
    result_nbytes = sum(coding.nbytes for coding in back.values())
    result_encode_s = sum(coding.encode_s for c, coding in back.items() if c.source == lower + 1)
    result_decode_s = sum(coding.decode_s for c, coding in back.items() if c.source == lower + 1)
    busy = (nbytes + result_nbytes) / link.bandwidth_bytes_per_s
    coding_s = encode_s + decode_s + result_encode_s + result_decode_s
    handled_by = {Tier.DEVICE, Tier.EDGE} & {Tier.DEVICE, *placement} if lower == Tier.DEVICE else {Tier.CLOUD}
    overhead_s = sum(costs.send_receive_overhead.get(tier, 0.0) for tier in handled_by)
    return LinkCost(
        seconds=coding_s + busy + link.latency_s * (2 if back else 1) + overhead_s,
        nbytes=nbytes,
        result_nbytes=result_nbytes,
        busy_seconds=busy,
        uncoded_nbytes=sum(_uncoded_nbytes(graph.tensors[c.tensor], codings[c.tensor]) for c in crossing),
        encode_seconds=encode_s,
        decode_seconds=decode_s,
        result_uncoded_nbytes=sum(_uncoded_nbytes(graph.tensors[c.tensor], coding) for c, coding in back.items()),
        result_encode_seconds=result_encode_s,
        result_decode_seconds=result_decode_s,
    )


def _uncoded_nbytes(tensor: Tensor, coding: Coding) -> int:
    return coding.nbytes if tensor.varies else tensor.nbytes


def coding_of(graph: ModelGraph, costs: Costs, crossing: Crossing) -> Coding:
    """How a tensor that leaves its tier is sent: one way for all its readers; or how an output is sent back."""
    return costs.coding(graph.tensors[crossing.tensor], crossing.way)
