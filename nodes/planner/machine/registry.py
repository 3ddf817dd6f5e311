"""The planner's registry of nodes: which can serve a stream at present, why others cannot, and its costs there."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nodes.config.replay_section import REPLAY
from nodes.planner.costs.block_seconds import BlockSeconds, Estimate
from nodes.planner.costs.node_costs import NodeCosts
from nodes.planner.costs.snapshot import NodeSnapshot
from nodes.planner.costs.transfers import link_between
from nodes.planner.machine.binding import StreamBinding
from nodes.planner.machine.cores import shared_cores
from nodes.planner.machine.equality import Equality
from nodes.planner.machine.fetches import Fetches
from nodes.planner.machine.utilisation import Loads, StreamLoad
from nodes.protocol.messages import Applied, LifeState, LinkReport, NodeInfo, NodeState
from nodes.protocol.peers import Peers
from pipeline.coding import CodecCosts
from pipeline.cost import Costs
from pipeline.errors import DigestMismatch, ModelError
from pipeline.frames.input_blocks import DECODE, NORMALISE, has_input
from pipeline.graph import ModelGraph
from pipeline.partition.constraints import Constraint, Forbid
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.profiling.profile import Profile
from pipeline.tiles.worker_pool import TileNode

MOST_GRAPHS = 128
FRAME_OVERHEAD_GAIN = 0.2
"""The part of a difference that one report adds."""


@dataclass(slots=True)
class Registry:
    """Filled by what nodes say; `graphs` by digest. `silent` are nodes that say nothing though they should."""

    equality: Equality = field(default_factory=Equality)
    peers: Peers = field(default_factory=Peers)
    infos: dict[NodeId, NodeInfo] = field(default_factory=dict)
    graphs: dict[str, ModelGraph] = field(default_factory=dict)
    silent: frozenset[NodeId] = frozenset()
    blocks: BlockSeconds = field(init=False)
    learned: NodeCosts = field(init=False)
    loads: Loads = field(default_factory=Loads)
    fetches: Fetches = field(init=False)
    _by_tier: dict[tuple[str, bool], list[NodeId]] = field(default_factory=dict)
    _owners: dict[StreamId, set[NodeId]] = field(default_factory=dict)
    _epochs_seen: dict[StreamId, dict[NodeId, int]] = field(default_factory=dict)
    _remarks: dict[Any, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.blocks = BlockSeconds(self.infos, self.graphs)
        self.learned = NodeCosts(self.blocks)
        self.fetches = Fetches(self.learned.link)

    def validate(self) -> None:
        """Assert what always holds."""
        self.peers.validate()
        assert len(self.graphs) <= MOST_GRAPHS
        assert all(digest == graph.digest for digest, graph in self.graphs.items())
        assert all(node == info.node for node, info in self.infos.items())
        assert all(self.peers.alive(node) for node in self.silent), "who is gone does not fall silent"
        self.learned.filter.validate()

    def learn_info(self, info: NodeInfo) -> str:
        """Take what a node says it can do; returns what is wrong with it, empty if nothing is."""
        self._drop_info(info.node)
        self.infos[info.node] = info
        for name in info.streams:
            self._owners.setdefault(name, set()).add(info.node)
        insort(self._by_tier.setdefault((info.tier, info.is_worker), []), info.node)
        self.learned.learn_machine(info.node, info.machine)
        self._remarks.clear()
        return self.blocks.learn_speed(info)

    def _drop_info(self, node: NodeId) -> None:
        before = self.infos.pop(node, None)
        if before is not None:
            self.learned.learn_machine(node, "")
            self._by_tier[before.tier, before.is_worker].remove(node)
            for name in before.streams:
                self._owners[name].discard(node)

    def forget(self, node: NodeId) -> bool:
        """Drop what a node that is gone for good said of itself; returns False for one that is alive or not known."""
        if not self.peers.forget(node):
            return False
        self._drop_info(node)
        self.blocks.forget(node)
        self.learned.first.pop(node, None)
        self.loads.forget(node)
        self.silent -= {node}
        for seen in self._epochs_seen.values():
            seen.pop(node, None)
        self._remarks.clear()
        return True

    def learn_state(self, state: NodeState) -> bool:
        """Take a node's state; returns whether it says something new."""
        self._remarks.clear()
        return self.peers.learn_state(state)

    def learn_profile(self, node: NodeId, profile: Profile) -> None:
        """Take a node's profile of a model."""
        self._remarks.clear()
        self.learned.learn_profile(node, profile)

    def learn_graph(self, graph: ModelGraph) -> None:
        """Take a model's graph."""
        self.graphs[graph.digest] = graph
        self._remarks.clear()
        self.blocks.forget_bases()

    def learn_applied(self, applied: Applied) -> set[StreamId]:
        """Take what a node holds of its streams' plans; returns the streams of which it says something new."""
        before = self.peers.applied.get(applied.node)
        known = before.streams if before is not None and before.session == applied.session else {}
        self.peers.applied[applied.node] = applied
        for name in known.keys() - applied.streams.keys():
            self._epochs_seen.get(name, {}).pop(applied.node, None)
        for name, held in applied.streams.items():
            self._epochs_seen.setdefault(name, {})[applied.node] = held.seen
        return {n for n in known.keys() | applied.streams.keys() if known.get(n) != applied.streams.get(n)}

    def has_room_for(self, graph: ModelGraph) -> bool:
        """True when one more manifest can be kept; drops those that no node's model has for it."""
        if graph.digest not in self.graphs and len(self.graphs) >= MOST_GRAPHS:
            used = {digest for info in self.infos.values() for digest in info.models.values()}
            for digest in [digest for digest in self.graphs if digest not in used]:
                del self.graphs[digest]
        return graph.digest in self.graphs or len(self.graphs) < MOST_GRAPHS

    def devices_of(self, name: StreamId) -> list[NodeId]:
        """The living nodes that say that the stream is theirs, by id."""
        return sorted(node for node in self._owners.get(name, ()) if self.peers.alive(node))

    def graph_of(self, stream: StreamBinding) -> ModelGraph:
        """The graph of the model that the stream's device holds. Raises ModelError while it is unknown."""
        graph = self.known_graph_of(stream)
        if graph is None:
            digest = self._digest(stream)
            raise ModelError(f"the manifest of model {stream.model!r} ({digest}) has not arrived yet; try again")
        return graph

    def known_graph_of(self, stream: StreamBinding) -> ModelGraph | None:
        """The graph of the model that the stream's device holds, None while it is unknown."""
        return self.graphs.get(self._digest(stream) or "")

    def nodes_of(self, tier: Tier, *, workers: bool = False) -> list[NodeId]:
        """The tier's nodes that run stages or, if so asked, its workers, by id."""
        return self._by_tier.get((tier.label, workers), [])

    def usable(self, stream: StreamBinding, tier: Tier) -> list[NodeId]:
        """The tier's nodes that can run a stage of the stream, by id."""
        nodes = self.nodes_of(tier) if tier is not Tier.DEVICE else [stream.device]
        return [node for node in nodes if self._is_of(tier, node) and not self.why_unusable(stream, node)]

    def usable_workers(self, stream: StreamBinding) -> list[NodeId]:
        """The nodes that compute tiles only and can for the stream, by id."""
        return [node for node in sorted(self._workers) if not self.why_unusable(stream, node)]

    @property
    def _workers(self) -> Iterator[NodeId]:
        return (node for (_, works), nodes in self._by_tier.items() if works for node in nodes)

    def _is_of(self, tier: Tier, node: NodeId) -> bool:
        info = self.infos.get(node)
        return info is not None and info.tier == tier.label and not info.is_worker

    def is_there(self, node: NodeId) -> bool:
        """True when the node is alive, in the process that introduced itself."""
        info = self.infos.get(node)
        return self.peers.alive(node) and info is not None and self.peers.states[node].session == info.session

    def why_unusable(self, stream: StreamBinding, node: NodeId) -> str:
        """The reason that the node cannot serve the stream at present, empty if it can."""
        state, info = self.peers.states.get(node), self.infos.get(node)
        digest = self._digest(stream)
        if state is None or info is None or state.state is not LifeState.READY:
            return f"{node} is {state.state.value if state else 'not there'}"
        if node in self.silent:
            return f"{node} has fallen silent"
        if state.session != info.session:
            return f"{node} has just started"
        if info.models.get(stream.model) != digest:
            return f"{node} has another model {stream.model!r}: {info.models.get(stream.model)}, not {digest}"
        if self.is_banned(stream, node):
            return f"{node} refused an earlier plan, or did not prepare it in time"
        if apart := self.equality.why_apart(self.infos.get(stream.device), info, stream.model):
            return apart
        return self._why_unmeasured(stream, node, digest or "")

    def why_gone(self, stream: StreamBinding, tier: Tier, node: NodeId) -> str:
        """The reason that the node cannot go on with a stage of this tier, empty if it can; its tier may have
        changed.
        """
        why = self.why_unusable(stream, node)
        is_there = self._is_of(tier, node) and (tier is not Tier.DEVICE or node == stream.device)
        return why or ("" if is_there else f"{node} is no node of the {tier.label} any more")

    def is_banned(self, stream: StreamBinding, node: NodeId) -> bool:
        """True when the node's present process refused a plan of the stream, or has not prepared it yet."""
        state = self.peers.states.get(node)
        return state is not None and stream.is_left_out(node, state.session) and node != stream.device

    def why_no_tiles(self, stream: StreamBinding, node: NodeId) -> str:
        """The reason that a worker must not keep its tiles under a plan; empty if it may, or is only lost."""
        if self.is_banned(stream, node):
            return f"{node} refuses its tiles"
        state = self.peers.states.get(node)
        return f"{node} is draining" if state is not None and state.state is LifeState.DRAINING else ""

    def _why_unmeasured(self, stream: StreamBinding, node: NodeId, digest: str) -> str:
        link = self.learned.first.get(node)
        if self.blocks.basis(node, stream.model, digest) is None:
            unfit = self.blocks.why_unfit(node, stream.model, digest)
            return unfit or f"{node} has not profiled {stream.model!r} yet"
        if link is None:
            return f"{node} has not measured its link yet"
        return "" if link.makes_sense else f"{node} has measured a link that cannot be ({link.describe()})"

    def why_no_plan(self, stream: StreamBinding, tiers: set[Tier]) -> str:
        """Each of `tiers` that has no usable node, with what its nodes lack."""
        parts = []
        for tier in sorted(tiers):
            if not self.usable(stream, tier):
                nodes = self.nodes_of(tier) if tier is not Tier.DEVICE else [stream.device]
                reasons = [reason for node in nodes if (reason := self.why_unusable(stream, node))]
                parts.append(f"there is no usable {tier.label} node ({'; '.join(reasons) or 'none has come'})")
        return " and ".join(parts)

    def remarks(self, stream: StreamBinding) -> str:
        """What people have to know about living nodes that do not serve the stream; empty if there is nothing.

        Kept until a node says something new of itself, by all that it depends on.
        """
        device, digest = self.infos.get(stream.device), self._digest(stream) or ""
        own = (device.bits, tuple(device.answers.items()), device.pictures.get(stream.model)) if device else None
        key = stream.model, digest, own
        if key not in self._remarks:
            found = [
                self._mismatch(stream, digest),
                self._apart(stream),
                self._unfit_profiles(stream, digest),
                self._other_pictures(stream, digest),
            ]
            self._remarks[key] = "; ".join(filter(None, found))
        return self._remarks[key]

    def _mismatch(self, stream: StreamBinding, digest: str) -> str:
        """What to say when living nodes hold different models under the stream's name, empty if none does."""
        others = [
            (str(node), held)
            for node, info in sorted(self.infos.items())
            if (held := info.models.get(stream.model, digest)) != digest and self.peers.alive(node)
        ]
        return str(DigestMismatch(stream.model, [(stream.device, digest), *others])) if others else ""

    def _apart(self, stream: StreamBinding) -> str:
        """What to say of living nodes whose answers must not be mixed with the device's, empty if there is none."""
        device = self.infos.get(stream.device)
        living = [info for node, info in sorted(self.infos.items()) if self.peers.alive(node)]
        found = (self.equality.why_apart(device, info, stream.model) for info in living)
        return "; ".join(filter(None, found))

    def _other_pictures(self, stream: StreamBinding, digest: str) -> str:
        """What to say of living nodes that must not decode the stream's frames, empty if there is none."""
        living = [
            node
            for node, info in sorted(self.infos.items())
            if self.peers.alive(node) and info.models.get(stream.model) == digest and not info.is_worker
        ]
        return "; ".join(filter(None, (self.why_other_pictures(stream, node) for node in living)))

    def difference(self, model: str, nodes: Mapping[Tier, str]) -> str:
        """The largest difference between answers of a plan's nodes, in words; empty if their bits are equal."""
        infos = [self.infos[NodeId(node)] for node in nodes.values() if node in self.infos]
        found = self.equality.largest_difference(infos, model)
        return f"; answers of its engines differ by at most {found:.1e} of the largest" if found else ""

    def _unfit_profiles(self, stream: StreamBinding, digest: str) -> str:
        """What to say of living nodes' profiles that are of no use for the stream, empty if all are."""
        living = [node for node, info in sorted(self.infos.items()) if info.models.get(stream.model) == digest]
        return "; ".join(why for node in living if (why := self.blocks.why_unfit(node, stream.model, digest)))

    def is_estimated(self, stream: StreamBinding, node: NodeId) -> bool:
        """True when the node's price for the stream's model is estimated from its speed, without a profile."""
        return isinstance(self.blocks.basis(node, stream.model, self._digest(stream) or ""), Estimate)

    def snapshot(self, stream: StreamBinding, node: NodeId, name: StreamId | None = None) -> NodeSnapshot:
        """All that the node's part in `costs` follows from, with what streams but `name` take of it; it is usable."""
        found = self.measured(node, stream.model, self._digest(stream) or "", but=name)
        assert found is not None
        is_whole = node == stream.device or not found.frame_overhead_s
        return found if is_whole else replace(found, frame_overhead_s=0.0)

    def measured(self, node: NodeId, model: str, digest: str, but: StreamId | None = None) -> NodeSnapshot | None:
        """What is known of the node for a model, with what streams but one take of it; None before it has measured."""
        basis = self.blocks.basis(node, model, digest) if node in self.infos else None
        settled = self.learned.settled(node, model, basis) if basis is not None else None
        if settled is None:
            return None
        return self.loads.left_by_others(node, model, settled, but)

    def stream_load(self, stream: StreamBinding, plan: Plan, rate_hz: float) -> StreamLoad:
        """The stream's load under its plan; nodes that cannot be priced at present are left out."""
        seconds = {}
        for tier, node in plan.nodes.items():
            basis = self.blocks.basis(node, stream.model, plan.digest)
            if basis is not None:
                foreseen = self.blocks.stage_seconds(basis, plan, tier)
                seconds[tier] = self.learned.factor(node, stream.model, basis) * foreseen.network
                seconds[tier] += self.learned.input_factor(node) * foreseen.input
        return StreamLoad(plan, rate_hz, seconds)

    def seconds(self, stream: StreamBinding, snapshot: NodeSnapshot) -> tuple[float, ...]:
        """Seconds of the blocks of the stream's model on a node, under this snapshot."""
        digest = self._digest(stream) or ""
        graph = self.graphs.get(digest)
        work = stream.ratios.frame_work(graph) if graph is not None else 1.0
        return snapshot.seconds(self.blocks.foreseen(snapshot.basis, digest, work), graph)

    def costs(
        self,
        stream: StreamBinding,
        nodes: Mapping[Tier, NodeId],
        snapshots: Mapping[NodeId, NodeSnapshot],
        seconds: Mapping[NodeId, Sequence[float]] | None = None,
        links: Mapping[NodeId, LinkReport] | None = None,
    ) -> Costs:
        """Costs of the stream's model on these nodes and between them, under these snapshots.

        `seconds` and `links` are the nodes', where they are at hand: of blocks, and as other streams leave them.
        """
        found = {tier: snapshots[node] for tier, node in nodes.items()}
        reports = {tier: (links or {}).get(nodes[tier]) or found[tier].available_link for tier in found}
        return Costs(
            {
                tier: (seconds or {}).get(nodes[tier]) or self.seconds(stream, snapshot)
                for tier, snapshot in found.items()
            },
            device_edge=link_between(reports.get(Tier.DEVICE), reports.get(Tier.EDGE)),
            edge_cloud=link_between(reports.get(Tier.EDGE), reports.get(Tier.CLOUD)),
            send_receive_overhead={tier: snapshot.overhead_s for tier, snapshot in found.items()},
            frame_overhead_s=sum(snapshot.frame_overhead_s for snapshot in found.values()),
            codecs=CodecCosts(stream.ratios.assumed, {tier: self.infos[node].codecs for tier, node in nodes.items()}),
            cores=shared_cores({t: self.infos[n] for t, n in nodes.items()}, (self.infos[n] for n in self._workers)),
        )

    def kept_from_decoding(self, stream: StreamBinding, nodes: Mapping[Tier, NodeId]) -> tuple[Constraint, ...]:
        """The input's blocks stay off the nodes that make other bits of pictures than the stream's device does."""
        graph = self.graphs.get(self._digest(stream) or "")
        if graph is None or not has_input(graph):
            return ()
        apart = [tier for tier, node in nodes.items() if self.why_other_pictures(stream, node)]
        return tuple(Forbid(block, tier) for tier in apart for block in (DECODE, NORMALISE))

    def why_other_pictures(self, stream: StreamBinding, node: NodeId) -> str:
        """The reason that the node must not decode the stream's frames; empty if it may."""
        device, info = self.infos.get(stream.device), self.infos.get(node)
        if device is None or info is None or info.node == device.node:
            return ""
        ours, theirs = device.pictures.get(stream.model), info.pictures.get(stream.model)
        if ours == theirs:
            return ""
        both = f"{info.node} has {info.picture_libraries or 'none'}, {device.node} {device.picture_libraries or 'none'}"
        return f"{info.node} makes other bits of a picture than {device.node} and does not decode frames ({both})"

    def replayed(self, nodes: Mapping[Tier, str]) -> str:
        """A word on nodes that wait recorded seconds instead of computing, to be added to a reason; empty for none."""
        known = (self.infos.get(NodeId(node)) for node in nodes.values())
        is_replay = any(info.engine == REPLAY for info in known if info is not None)
        return "; a replay: nodes wait recorded seconds and compute nothing" if is_replay else ""

    def undecoded(self, stream: StreamBinding, nodes: Mapping[Tier, str]) -> str:
        """Which of a plan's nodes decode no frames and why, to be added to its reason; empty if there are none."""
        why = [self.why_other_pictures(stream, NodeId(node)) for node in nodes.values()]
        return "".join(f"; {reason}" for reason in why if reason)

    def tile_node(self, stream: StreamBinding, node: NodeId, snapshot: NodeSnapshot) -> TileNode:
        """The node's seconds and link for tiles of the stream's model, under this snapshot."""
        foreseen, link = self.blocks.foreseen(snapshot.basis, self._digest(stream) or ""), snapshot.available_link
        seconds = tuple(snapshot.slowness * s for s in foreseen)
        latency_s = (link.round_trip_s + snapshot.overhead_s) / 2  # a tile goes there and back
        rates, info = (link.up_bytes_per_s, link.down_bytes_per_s), self.infos[node]
        found = TileNode(node, seconds, *rates, latency_s, gather_s=snapshot.gather_s, codecs=info.codecs)
        return replace(found, machine=info.machine, core_share=info.core_share)

    def highest_seen(self, name: StreamId, most: int) -> int:
        """The highest epoch of the stream, up to `most`, that a node says it has seen; 0 for none."""
        return max((seen for seen in self._epochs_seen.get(name, {}).values() if seen <= most), default=0)

    def _digest(self, stream: StreamBinding) -> str | None:
        info = self.infos.get(stream.device)
        return info.models.get(stream.model) if info else None
