"""Static costs: prices, power, memory and given links, from the configuration; of these, nodes measure power alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from types import MappingProxyType

from nodes.protocol.messages import LinkReport
from pipeline.cost import Costs, Link
from pipeline.energy import NO_DRAW, Draw
from pipeline.partition.constraints import Constraint, MemoryLimit
from pipeline.partition.objective import Objective
from pipeline.partition.priced_plan import NodeSet
from pipeline.partition.set_bounds import NodeTerms
from pipeline.placement import Tier
from pipeline.plan import NodeId


@dataclass(frozen=True, slots=True)
class StaticCosts:
    """`prices` per second of work, `draws` and `memory_bytes` for networks by node; `links` by lower tier.

    A given link is taken for all that its way takes, its nodes' handling included.
    """

    prices: Mapping[NodeId, float] = field(default_factory=lambda: MappingProxyType({}))
    memory_bytes: Mapping[NodeId, float] = field(default_factory=lambda: MappingProxyType({}))
    links: Mapping[Tier, Link] = field(default_factory=lambda: MappingProxyType({}))
    draws: Mapping[NodeId, Draw] = field(default_factory=lambda: MappingProxyType({}))

    def with_watts(self, node: NodeId, watts: float) -> StaticCosts:
        """The same with what computing adds to a node's power, as it has measured it."""
        return replace(self, draws={**self.draws, node: replace(self.draws.get(node, NO_DRAW), watts=watts)})

    def node_set(self, nodes: Mapping[Tier, NodeId], costs: Costs, constraints: Iterable[Constraint] = ()) -> NodeSet:
        """The nodes with what they measured and may do, on these terms."""
        repriced = replace(
            costs,
            device_edge=self.links.get(Tier.DEVICE, costs.device_edge),
            edge_cloud=self.links.get(Tier.EDGE, costs.edge_cloud),
            prices={tier: self.prices.get(node, 0.0) for tier, node in nodes.items()},
            send_receive_overhead={} if self.links else costs.send_receive_overhead,
            draws={tier: self.draws[node] for tier, node in nodes.items() if node in self.draws},
        )
        limits = (MemoryLimit(tier, self.memory_bytes[n]) for tier, n in nodes.items() if n in self.memory_bytes)
        return NodeSet(nodes, repriced, (*limits, *constraints))

    def terms(
        self,
        node: NodeId,
        seconds: Sequence[float],
        link: LinkReport,
        overheads: tuple[float, float],
        objective: Objective,
    ) -> NodeTerms:
        """What a node takes in any set: `seconds` by block, its link as others leave it, and its seconds to receive and
        send a frame, and to read and answer one.
        """
        worth = objective.latency + objective.price * self.prices.get(node, 0.0)
        return NodeTerms(
            seconds,
            worth + objective.energy * self.draws.get(node, NO_DRAW).watts,
            1 / link.up_bytes_per_s,
            1 / link.down_bytes_per_s,
            link.round_trip_s / 2,
            0.0 if self.links else overheads[0],
            overheads[1],
        )


def combinations(
    tiers: Mapping[Tier, Sequence[NodeId]], excluded: Collection[NodeId] = ()
) -> Iterator[dict[Tier, NodeId]]:
    """A device with every choice of an edge node or none, and a cloud node or none; a device is never excluded.

    With and without each tier: a node that does not serve is on nobody's way.
    """
    others = ([*(n for n in tiers[tier] if n not in excluded), None] for tier in (Tier.EDGE, Tier.CLOUD))
    for nodes in product(tiers[Tier.DEVICE], *others):
        yield {tier: node for tier, node in zip(Tier, nodes, strict=True) if node is not None}
