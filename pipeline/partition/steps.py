"""The unknowns of a placement: for each block, whether it runs beyond the device, and whether it runs in the cloud.

Those known to be equal are one unknown, those known beforehand none: what a known placement's cost rules out makes the
program that is left several times smaller. Knows no solver.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import Infeasible
from pipeline.graph import ModelGraph
from pipeline.partition.constraints import Blocked
from pipeline.placement import Placement, Tier

Expression = dict[int, float]
"""A sum of unknowns with factors; the key `Steps.one` stands for the number 1."""


@dataclass
class Steps:
    """Unknown v says that block v runs beyond the device, `len(graph) + v` that it runs in the cloud.

    Both grow along the graph's edges, and who is in the cloud is beyond the device. `zero` and `one` are constants.
    """

    graph: ModelGraph
    _parent: list[int] = field(init=False)
    edges: set[tuple[int, int]] = field(init=False)
    """(less, more): pairs of representatives of which the second is at least the first; after `settle`."""

    def __post_init__(self) -> None:
        n = len(self.graph)
        self.zero, self.one = 2 * n, 2 * n + 1
        self._parent = list(range(2 * n + 2))
        self.edges = {(low + before, low + after) for before, after in self.graph.edges for low in (0, n)}
        self.edges |= {(n + v, v) for v in range(n)}
        self.tie(0, self.zero)

    def passed(self, lower: Tier, block: int) -> int:
        """The unknown that says whether the block runs beyond `lower`."""
        return block + (len(self.graph) if lower == Tier.EDGE else 0)

    def find(self, unknown: int) -> int:
        """The representative of all that are equal to it; of what is no step, itself."""
        parent = self._parent
        while unknown <= self.one and parent[unknown] != unknown:
            parent[unknown] = unknown = parent[parent[unknown]]
        return unknown

    def tie(self, one: int, other: int) -> None:
        """They are equal; constants and, of others, the smaller index stand for both."""
        one, other = self.find(one), self.find(other)
        if one == other:
            return
        if {one, other} == {self.zero, self.one}:
            raise Infeasible("no placement respects all constraints")
        keep, drop = (one, other) if one >= self.zero or one < other < self.zero else (other, one)
        self._parent[drop] = keep

    def forbid(self, blocked: Iterable[Blocked]) -> None:
        """These blocks do not run on these tiers."""
        n = len(self.graph)
        for block, tier in blocked:
            if tier == Tier.DEVICE:
                self.tie(block, self.one)
            elif tier == Tier.CLOUD:
                self.tie(n + block, self.zero)
            else:
                self.tie(block, n + block)

    def settle(self) -> None:
        """Draw the conclusions: what follows a 1 is 1, what precedes a 0 is 0, what is in a circle is equal.

        Raises Infeasible when one unknown would have to be both.
        """
        changed = True
        while changed:
            changed = False
            found = set()
            for edge in self.edges:
                less, more = self.find(edge[0]), self.find(edge[1])
                if less in {more, self.zero} or more == self.one:
                    continue
                if less == self.one or more == self.zero or (more, less) in found:
                    self.tie(less, more)
                    changed = True
                else:
                    found.add((less, more))
            self.edges = found

    def placement(self, values: Mapping[int, int]) -> Placement:
        """The tiers, from the value of each representative; 0 where none is given."""
        n = len(self.graph)
        found = [values.get(self.find(unknown), 0) for unknown in range(2 * n)]
        return tuple(Tier(found[v] + found[n + v]) for v in range(n))

    def reduced(self, expression: Expression) -> Expression:
        """The same sum over representatives, without zeros."""
        made: Expression = {}
        for unknown, factor in expression.items():
            found = self.find(unknown)
            if found != self.zero and factor:
                made[found] = made.get(found, 0.0) + factor
        return made

    def stage(self, tier: Tier, weights: Sequence[float]) -> Expression:
        """The sum of the weights of the blocks on the tier."""
        total: Expression = {}
        for block, weight in enumerate(np.asarray(weights, float).tolist()):
            for unknown, factor in self._on(tier, block, weight):
                total[unknown] = total.get(unknown, 0.0) + factor
        return self.reduced(total)

    def on(self, tier: Tier, block: int, weight: float) -> Expression:
        """The weight if the block is on the tier."""
        return self.reduced(dict(self._on(tier, block, weight)))

    def _on(self, tier: Tier, block: int, weight: float) -> tuple[tuple[int, float], ...]:
        in_cloud = block + len(self.graph)
        if tier == Tier.DEVICE:
            return (self.one, weight), (block, -weight)
        if tier == Tier.EDGE:
            return (block, weight), (in_cloud, -weight)
        return ((in_cloud, weight),)


def ancestors(graph: ModelGraph) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """`[v, u]` says whether block u is v or comes before it on a way of edges; bool, blocks x blocks."""
    before = np.eye(len(graph), dtype=bool)
    for block in graph.blocks:
        for tensor in block.inputs:
            before[block.index] |= before[graph.producer[tensor]]
    return before
