"""Which streams a node concerns, and when what is learned of it gives them reason to decide again. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from nodes.planner.costs.drift import is_news, is_nowhere_better
from nodes.planner.costs.snapshot import NodeSnapshot
from nodes.planner.machine.agenda import Agenda, Need
from nodes.planner.machine.binding import StreamBinding
from nodes.planner.machine.registry import Registry
from pipeline.placement import Tier
from pipeline.plan import NodeId, StreamId

LOOK_S = 0.25
"""Between two looks at what a shared node is worth: many streams' reports say something of it."""


class Concerns:
    """Streams by the nodes of their plans, by model and by device. Moments are seconds that only advance."""

    def __init__(self, registry: Registry, agenda: Agenda, band: float) -> None:
        self._registry, self._agenda, self._band = registry, agenda, band
        self._members: dict[NodeId, set[StreamId]] = {}
        self._models: dict[str, set[StreamId]] = {}
        self._devices: dict[NodeId, set[StreamId]] = {}
        self._marked: dict[tuple[NodeId, str], NodeSnapshot] = {}
        self._looked_at: dict[NodeId, float] = {}
        self._to_look_at: dict[NodeId, None] = {}
        self._look_next_at = -math.inf

    def serve(self, name: StreamId, binding: StreamBinding) -> None:
        """A stream has this model and device."""
        self._models.setdefault(binding.model, set()).add(name)
        self._devices.setdefault(binding.device, set()).add(name)

    def leave(self, name: StreamId, binding: StreamBinding) -> None:
        """A stream has them no more."""
        self._models[binding.model].discard(name)
        self._devices[binding.device].discard(name)

    def hold(self, name: StreamId, before: Iterable[NodeId], after: Iterable[NodeId]) -> None:
        """A stream's plan has these nodes now, in place of those before."""
        for node in before:
            self._members[node].discard(name)
        for node in after:
            self._members.setdefault(node, set()).add(name)

    def with_member(self, node: NodeId) -> set[StreamId]:
        """The streams whose plan has the node."""
        return self._members.get(node, set())

    def of_device(self, node: NodeId) -> set[StreamId]:
        """The device's own streams."""
        return self._devices.get(node, set())

    def changed(self, node: NodeId, *, streams: Iterable[StreamId]) -> None:
        """A node came, went or became another: streams whose plan has it first, then its own, else all of these.

        A device is of use to its own streams only, and a node that has not said what it is to none.
        """
        self._agenda.mark(sorted(self.with_member(node)), Need.URGENT)
        own = self._devices.get(node)
        if own is not None:
            self._agenda.mark(sorted(own))
        elif self._registry.peers.alive(node) and self._may_serve_others(node):
            self._agenda.mark(streams)

    def _may_serve_others(self, node: NodeId) -> bool:
        info = self._registry.infos.get(node)
        return info is not None and (info.tier != Tier.DEVICE.label or info.is_worker)

    def look_soon(self, node: NodeId, now: float, *, but: StreamId | None = None) -> None:
        """Look at a node, at most every LOOK_S."""
        if now >= self._looked_at.get(node, -math.inf) + LOOK_S:
            self.look_at(node, now, but=but)
        else:
            self._to_look_at[node] = None

    def look_at_others(self, now: float) -> None:
        """Look at the nodes of which streams have said something since they were looked at."""
        if self._to_look_at and now >= self._look_next_at:
            self._look_next_at = now + LOOK_S
            due, self._to_look_at = self._to_look_at, {}
            for node in due:
                self.look_soon(node, now)

    def look_at(self, node: NodeId, now: float, *, but: StreamId | None = None) -> None:
        """Have the streams decide for which the node is worth more or less than when it was looked at last."""
        self._looked_at[node] = now
        info = self._registry.infos.get(node)
        for model, digest in info.models.items() if info is not None else ():
            if model not in self._models:
                continue
            found, before = self._registry.measured(node, model, digest), self._marked.get((node, model))
            if found is None or before is None or is_news(before, found, self._band):
                if found is not None:
                    self._marked[node, model] = found
                worse = found is None or (before is not None and is_nowhere_better(before, found, self._band))
                self._mark(node, model, only_members=worse, but=but)

    def _mark(self, node: NodeId, model: str, *, only_members: bool, but: StreamId | None) -> None:
        """A device concerns its own streams, a node that gets worse those that have it in their plan, others all."""
        names = self._devices.get(node) or (self.with_member(node) if only_members else self._models[model])
        self._agenda.mark(name for name in sorted(names) if name != but)
