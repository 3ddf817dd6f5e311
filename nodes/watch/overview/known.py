"""The state of `trisect watch` over nodes, models and streams, and its JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nodes.config.sections import Config
from nodes.protocol.messages import LifeState
from nodes.protocol.peers import Peers
from nodes.protocol.reports import direct_metric
from nodes.session.presence import PLANNER_TIER
from nodes.watch.overview.node import ABSENT, NodeRecord
from nodes.watch.overview.stream import StreamRecord
from pipeline.graph import ModelGraph
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan, StreamId

RUNNING = "running"
"""The state of a stream whose plan is active on nodes that are all there."""
STATE_TEXTS = {"no_plan": "no plan"}
STALE_INTERVALS = 3
STALE_AT_LEAST_S = 2.0
_TIER_ORDER = [*(tier.label for tier in Tier), PLANNER_TIER]


@dataclass(slots=True)
class Known:
    """Nodes by id, manifests by digest, streams by name; the configuration tells which of them are awaited."""

    config: Config
    peers: Peers = field(default_factory=Peers)
    nodes: dict[NodeId, NodeRecord] = field(default_factory=dict)
    graphs: dict[str, ModelGraph] = field(default_factory=dict)
    streams: dict[StreamId, StreamRecord] = field(default_factory=dict)

    def node(self, node: str) -> NodeRecord:
        """The node's record, to be added to."""
        return self.nodes.setdefault(NodeId(node), NodeRecord())

    def stream(self, stream: str) -> StreamRecord:
        """The stream's plans and results, to be added to."""
        return self.streams.setdefault(StreamId(stream), StreamRecord())

    def all_reported(self) -> bool:
        """True when every node that is ready has sent telemetry."""
        ready = [node for node, state in self.peers.states.items() if state.state is LifeState.READY]
        return all(self._record(node).telemetry_at is not None for node in ready)

    def node_ids(self) -> list[NodeId]:
        """All nodes that are awaited or were heard of, device first."""
        known = {*self.config.nodes, self.config.planner.id, *self.peers.states, *self.nodes}
        order = {node: _TIER_ORDER.index(tier) for node in known if (tier := self._tier(node)) in _TIER_ORDER}
        return sorted(known, key=lambda node: (order.get(node, len(_TIER_ORDER)), node))

    @property
    def _stale_after_s(self) -> float:
        return max(STALE_INTERVALS * self.config.telemetry.interval_s, STALE_AT_LEAST_S)

    def _record(self, node: NodeId) -> NodeRecord:
        return self.nodes.get(node) or NodeRecord()

    def _tier(self, node: NodeId) -> str:
        state, info, section = self.peers.states.get(node), self._record(node).info, self.config.nodes.get(node)
        if state is not None:
            return state.tier
        if info is not None:
            return info.tier
        if section is not None:
            return section.tier.label
        return PLANNER_TIER if node == self.config.planner.id else ""

    def node_json(self, node: NodeId, now: float) -> dict[str, Any]:
        """A node, as plain JSON values."""
        return self._record(node).json(self.peers.states.get(node), self._tier(node), now, self._stale_after_s)

    def stream_json(self, name: StreamId, now: float, since: float | None) -> dict[str, Any]:
        """A stream, as plain JSON values; its results were watched `since` then."""
        record = self.streams[name]
        device = self._device_of(name)
        held = self.peers.stream_applied(device, name)
        active = held.active if held else None
        newest = record.newest_plan
        running = record.plans.get(active) if active is not None else None
        model, digest = self._model_of(name, newest or running)
        differing = self._differing(model)
        coming = self._coming_json(newest, record) if newest and newest.epoch != active else None
        problems = [
            *([] if active is None or running else [f"epoch {active} runs; its plan is no longer on the broker"]),
            *self._absences(device, running),
            *self._stood_in_for(running),
            *([_mismatch_text(model, differing)] if differing else []),
        ]
        return {
            "state": self._stream_state(device, active, running, coming),
            "problems": problems,
            "device": device,
            "model": model,
            "digest": digest,
            "differing_digests": differing,
            "active_epoch": active,
            "newest_epoch": newest.epoch if newest else None,
            "active": running and self._described(running, record),
            "coming": coming,
            "frames_per_second": record.rate_hz(now, since),
            **record.seen_json(active, now),
            "counts": self._record(device).counts_json(name, now, self._stale_after_s),
        }

    def _device_of(self, name: StreamId) -> NodeId:
        """The stream's device: a living node that says so, else the plan's, else the configuration's."""
        for node, record in sorted(self.nodes.items()):
            if record.info is not None and name in record.info.streams and self.peers.alive(node):
                return node
        if plan := self.streams[name].newest_plan:
            return plan.device
        section = self.config.streams.get(name)
        return section.device if section else NodeId("")

    def _model_of(self, name: StreamId, plan: Plan | None) -> tuple[str, str | None]:
        if plan is not None:
            return plan.model, plan.digest
        section, info = self.config.streams.get(name), self._record(self._device_of(name)).info
        model = section.model if section else (info.streams.get(name, "") if info else "")
        return model, info.models.get(model) if info else None

    def _differing(self, model: str) -> dict[str, str]:
        """Each living node's digest of the model, when they are not all one."""
        digests = {
            str(node): record.info.models[model]
            for node, record in sorted(self.nodes.items())
            if record.info is not None
            and model in record.info.models
            and (presence := self.peers.incarnation(node)) is not None
            and presence[0] == record.info.session
        }
        return digests if len(set(digests.values())) > 1 else {}

    def _absences(self, device: NodeId, plan: Plan | None) -> list[str]:
        used = [*plan.nodes.values()] if plan else [device]
        return [self._life_text(node) for node in used if not self.peers.alive(node)]

    def _stood_in_for(self, plan: Plan | None) -> list[str]:
        """Workers that are gone; the stream goes on without them."""
        lost = [node for node in plan.workers if not self.peers.alive(node)] if plan else []
        return [f"{self._life_text(node)}; others compute its tiles" for node in lost]

    def _life(self, node: NodeId) -> str:
        state = self.peers.states.get(node)
        return state.state.value if state else ABSENT

    def _life_text(self, node: NodeId) -> str:
        state = self.peers.states.get(node)
        return f"{node} is {self._life(node)}" + (f": {state.message}" if state and state.message else "")

    def problems(self, now: float) -> list[str]:
        """What keeps the pipeline from doing what the configuration asks for, in words; empty when all is well."""
        awaited = [*self.config.nodes, self.config.planner.id]
        gone = [self._life_text(node) for node in awaited if not self.peers.alive(node)]
        mute = [
            f"{node} has not reported for {record.age_s(now):.0f} s"
            for node, record in sorted(self.nodes.items())
            if self.peers.alive(node) and record.is_stale(now, self._stale_after_s)
        ]
        streams = {name: self.stream_json(name, now, None)["state"] for name in sorted(self.config.streams)}
        return [
            *gone,
            *mute,
            *(f"stream {name}: {STATE_TEXTS.get(s, s)}" for name, s in streams.items() if s != RUNNING),
        ]

    def _stream_state(
        self, device: NodeId, active: int | None, plan: Plan | None, coming: Mapping[str, Any] | None
    ) -> str:
        if self._life(device) == LifeState.STOPPED.value:
            return LifeState.STOPPED.value
        if active is not None:
            return "interrupted" if self._absences(device, plan) else RUNNING
        return str(coming["state"]) if coming else "no_plan"

    def _described(self, plan: Plan, record: StreamRecord) -> dict[str, Any]:
        """A plan; its links say whether tensors go directly, as their sender has it."""
        described = record.describe(plan, self.graphs.get(plan.digest))
        nodes = {tier.label: node for tier, node in plan.nodes.items()}
        for link in described["links"]:
            telemetry = self._record(nodes[link["from"]]).telemetry
            link["direct"] = telemetry.get(direct_metric(nodes[link["to"]])) == 1
        return described

    def _coming_json(self, plan: Plan, record: StreamRecord) -> dict[str, Any]:
        """A plan that is published and not active: how far each of its nodes is."""
        nodes, refused = {}, {}
        for node in plan.members:
            held = self.peers.stream_applied(node, plan.stream)
            if not self.peers.alive(node):
                nodes[node] = self._life(node)
            elif held is not None and plan.epoch in held.refused:
                nodes[node], refused[node] = "refused", held.refused[plan.epoch]
            else:
                nodes[node] = "ready" if held is not None and plan.epoch in held.ready else "preparing"
        described = self._described(plan, record)
        return {**described, "state": "refused" if refused else "preparing", "nodes": nodes, "refused": refused}


def _mismatch_text(model: str, digests: Mapping[str, str]) -> str:
    held = ", ".join(f"{node} has {digest[:12]}" for node, digest in digests.items())
    return f"the nodes' {model} are not one network: {held}; only those with the device's digest can take part"
