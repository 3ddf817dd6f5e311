"""The machine of a tier node: device, edge and cloud alike. A device is a tier node that owns streams."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

from typing_extensions import assert_never

from nodes.protocol.messages import StreamApplied
from nodes.protocol.peers import Peers
from nodes.protocol.work import Work
from nodes.tier.machine import events as ev
from nodes.tier.machine.actions import (
    Action,
    AnnounceApplied,
    Count,
    Log,
    Refuse,
    Release,
    SendFailure,
    SendOutput,
    SendTensor,
)
from nodes.tier.machine.epochs import Epoch, EpochTable, Phase
from nodes.tier.machine.joins import Joins
from nodes.tier.machine.stream import StreamOwner, StreamSettings
from nodes.tier.machine.tile_gather import TileGathers
from pipeline.codecs import NONE
from pipeline.graph import ModelGraph, Tensor
from pipeline.placement import Tier
from pipeline.plan import NodeId, StreamId
from pipeline.wire import FrameKey


class TierMachine:
    """`handle(event, now)` returns the actions to perform, in order; `now` is seconds of any clock that only advances.

    `graphs` are this node's models by name, `streams` those whose device it is.
    """

    def __init__(self, me: NodeId, graphs: Mapping[str, ModelGraph], streams: Iterable[StreamSettings] = ()) -> None:
        self.me = me
        self.peers = Peers()
        self._graphs = dict(graphs)
        self.epochs = EpochTable(me, self._graphs)
        self.joins = Joins()
        self.tile_gathers = TileGathers(me, self.peers)
        self.owners = {
            settings.stream: StreamOwner(me, settings, self._graphs, self.epochs, self.peers) for settings in streams
        }
        self._announced: dict[StreamId, StreamApplied] = {}

    @property
    def open_frames(self) -> int:
        """Frames of its own streams that are on their way."""
        return sum(len(owner.open) for owner in self.owners.values())

    def handle(self, event: ev.Event, now: float) -> list[Action]:
        """Take one event; returns what to do."""
        actions = self._take(event, now)
        for owner in self.owners.values():
            actions += owner.refresh(now)
        actions += self.tile_gathers.refresh(now)
        actions += self._announce()
        for action in actions:
            if isinstance(action, Release):
                self.joins.drop_epoch(action.stream, action.epoch)
                self.tile_gathers.drop_epoch(action.stream, action.epoch)
        return actions

    def _take(self, event: ev.Event, now: float) -> list[Action]:
        match event:
            case ev.PlanArrived():
                return self._plan_arrived(event)
            case ev.ModelArrived():
                return self._model_arrived(event)
            case ev.Prepared() | ev.PrepareFailed():
                return self.epochs.prepared(event)
            case ev.PeerStateArrived() | ev.PeerAppliedArrived() | ev.PeerForgotten():
                return self._peer_event(event)
            case ev.TensorArrived():
                return self._tensor_arrived(event)
            case ev.SegmentRan():
                return self._segment_ran(event, now)
            case ev.SegmentFailed():
                return self._segment_failed(event, now)
            case ev.TileArrived():
                return self.tile_gathers.arrived(event, now)
            case ev.TileFailed():
                return self.tile_gathers.failed(event, now)
            case ev.FrameOffered() | ev.FrameDecoded() | ev.FrameUndecodable():
                return self._frame_event(event)
            case ev.OutputArrived() | ev.OutputFailed():
                return self._output_event(event, now)
            case ev.ConnectionRestored():
                return self._connection_restored(now)
            case ev.Tick():
                return []
        assert_never(event)

    def expected(self, key: FrameKey, tensor: int) -> Tensor | None:
        """The input that this node waits for under these names, if any; what the wire is checked against."""
        held = self.epochs.find(key.stream, key.epoch)
        if held is None or tensor not in _inputs(held):
            return None
        if held.stage is None and held.tiled is not None:
            return held.tiled.region(held.graph, key.tile, tensor)
        return held.graph.tensors[tensor] if not key.tile else None

    def expected_tile(self, key: FrameKey, tensor: int) -> Tensor | None:
        """The output of a tile that this node shares out, if any; likewise."""
        held = self.epochs.find(key.stream, key.epoch)
        if held is None or held.stage is None or held.tiled is None or tensor != held.tiled.stack.output:
            return None
        return held.tiled.region(held.graph, key.tile, tensor)

    def expected_output(self, key: FrameKey, tensor: int) -> Tensor | None:
        """The model's output that this device waits for under these names, if any; likewise."""
        owner = self.owners.get(StreamId(key.stream))
        graph = owner.graph_asked(key) if owner is not None else None
        return graph.tensors[tensor] if graph is not None and tensor in graph.outputs else None

    def validate(self) -> None:
        """Assert what always holds; tests do after each event."""
        self.epochs.validate()
        self.joins.validate()
        self.tile_gathers.validate()
        self.peers.validate()
        for owner in self.owners.values():
            owner.validate()

    def _announce(self) -> list[Action]:
        """Say what this node holds whenever that changed, and let its own old epochs go by the same rule."""
        actions: list[Action] = []
        applied = self.epochs.applied()
        for stream, owner in self.owners.items():
            if stream in applied:
                actions += self.epochs.let_go(self.me, stream, owner.applied(applied[stream]))
        applied = self.epochs.applied()
        for stream, owner in self.owners.items():
            if stream in applied:
                applied[stream] = owner.applied(applied[stream])
        if applied != self._announced:
            self._announced = applied
            actions.append(AnnounceApplied(applied))
        return actions

    def _model_arrived(self, event: ev.ModelArrived) -> list[Action]:
        """Open frames finish under the version that they were submitted under; a plan of the new one moves the rest."""
        self._graphs[event.name] = event.graph
        for stream in event.streams:
            self.owners[stream].model = event.name
        return self.epochs.model_arrived()

    def _plan_arrived(self, event: ev.PlanArrived) -> list[Action]:
        if why_not := self.epochs.why_not(event.plan):
            return [Refuse(f"plan/{event.plan.stream}", why_not)]
        owner = self.owners.get(event.plan.stream)
        if owner is not None:
            owner.plan_arrived(event.plan)
        actions = self.epochs.plan_arrived(event)
        # topics overtake one another: the device may have let this epoch go already
        held = self.peers.stream_applied(event.plan.device, event.plan.stream)
        if held is not None and event.plan.device != self.me:
            actions += self.epochs.let_go(event.plan.device, event.plan.stream, held)
        return actions

    def _peer_event(self, event: ev.PeerStateArrived | ev.PeerAppliedArrived | ev.PeerForgotten) -> list[Action]:
        match event:
            case ev.PeerStateArrived():
                return self._peer_state_arrived(event)
            case ev.PeerAppliedArrived():
                return self._peer_applied_arrived(event)
            case ev.PeerForgotten():
                self.peers.forget(event.node)
                return []
        assert_never(event)

    def _peer_state_arrived(self, event: ev.PeerStateArrived) -> list[Action]:
        state = event.state
        if not self.peers.admits(state.node):
            return [Refuse("node/+/state", self.peers.full(state.node))]
        if not self.peers.learn_state(state) or state.node == self.me:
            return []
        return [Log(logging.INFO, f"{state.node} ({state.tier}) is {state.state.value}")]

    def _peer_applied_arrived(self, event: ev.PeerAppliedArrived) -> list[Action]:
        applied = event.applied
        if not self.peers.admits(applied.node):
            return [Refuse("node/+/applied", self.peers.full(applied.node))]
        self.peers.applied[applied.node] = applied
        if applied.node == self.me:
            return []
        return [
            action
            for stream, held in applied.streams.items()
            for action in self.epochs.let_go(applied.node, stream, held)
        ]

    def _tensor_arrived(self, event: ev.TensorArrived) -> list[Action]:
        held = self.epochs.find(event.key.stream, event.key.epoch)
        if held is None or held.phase is not Phase.READY:
            return [Count("stale_tensors_total")]
        run = self.joins.add(event, _inputs(held))
        return [replace(run, work=_first_work(held))] if run else []

    def _segment_ran(self, event: ev.SegmentRan, now: float) -> list[Action]:
        held = self.epochs.find(event.key.stream, event.key.epoch)
        if held is None or not event.outputs.keys() >= _outputs(held, event.work):
            return [Count("stale_tensors_total")]  # let go meanwhile, or another plan has replaced the one it was for
        if event.work is Work.TILE:
            return self._tile_ran(held, event, now)
        if event.work is Work.BEFORE:
            return self.tile_gathers.begin(held, event, now)
        assert held.stage is not None
        codecs = held.plan.codecs
        actions: list[Action] = [
            SendTensor(event.key, t, event.outputs[t], event.trace, codecs.tensors.get(t, NONE), held.only_reader(t))
            for t in held.stage.sends
        ]
        for tensor in held.stage.results:
            if held.stage.tier is Tier.DEVICE:
                output = ev.OutputArrived(event.key, self.me, tensor, event.outputs[tensor], event.trace)
                actions += self._output_event(output, now)
            else:
                codec, device = codecs.results.get(tensor, NONE), held.plan.device
                actions.append(SendOutput(event.key, tensor, event.outputs[tensor], event.trace, device, codec))
        return actions

    def _tile_ran(self, held: Epoch, event: ev.SegmentRan, now: float) -> list[Action]:
        assert held.tiled is not None
        output = held.tiled.stack.output
        if held.stage is None:
            coordinator = held.plan.nodes[Tier.EDGE]
            codec = held.plan.tiles.codec_of(output) if held.plan.tiles else NONE
            return [SendOutput(event.key, output, event.outputs[output], event.trace, coordinator, codec)]
        return self.tile_gathers.arrived(ev.TileArrived(event.key, self.me, event.outputs[output], event.trace), now)

    def _segment_failed(self, event: ev.SegmentFailed, now: float) -> list[Action]:
        if event.key.tile and self._shares_out(event.key):
            return self.tile_gathers.failed(ev.TileFailed(event.key, self.me, event.message), now)
        owner = self.owners.get(StreamId(event.key.stream))
        if owner is not None:
            failed = ev.OutputFailed(event.key, self.me, event.message, event.trace, event.of_frame)
            return owner.output_failed(failed, now)
        return [SendFailure(event.key, event.message, event.trace, event.of_frame)]

    def _shares_out(self, key: FrameKey) -> bool:
        held = self.epochs.find(key.stream, key.epoch)
        return held is not None and held.stage is not None

    def _frame_event(self, event: ev.FrameOffered | ev.FrameDecoded | ev.FrameUndecodable) -> list[Action]:
        owner = self.owners[event.stream]
        match event:
            case ev.FrameOffered():
                return owner.frame_offered(event)
            case ev.FrameDecoded():
                owner.frame_decoded(event)
                return []
            case ev.FrameUndecodable():
                return owner.frame_undecodable(event)
        assert_never(event)

    def _output_event(self, event: ev.OutputArrived | ev.OutputFailed, now: float) -> list[Action]:
        owner = self.owners.get(StreamId(event.key.stream))
        if owner is None:
            return [Count("stale_tensors_total")]
        return (
            owner.output_arrived(event, now) if isinstance(event, ev.OutputArrived) else owner.output_failed(event, now)
        )

    def _connection_restored(self, now: float) -> list[Action]:
        for owner in self.owners.values():
            owner.connection_restored(now)
        return []


def _inputs(held: Epoch) -> tuple[int, ...]:
    """The tensors that this node's part in the epoch begins with."""
    if held.stage is not None:
        return held.stage.inputs
    return held.tiled.stack.inputs if held.tiled is not None else ()


def _outputs(held: Epoch, work: Work) -> frozenset[int]:
    """The tensors that this node's work for the epoch ends with; one that nothing makes where there is no such work."""
    none = frozenset({-1})
    if work is Work.TILE:
        return frozenset({held.tiled.stack.output}) if held.tiled is not None else none
    if work is Work.BEFORE:
        return frozenset(held.tiled.before.outputs) if held.tiled is not None and held.stage is not None else none
    return frozenset(held.stage.outputs) if held.stage is not None else none


def _first_work(held: Epoch) -> Work:
    if held.stage is None:
        return Work.TILE
    return Work.BEFORE if held.tiled is not None else Work.STAGE
