"""What a placement must respect besides the direction of data, and what it leaves to choose from.

Knows no prices. Everything that concerns single blocks becomes one set of allowed tiers per block, so a planner
handles pins, prohibitions and tiers without a node in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from pipeline.errors import Infeasible, PlanError
from pipeline.graph import ModelGraph
from pipeline.placement import Placement, Tier


@dataclass(frozen=True, slots=True)
class Constraints:
    """`pins` puts a block on a tier, `forbid` keeps it off one; blocks by index."""

    pins: Mapping[int, Tier] = field(default_factory=lambda: MappingProxyType({}))
    forbid: AbstractSet[tuple[int, Tier]] = frozenset()


NONE = Constraints()

Allowed: TypeAlias = tuple[frozenset[Tier], ...]
"""For each block, the tiers on which it may run, looked at alone."""


def allowed(graph: ModelGraph, tiers: AbstractSet[Tier], constraints: Constraints = NONE) -> Allowed:
    """The tiers of `tiers` (those that have a node) that each block may run on; the input stays on the device.

    Raises Infeasible when a block has none left, PlanError when a constraint names a block that is not there.
    """
    for index in sorted({*constraints.pins, *(block for block, _ in constraints.forbid)}):
        if not 0 <= index < len(graph):
            raise PlanError(f"a constraint names block {index}; model {graph.name!r} has blocks 0 to {len(graph) - 1}")
    choices = []
    for block in graph.blocks:
        free = {tier for tier in tiers if (block.index, tier) not in constraints.forbid}
        if block.index in constraints.pins:
            free &= {constraints.pins[block.index]}
        if block.index == 0:
            free &= {Tier.DEVICE}
        if not free:
            raise Infeasible(f"block {block.name!r} has no tier left: {_reasons(block.index, tiers, constraints)}")
        choices.append(frozenset(free))
    return tuple(choices)


def earliest(graph: ModelGraph, choices: Allowed) -> Placement:
    """Every block on the earliest tier that its inputs and `choices` allow.

    No other feasible placement has any block earlier, so this finds one whenever there is one. Raises Infeasible,
    naming the two blocks that cannot both have their way.
    """
    placed: list[Tier] = []
    pushed_by: list[int] = []  # the ancestor whose own choices forced the block this far up
    for block in graph.blocks:
        before = max((graph.producer[t] for t in block.inputs), key=lambda b: placed[b], default=None)
        floor = Tier.DEVICE if before is None else placed[before]
        tier = min((t for t in choices[block.index] if t >= floor), default=None)
        if tier is None:
            culprit = graph.blocks[pushed_by[before]] if before is not None else block
            raise Infeasible(
                f"block {block.name!r} may only run on {_labels(choices[block.index])}, but it follows "
                f"{culprit.name!r}, which may only run on {_labels(choices[culprit.index])}, and data only flows "
                "device -> edge -> cloud; release one of the two"
            )
        placed.append(tier)
        pushed_by.append(block.index if before is None or tier > floor else pushed_by[before])
    return tuple(placed)


def require(graph: ModelGraph, placement: Sequence[Tier], choices: Allowed) -> None:
    """Raise Infeasible unless every block stands on a tier of its choices."""
    for block, tier, free in zip(graph.blocks, placement, choices, strict=True):
        if tier not in free:
            raise Infeasible(f"block {block.name!r} may only run on {_labels(free)}, not on the {tier.label}")


def _labels(tiers: AbstractSet[Tier]) -> str:
    return " or ".join(f"the {tier.label}" for tier in sorted(tiers))


def _reasons(block: int, tiers: AbstractSet[Tier], constraints: Constraints) -> str:
    reasons = [f"the {tier.label} has no node" for tier in Tier if tier not in tiers]
    if block == 0:
        reasons.append("the input stands on the device")
    if block in constraints.pins:
        reasons.append(f"it is pinned to the {constraints.pins[block].label}")
    reasons += [f"it is forbidden on the {tier.label}" for tier in Tier if (block, tier) in constraints.forbid]
    return ", ".join(reasons)
