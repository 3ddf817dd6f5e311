"""The equations that telemetry and prices are read by: seconds as sums of terms over the filter's parts. Pure.

    segment: load * factors * foreseen + the node's * the input's * what its own blocks are foreseen to take + call
    leg:     send(from) + bytes up(from) + bytes down(to) + receive(to) + half of both round trips + coding
    tile:    send and bytes there and back, of coordinator and worker
    gather:  the slowest tile: leg there, segment, leg back behind others; cutting, handing out and putting together
    frame:   its device's overhead + segments + gather + legs + waiting

`factors` are the node's, the node's for the model, the model's on all nodes (cold caches, say), and where seconds were
estimated two more. Overheads are one that all nodes share times the node's own. Both are multiplied by the load of the
machine where several nodes are on one. So what was learned of some nodes is charged to others as far as it is not
theirs alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nodes.planner.costs.block_seconds import Basis, BlockSeconds, Estimate, StageSeconds, TileShare
from nodes.planner.costs.constants import DOUBT, JUMP
from nodes.planner.costs.cost_filter import SHARED, STEADY, CostFilter, Part, Prior, Term
from nodes.planner.costs.transfers import Leg, legs_of
from nodes.protocol.messages import LinkReport
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan

PRIORS: Mapping[str, Prior] = {
    "factor": Prior(0.0, 0.15, jump=JUMP),
    "model": Prior(0.0, 0.07),
    "load": Prior(0.0, 0.2),
    **dict.fromkeys(("all", "estimate"), Prior(0.0, DOUBT)),
    "estimates": Prior(0.0, 0.4),
    "input": Prior(0.0, 0.8),
    "probe": Prior(0.0, DOUBT, varies=False),
    "call": Prior(math.log(3e-4), 1.0),
    **dict.fromkeys(("send", "receive"), Prior(math.log(5e-4), 1.0)),
    "frame": Prior(math.log(2e-3), 1.0),
    "gather": Prior(math.log(3e-3), 1.0),
    "wait": Prior(math.log(1e-3), 1.5),
    "own": Prior(0.0, 0.5, jump=0.5),
    "waited": Prior(0.0, 1.5, jump=1.5),
    **dict.fromkeys(("up", "down", "round_trip"), Prior(0.0, DOUBT, jump=DOUBT)),
}
"""Links' parts have what was measured at the start, with DOUBT; `own` are a node's overheads, `waited` its frames'."""


@dataclass(slots=True)
class Equations:
    """`first` are links as nodes measured them at their start, by node."""

    blocks: BlockSeconds
    first: dict[NodeId, LinkReport] = field(default_factory=dict)
    filter: CostFilter = field(default_factory=lambda: CostFilter(PRIORS))
    _machines: dict[NodeId, str] = field(default_factory=dict)
    _sharing: Counter[str] = field(default_factory=Counter)
    """Nodes of each machine."""

    def learn_machine(self, node: NodeId, machine: str) -> None:
        """Take the machine that the node is on, empty for one that is not known, or for a node that is gone."""
        before = self._machines.pop(node, None)
        if before is not None:
            self._sharing[before] -= 1
            self._sharing += Counter()
        if machine:
            self._machines[node] = machine
            self._sharing[machine] += 1

    def load(self, node: NodeId) -> tuple[Part, ...]:
        """What all that the node's machine computes is multiplied by, where other nodes are on it, too."""
        machine = self._machines.get(node, "")
        return (Part(f"{SHARED}@{machine}", "load"),) if self._sharing[machine] > 1 else ()

    def factors(self, node: NodeId, model: str, basis: Basis) -> tuple[Part, ...]:
        """What the node's foreseen seconds of the model are multiplied by."""
        parts: tuple[Part, ...] = (
            *self.load(node),
            Part(node, "factor"),
            Part(node, f"model:{model}"),
            Part(STEADY + model, "all"),
        )
        if isinstance(basis, Estimate):
            parts += Part(node, f"estimate:{model}"), Part(STEADY + model, "estimates")
        return parts

    def input_factors(self, node: NodeId) -> tuple[Part, ...]:
        """What the node's foreseen seconds of the input's own blocks are multiplied by."""
        return *self.load(node), Part(node, "factor"), Part(node, "input")

    def overhead(self, node: NodeId, name: str, model: str = "") -> Term:
        """What all nodes take, times the node's own."""
        own = Part(node, f"{'waited' if name == 'wait' else 'own'}:{name}{model}")
        return Term(1.0, (*self.load(node), Part(SHARED, name), own))

    def computing(self, node: NodeId, model: str, basis: Basis, foreseen: StageSeconds) -> list[Term]:
        """A segment with its call. How decoding compares with what was foreseen says little of a network's kernels."""
        of_input = [Term(foreseen.input, self.input_factors(node))] if foreseen.input else []
        return [Term(foreseen.network, self.factors(node, model, basis)), *of_input, self.overhead(node, "call")]

    def way(self, leg: Leg) -> list[Term]:
        """A leg, from one node's computing to the next one's."""
        return [
            self.overhead(leg.sender, "send"),
            self.overhead(leg.receiver, "receive"),
            Term(leg.nbytes, (Part(leg.sender, "up"),)),
            Term(leg.nbytes, (Part(leg.receiver, "down"),)),
            *(Term(0.5, (Part(node, "round_trip"),)) for node in (leg.sender, leg.receiver)),
            Term(leg.coding_s, ()),
        ]

    def transfer(self, coordinator: NodeId, tile: TileShare, behind: int) -> list[Term]:
        """A tile's way to its worker, behind so many bytes of others, which leave one after the other."""
        leg = Leg("", coordinator, tile.worker, tile.nbytes, tile.coding_s)
        return [*self.way(leg), Term(behind, (Part(coordinator, "up"),))]

    def gather(self, plan: Plan, computed_s: Mapping[int, float] | None = None) -> list[Term] | None:
        """From a stack's inputs to its output, whole: the slowest of its tiles, as costs are now.

        `computed_s` are seconds of computing by tile that are known; None while a worker cannot be priced.
        """
        coordinator = plan.nodes[Tier.EDGE]
        own: list[Term] = []
        ready: dict[NodeId, list[Term]] = {}
        back: list[tuple[list[Term], int]] = []
        sent = 0
        for tile in self.blocks.tiles(plan):
            basis = self.blocks.basis(tile.worker, plan.model, plan.digest)
            if basis is None or tile.worker not in self.first:
                return None
            known_s = (computed_s or {}).get(tile.number)
            foreseen = StageSeconds(tile.seconds_of(self.blocks.foreseen(basis, plan.digest)))
            computing = (
                [Term(known_s, ())] if known_s is not None else self.computing(tile.worker, plan.model, basis, foreseen)
            )
            if tile.worker == coordinator:
                own += computing
                continue
            there = self.transfer(coordinator, tile, sent)
            sent += tile.nbytes
            # a worker computes its tiles in order
            ready[tile.worker] = [*self._slowest([there, ready.get(tile.worker, [])]), *computing]
            returned = self.way(Leg("", tile.worker, coordinator, 0, tile.result_coding_s))
            up = Term(tile.result_nbytes, (Part(tile.worker, "up"),))
            back.append(([*ready[tile.worker], *returned, up], tile.result_nbytes))
        return [*self._slowest([own, *self._received(coordinator, back)]), self.overhead(coordinator, "gather")]

    def _received(self, coordinator: NodeId, back: Sequence[tuple[list[Term], int]]) -> list[list[Term]]:
        """Each tile's path until the coordinator has it and all that come later, over its one link."""
        later, found = 0, []
        for path, nbytes in sorted(back, key=lambda one: -self.filter.seconds(one[0])):
            later += nbytes
            found.append([*path, Term(later, (Part(coordinator, "down"),))])
        return found

    def _slowest(self, paths: Sequence[list[Term]]) -> list[Term]:
        return max(paths, key=self.filter.seconds)

    def frame(self, plan: Plan) -> list[Term] | None:
        """A whole frame under a plan, from its entry to its answer; None while a node of it cannot be priced."""
        terms = [self.overhead(plan.device, name, plan.model) for name in ("frame", "wait")]
        for tier, node in plan.nodes.items():
            basis = self.blocks.basis(node, plan.model, plan.digest)
            if basis is None or node not in self.first:
                return None
            terms += self.computing(node, plan.model, basis, self.blocks.stage_seconds(basis, plan, tier))
        if plan.tiles is not None:
            gather = self.gather(plan)
            if gather is None:
                return None
            terms += gather
        for leg in legs_of(plan):
            terms += self.way(leg)
        return terms
