"""A placement puts each block on a tier; its stages and crossings follow from it.

Data only flows device -> edge -> cloud, so a placement is monotone along the graph's edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NewType, TypeAlias

from pipeline.errors import PlanError
from pipeline.graph import ModelGraph

NodeId = NewType("NodeId", str)


class Tier(IntEnum):
    """Tiers on which a block may run, in the order in which data flows."""

    DEVICE = 0
    EDGE = 1
    CLOUD = 2

    @property
    def label(self) -> str:
        """The tier's name as configuration and JSON write it."""
        return _LABELS[self]

    @classmethod
    def named(cls, label: str) -> Tier:
        """The tier of this label. Raises PlanError."""
        try:
            return cls[label.upper()]
        except KeyError:
            raise PlanError(f"unknown tier {label!r}: device, edge or cloud") from None


_LABELS = tuple(tier.name.lower() for tier in Tier)
Placement: TypeAlias = tuple[Tier, ...]
"""One tier for each block, by block index; block 0 (the input) is always on the device."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One tier's part of a frame: block indices ascending, tensor ids ascending.

    `inputs` arrive from earlier tiers; `sends` are read by later tiers; `results` are model outputs made here.
    On the device, the model's input tensors count as made there (block 0 is one of its blocks).
    """

    tier: Tier
    blocks: tuple[int, ...]
    inputs: tuple[int, ...]
    sends: tuple[int, ...]
    results: tuple[int, ...]

    @property
    def outputs(self) -> tuple[int, ...]:
        """All tensors the stage hands on, ascending, each once."""
        return tuple(sorted({*self.sends, *self.results}))


@dataclass(frozen=True, slots=True)
class Crossing:
    """One tensor that leaves its tier; it is sent once, to the furthest of `readers` and whoever is on the way. Or an
    output on its way back to the device, its only reader.
    """

    tensor: int
    source: Tier
    readers: tuple[Tier, ...]

    @property
    def way(self) -> tuple[Tier, Tier]:
        """From its tier to that of its furthest reader."""
        return self.source, self.readers[-1]

    def crosses(self, lower: Tier) -> bool:
        """True when it passes the link between `lower` and the next tier."""
        furthest = self.readers[-1]
        return self.source <= lower < furthest or furthest <= lower < self.source


def check(graph: ModelGraph, placement: Sequence[Tier]) -> None:
    """Raise PlanError unless the placement is monotone, complete, and has the input on the device."""
    if len(placement) != len(graph):
        raise PlanError(f"placement of {len(placement)} blocks for a model of {len(graph)} ({graph.name!r})")
    if placement[0] != Tier.DEVICE:
        raise PlanError("the input block stands on the device")
    for before, after in graph.edges:
        if placement[before] > placement[after]:
            raise PlanError(
                f"data would flow backwards: block {graph.blocks[before].name!r} on the {placement[before].label} "
                f"feeds {graph.blocks[after].name!r} on the {placement[after].label}; "
                "put it on the same or a later tier"
            )


def crossings(graph: ModelGraph, placement: Sequence[Tier]) -> tuple[Crossing, ...]:
    """The tensors that leave their tier, by tensor id."""
    found = []
    for tensor, (producer, consumers) in enumerate(zip(graph.producer, graph.consumers, strict=True)):
        source = placement[producer]
        if len(consumers) == 1:  # most of them
            reader = placement[consumers[0]]
            if reader != source:
                found.append(Crossing(tensor, source, (reader,)))
        elif readers := {placement[block] for block in consumers} - {source}:
            found.append(Crossing(tensor, source, tuple(sorted(readers))))
    return tuple(found)


def returning(graph: ModelGraph, placement: Sequence[Tier]) -> tuple[Crossing, ...]:
    """The outputs that go back to the device, by tensor id."""
    made = ((tensor, placement[graph.producer[tensor]]) for tensor in graph.results)
    return tuple(Crossing(tensor, tier, (Tier.DEVICE,)) for tensor, tier in made if tier != Tier.DEVICE)


def stages(graph: ModelGraph, placement: Sequence[Tier]) -> tuple[Stage, ...]:
    """One stage per tier that has blocks, in tier order; the device's is always there."""
    crossing = crossings(graph, placement)
    made = []
    for tier in Tier:
        blocks = tuple(b.index for b in graph.blocks if placement[b.index] == tier)
        if not blocks:
            continue
        made.append(
            Stage(
                tier=tier,
                blocks=blocks,
                inputs=tuple(c.tensor for c in crossing if tier in c.readers),
                sends=tuple(c.tensor for c in crossing if c.source == tier),
                results=tuple(sorted(t for t in set(graph.outputs) if placement[graph.producer[t]] == tier)),
            )
        )
    return tuple(made)


def split_at(graph: ModelGraph, edge_from: str | None, cloud_from: str | None) -> Placement:
    """The placement by topological order: the device up to `edge_from`, the edge up to `cloud_from`, then the cloud.

    A block is named by name, layer or index; None leaves that tier (and, for the edge, only it) without blocks.
    Raises ModelError for an unknown block, PlanError when the cloud would begin before the edge.
    """
    end = len(graph)
    cloud = end if cloud_from is None else max(1, graph.block_named(cloud_from).index)
    edge = cloud if edge_from is None else max(1, graph.block_named(edge_from).index)
    if cloud < edge:
        raise PlanError(f"the cloud would begin at block {cloud}, before the edge at {edge}; name a later block for it")
    return tuple(Tier.DEVICE if i < edge else Tier.EDGE if i < cloud else Tier.CLOUD for i in range(end))
