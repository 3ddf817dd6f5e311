"""Constraints on placements, besides the direction of data; each is a small value.

A constraint says which blocks may not run where, and which sums over a placement have a limit; planners know no more
of it than that. Knows no prices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import TypeAlias

from pipeline.coding import BACK, WAYS, Way, over
from pipeline.cost import Costs, link_label
from pipeline.errors import PlanError
from pipeline.frames.input_blocks import first_block
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.placement import Placement, Tier, crossings

WEIGHT_BYTES = 4
"""Of a parameter."""
_ROUNDING = 1e-9
"""A sum of floats may exceed its limit by this share of it."""
_KEEPS_ITS_INPUT = frozenset(
    {
        *("input", "InputLayer", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D", "Cropping1D", "Cropping2D"),
        *("Cropping3D", "Rescaling", "Normalization", "Flatten", "Reshape", "Permute", "Resizing", "Dropout"),
        *("BatchNormalization", "Identity", "RepeatVector", "UpSampling1D", "UpSampling2D", "UpSampling3D"),
        *("Pad", "Transpose", "Cast", "ExpandDims", "Squeeze", "Flip", "FrameDecode", "FrameNormalise"),
    }
)
"""Kinds of block whose output still shows what came in."""
_ELEMENTWISE = frozenset({"Add", "Subtract", "Multiply", "Divide", "TrueDivide"})

Blocked: TypeAlias = tuple[int, Tier]


@dataclass(frozen=True, slots=True)
class Limit:
    """A sum over a placement that may not exceed `bound`.

    `blocks[tier][v]` counts where block v runs on the tier, `tensors[way][t]` (at least 0) where tensor t goes from the
    first of two tiers to the other as its furthest reader, `peaks[tier]` once: the largest among the tier's blocks,
    `beyond[lower]` once if any block stands beyond the link.
    """

    bound: float
    blocks: Mapping[Tier, Sequence[float]] = field(default_factory=dict)
    tensors: Mapping[Way, Sequence[float]] = field(default_factory=dict)
    peaks: Mapping[Tier, Sequence[float]] = field(default_factory=dict)
    beyond: Mapping[Tier, float] = field(default_factory=dict)

    def is_met(self, graph: ModelGraph, placement: Placement) -> bool:
        """True when the placement keeps the sum within `bound`, up to rounding."""
        terms = [weights[v] for tier, weights in self.blocks.items() for v, at in enumerate(placement) if at == tier]
        for tier, weights in self.peaks.items():
            terms.append(max((weights[v] for v, at in enumerate(placement) if at == tier), default=0.0))
        terms += [once for lower, once in self.beyond.items() if max(placement) > lower]
        if self.tensors:
            gone = [(crossing, crossing.way) for crossing in crossings(graph, placement)]
            terms += [self.tensors[way][crossing.tensor] for crossing, way in gone if way in self.tensors]
        slack = _ROUNDING * max(abs(self.bound), math.fsum(map(abs, terms)))
        return math.fsum(terms) <= self.bound + slack


@dataclass(frozen=True)
class Constraint:
    """Base of all constraints: rules out nothing."""

    def forbidden(self, graph: ModelGraph) -> Iterable[Blocked]:
        """Pairs of a block and a tier on which it may not run. Raises PlanError for a block that the graph does not
        have.
        """
        return ()

    def limits(self, graph: ModelGraph, costs: Costs) -> Iterable[Limit]:
        """Upper bounds on sums over a placement."""
        return ()

    def describe(self, graph: ModelGraph) -> str:
        """In words."""
        raise NotImplementedError


@dataclass(frozen=True)
class Pin(Constraint):
    """A block runs on this tier."""

    block: int
    tier: Tier

    def forbidden(self, graph: ModelGraph) -> Iterable[Blocked]:
        """The block with each other tier. Raises PlanError for a block that the graph does not have."""
        return [(_index(graph, self.block), tier) for tier in Tier if tier != self.tier]

    def describe(self, graph: ModelGraph) -> str:
        """In words."""
        return f"block {graph.blocks[self.block].name!r} runs on the {self.tier.label}"


@dataclass(frozen=True)
class Forbid(Constraint):
    """A block does not run on this tier."""

    block: int
    tier: Tier

    def forbidden(self, graph: ModelGraph) -> Iterable[Blocked]:
        """The block with its tier. Raises PlanError for a block that the graph does not have."""
        return [(_index(graph, self.block), self.tier)]

    def describe(self, graph: ModelGraph) -> str:
        """In words."""
        return f"block {graph.blocks[self.block].name!r} does not run on the {self.tier.label}"


@dataclass(frozen=True)
class RawStays(Constraint):
    """The input goes no further than this tier, nor what still shows it: padded, scaled, cropped, reshaped."""

    tier: Tier

    def forbidden(self, graph: ModelGraph) -> Iterable[Blocked]:
        """Readers of the input, or of what still shows it, on later tiers."""
        return _readers_stay(graph, depth=1, tier=self.tier)

    def describe(self, graph: ModelGraph) -> str:
        """In words."""
        return f"the raw input stays on the {self.tier.label}"


@dataclass(frozen=True)
class MinDepth(Constraint):
    """Every tensor that leaves the device has at least `blocks` computing blocks on each path from the input to it."""

    blocks: int

    def forbidden(self, graph: ModelGraph) -> Iterable[Blocked]:
        """Readers of shallower tensors, on later tiers than the device."""
        return _readers_stay(graph, depth=self.blocks, tier=Tier.DEVICE)

    def describe(self, graph: ModelGraph) -> str:
        """In words."""
        return f"at least {self.blocks} blocks run on the device before anything leaves it"


@dataclass(frozen=True)
class UploadLimit(Constraint):
    """At most `nbytes` bytes of a frame go up the link above `lower`, coded as is worth most to the objective."""

    lower: Tier
    nbytes: float

    def limits(self, graph: ModelGraph, costs: Costs) -> Iterable[Limit]:
        """Their sum."""
        sent = {way: [float(costs.sent_bytes(tensor, way)) for tensor in graph.tensors] for way in over(self.lower)}
        return [Limit(self.nbytes, tensors=sent)]

    def describe(self, graph: ModelGraph) -> str:
        """In words."""
        return f"at most {self.nbytes:,.0f} bytes a frame go up {link_label(self.lower).replace('_', '-')}"


@dataclass(frozen=True)
class EnergyLimit(Constraint):
    """A frame adds at most so many joules to what the nodes draw when idle."""

    joules: float

    def limits(self, graph: ModelGraph, costs: Costs) -> Iterable[Limit]:
        """Their sum, as `pipeline.cost.predict` has it, with codecs chosen as the costs say."""
        draws = {tier: costs.draw(tier) for tier in costs.seconds}
        bound = self.joules - costs.draw(Tier.DEVICE).joules(costs.frame_overhead_s)
        if costs.tiles is not None:
            bound -= costs.tiles.joules - costs.draw(Tier.EDGE).joules(costs.tiles.seconds)
        blocks = {tier: [draws[tier].joules(s) for s in times] for tier, times in costs.seconds.items()}
        for tier, returned in by_maker(graph, costs, costs.sent_joules).items():
            blocks[tier] = [*map(add, blocks[tier], returned)]
        handled = {tier: draws[tier].joules(costs.send_receive_overhead.get(tier, 0.0)) for tier in draws}
        peaks = {Tier.EDGE: [handled[Tier.EDGE]] * len(graph)} if handled.get(Tier.EDGE) else {}
        beyond = {Tier.DEVICE: handled[Tier.DEVICE], Tier.EDGE: handled.get(Tier.CLOUD, 0.0)}
        sent = {way: [costs.sent_joules(tensor, way) for tensor in graph.tensors] for way in WAYS}
        return [Limit(bound, blocks, sent, peaks, beyond)]

    def describe(self, graph: ModelGraph) -> str:
        """In words."""
        return f"a frame takes at most {self.joules:g} J"


@dataclass(frozen=True)
class TimeLimit(Constraint):
    """A tier computes for at most `seconds` a frame."""

    tier: Tier
    seconds: float

    def limits(self, graph: ModelGraph, costs: Costs) -> Iterable[Limit]:
        """Their sum."""
        return [Limit(self.seconds, blocks=_of_tier(costs.seconds, self.tier))]

    def describe(self, graph: ModelGraph) -> str:
        """In words."""
        return f"the {self.tier.label} computes for at most {self.seconds:g} s a frame"


@dataclass(frozen=True)
class ShareLimit(Constraint):
    """A tier takes at most this share (0 to 1) of the seconds that all tiers compute for a frame."""

    tier: Tier
    share: float

    def limits(self, graph: ModelGraph, costs: Costs) -> Iterable[Limit]:
        """One sum, at most 0: the tier's seconds less its share of all tiers'."""
        weights = {
            tier: [((tier == self.tier) - self.share) * s for s in times] for tier, times in costs.seconds.items()
        }
        return [Limit(0.0, blocks=weights)]

    def describe(self, graph: ModelGraph) -> str:
        """In words."""
        return f"the {self.tier.label} takes at most {self.share:.0%} of a frame's computing"


@dataclass(frozen=True)
class MemoryLimit(Constraint):
    """A tier's node holds its blocks' weights, and what its largest block reads and makes, in `nbytes` bytes.

    An engine's own memory is not counted: give what is left for networks.
    """

    tier: Tier
    nbytes: float
    copies: int = field(default=2, kw_only=True)
    """Of each weight: as loaded, and in the order that the engine's kernels want."""

    def limits(self, graph: ModelGraph, costs: Costs) -> Iterable[Limit]:
        """One sum in bytes: all weights, and the inputs and outputs of the largest block."""
        weights = [float(self.copies * WEIGHT_BYTES * block.parameters) for block in graph.blocks]
        # a frame's own bytes are few, whatever the most may be
        sizes = [0 if tensor.varies else tensor.nbytes for tensor in graph.tensors]
        working = [float(sum(sizes[t] for t in (*b.inputs, *b.outputs))) for b in graph.blocks]
        return [Limit(self.nbytes, blocks={self.tier: weights}, peaks={self.tier: working})]

    def describe(self, graph: ModelGraph) -> str:
        """In words."""
        return f"the {self.tier.label} has {self.nbytes:,.0f} bytes of memory"


@dataclass(frozen=True)
class Uses(Constraint):
    """A tier runs at least one block of the network."""

    tier: Tier

    def limits(self, graph: ModelGraph, costs: Costs) -> Iterable[Limit]:
        """One sum: the negated number of the tier's blocks, at most -1."""
        first = first_block(graph)
        return [Limit(-1.0, blocks={self.tier: [0.0] * first + [-1.0] * (len(graph) - first)})]

    def describe(self, graph: ModelGraph) -> str:
        """In words."""
        return f"the {self.tier.label} runs at least one block"


def by_maker(graph: ModelGraph, costs: Costs, weight: Callable[[Tensor, Way], float]) -> dict[Tier, list[float]]:
    """What outputs weigh on their way to the device, at the blocks that make them, by the tier from which they go."""
    made: dict[Tier, list[float]] = {}
    for way in BACK:
        if way[0] in costs.seconds:
            made[way[0]] = [0.0] * len(graph)
            for tensor in graph.results:
                made[way[0]][graph.producer[tensor]] += weight(graph.tensors[tensor], way)
    return made


def broken(
    graph: ModelGraph, placement: Placement, costs: Costs, constraints: Iterable[Constraint]
) -> list[Constraint]:
    """The constraints that the placement does not respect. Raises PlanError for one on a block that is not there."""
    return [
        constraint
        for constraint in constraints
        if any(placement[block] == tier for block, tier in constraint.forbidden(graph))
        or not all(limit.is_met(graph, placement) for limit in constraint.limits(graph, costs))
    ]


def _of_tier(values: Mapping[Tier, Sequence[float]], tier: Tier) -> Mapping[Tier, Sequence[float]]:
    return {tier: values[tier]} if tier in values else {}


def _index(graph: ModelGraph, block: int) -> int:
    if not 0 <= block < len(graph):
        raise PlanError(f"a constraint names block {block}; model {graph.name!r} has blocks 0 to {len(graph) - 1}")
    return block


def _readers_stay(graph: ModelGraph, *, depth: int, tier: Tier) -> list[Blocked]:
    shallow = {t for t, passed in enumerate(_depths(graph)) if passed < depth}
    readers = [block.index for block in graph.blocks if shallow.intersection(block.inputs)]
    return [(block, later) for block in readers for later in Tier if later > tier]


def _depths(graph: ModelGraph) -> list[int]:
    """For each tensor, how many blocks that compute something lie on the shortest way to it."""
    depths = [0] * len(graph.tensors)
    for block in graph.blocks:
        before = min((depths[t] for t in block.inputs), default=0)
        for tensor in block.outputs:
            depths[tensor] = before + (not _keeps_its_input(block))
    return depths


def _keeps_its_input(block: Block) -> bool:
    return block.kind in _KEEPS_ITS_INPUT or (block.kind in _ELEMENTWISE and len(set(block.inputs)) == 1)
