"""A coordinator's half of the tile protocol: who computes each tile of a frame, and when another one is asked.

Each tile is asked of its worker under the plan. When that one is not there, is lost or restarts, fails or stays away
for several times its usual seconds, another worker of the plan is asked, and in the end the coordinator does it itself.
The answers are equal, so the first one counts. A worker is never asked twice for one attempt at a frame: what it has,
it will answer, and what was lost on the way it would take for a repetition.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from broker.complaints import shortened
from nodes.protocol.peers import Incarnation, Peers
from nodes.protocol.work import Work
from nodes.tier.machine.actions import Action, Count, Log, NoteTile, Run, SendFailure, SendTile
from nodes.tier.machine.epochs import Epoch
from nodes.tier.machine.events import SegmentRan, TileArrived, TileFailed
from nodes.tier.machine.joins import is_closed
from pipeline.plan import NodeId
from pipeline.tiles.arrays import part
from pipeline.tiles.tiling import TiledStage
from pipeline.wire import Array, FrameKey, Trace

LEAST_WAIT_S = 0.25
PATIENCE = 4.0
"""A tile is late after so many times what its worker usually takes, queues included."""
USUAL_MEMORY = 0.9
MOST_ASKED = 4_096
MOST_OPEN = 1_024
SHUN_S = 5.0
"""A worker that was late comes last for so long, or until it answers: each frame would wait for it again."""

FrameId = tuple[str, int, int]
"""Stream, epoch and sequence."""


@dataclass(slots=True)
class _Asked:
    """`incarnation` is the worker's when it was asked; the coordinator itself is neither late nor lost."""

    at: float
    late_at: float
    incarnation: Incarnation | None


@dataclass(slots=True)
class _TileGather:
    """One frame between its stage's first and last part. `parts` are the tiles that are back, counted from 1.

    `asked_before` says when a worker was asked for a tile at an earlier attempt at the frame: such an answer counts,
    too, and took as long as since then.
    """

    key: FrameKey
    held: Epoch
    tiled: TiledStage
    kept: Mapping[int, Array]
    trace: Trace
    parts: dict[int, Array] = field(default_factory=dict)
    asked: dict[int, dict[NodeId, _Asked]] = field(default_factory=dict)
    asked_before: dict[tuple[int, int, NodeId], float] = field(default_factory=dict)
    is_whole: bool = False
    was_alone: bool = True

    @property
    def missing(self) -> list[int]:
        """The tiles that are not back."""
        return [] if self.is_whole else [n for n in self.tiles if n not in self.parts]

    def asked_at(self, attempt: int, tile: int, worker: NodeId) -> float | None:
        """The time at which the worker was asked for this tile at this attempt, None if it was not."""
        if attempt != self.key.attempt:
            return self.asked_before.get((attempt, tile, worker))
        asked = self.asked.get(tile, {}).get(worker)
        return asked.at if asked is not None else None

    def asked_so_far(self) -> dict[tuple[int, int, NodeId], float]:
        """Times of requests by attempt, tile and worker, of this attempt and earlier ones, for the next attempt."""
        now = {
            (self.key.attempt, tile, worker): asked.at
            for tile, workers in self.asked.items()
            for worker, asked in workers.items()
        }
        known = sorted((self.asked_before | now).items(), key=lambda item: item[1])
        return dict(known[-MOST_ASKED:])

    @property
    def tiles(self) -> range:
        """All tiles, counted from 1."""
        return range(1, len(self.tiled.tile_map.tiles) + 1)


class TileGathers:
    """All frames of a coordinator whose tiles are out."""

    def __init__(self, me: NodeId, peers: Peers) -> None:
        self._me, self._peers = me, peers
        self._open: dict[FrameId, _TileGather] = {}
        self._usual_s: dict[tuple[str, int, NodeId], float] = {}
        self._shunned_until: dict[NodeId, float] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, held: Epoch, ran: SegmentRan, now: float) -> list[Action]:
        """The stage's first part ran: ask for all tiles. Another attempt goes on with the tiles that are back."""
        assert held.tiled is not None
        self._forget_closed(ran.key)
        name = _frame(ran.key)
        known = self._open.get(name)
        parts = known.parts if known else {}
        before = known.asked_so_far() if known else {}
        gather = _TileGather(ran.key, held, held.tiled, ran.outputs, ran.trace, parts, asked_before=before)
        others = [other for key, other in self._open.items() if key != name and not other.is_whole]
        for waiting in (gather, *others):
            waiting.was_alone &= not others and not before  # tiles of two attempts wait for each other, too
        self._open[name] = gather
        while len(self._open) > MOST_OPEN:
            del self._open[next(iter(self._open))]  # its frame is submitted again
        return [action for tile in gather.missing for action in self._ask(gather, tile, now)]

    def arrived(self, event: TileArrived, now: float) -> list[Action]:
        """A tile is back; with the last one, the stage's last part can run."""
        gather = self._open.get(_frame(event.key))
        if gather is None or event.key.tile not in gather.tiles:
            return [Count("stale_tiles_total")]
        asked_at = gather.asked_at(event.key.attempt, event.key.tile, event.worker)
        if asked_at is None:
            return [Count("unasked_answers_total")]
        self._shunned_until.pop(event.worker, None)
        actions = self._learn(event, now - asked_at, gather.was_alone)
        if event.key.tile not in gather.missing:
            return [*actions, Count("duplicate_tiles_ignored_total")]
        gather.parts[event.key.tile] = event.array
        if gather.missing:
            return actions
        parts = tuple(gather.parts[tile] for tile in gather.tiles)
        run = Run(gather.key, gather.kept, gather.trace, 0.0, Work.AFTER, parts, gather.was_alone)
        gather.is_whole, gather.parts, gather.kept = True, {}, {}
        return [*actions, run]

    def failed(self, event: TileFailed, now: float) -> list[Action]:
        """A worker could not compute a tile: another one may. If the coordinator itself cannot, the frame has
        failed.
        """
        gather = self._open.get(_frame(event.key))
        if gather is None or event.key.tile not in gather.missing or event.key.attempt != gather.key.attempt:
            return [Count("stale_tiles_total")]
        if event.worker == self._me:
            del self._open[_frame(event.key)]
            return [SendFailure(gather.key, event.message, gather.trace)]
        asked = gather.asked[event.key.tile].get(event.worker)
        if asked is None:
            return [Count("unasked_answers_total")]
        asked.late_at = -math.inf
        text = f"tile {event.key.tile} of frame {event.key.sequence} failed: {shortened(event.message)}"
        return [Log(logging.WARNING, text)]

    def refresh(self, now: float) -> list[Action]:
        """Ask others for tiles that nobody can be expected to bring in time any more."""
        actions: list[Action] = []
        for gather in self._open.values():
            for tile in gather.missing:
                asked = gather.asked[tile]
                if all(self._is_hopeless(node, request, now) for node, request in asked.items()):
                    self._shunned_until |= {
                        node: now + SHUN_S for node, request in asked.items() if request.late_at <= now
                    }
                    actions += [Count("tiles_asked_again_total"), *self._ask(gather, tile, now)]
        return actions

    def validate(self) -> None:
        """Assert what always holds."""
        assert len(self._open) <= MOST_OPEN
        for name, gather in self._open.items():
            assert _frame(gather.key) == name
            assert len(gather.asked_before) <= MOST_ASKED
            assert all(gather.asked.get(tile) for tile in gather.missing), f"nobody was asked for a tile of {name}"

    def drop_epoch(self, stream: str, epoch: int) -> None:
        """Forget an epoch that was let go."""
        self._open = {name: gather for name, gather in self._open.items() if name[:2] != (stream, epoch)}
        self._usual_s = {name: usual for name, usual in self._usual_s.items() if name[:2] != (stream, epoch)}

    def _ask(self, gather: _TileGather, tile: int, now: float) -> list[Action]:
        worker = self._chosen(gather, tile, now)
        tensors = self._cut(gather, tile)
        key = replace(gather.key, tile=tile)
        asked = gather.asked.setdefault(tile, {})
        if worker == self._me:
            asked[worker] = _Asked(now, math.inf, None)
            return [Run(key, tensors, (), 0.0, Work.TILE)]
        asked[worker] = _Asked(now, now + self._patience_s(gather, worker), self._peers.incarnation(worker))
        tiles = gather.held.plan.tiles
        assert tiles is not None
        return [SendTile(key, worker, tensor, array, codec=tiles.codec_of(tensor)) for tensor, array in tensors.items()]

    def _chosen(self, gather: _TileGather, tile: int, now: float) -> NodeId:
        """The first that can: the plan's worker for the tile, its backup, the one with the least to do, the
        coordinator.
        """
        tiles, asked = gather.held.plan.tiles, gather.asked.get(tile, {})
        assert tiles is not None
        planned, backup = tiles.workers[tile - 1], tiles.backup(tile)
        able = [n for n in gather.held.plan.workers if n not in asked and self._peers.ready_for(n, gather.held.plan)]
        able = [n for n in able if self._shunned_until.get(n, now) <= now]
        if planned in able or (planned == self._me and planned not in asked):
            return planned
        return backup if backup in able else min(able, key=self._busy, default=self._me)

    def _busy(self, worker: NodeId) -> int:
        return sum(worker in gather.asked.get(tile, {}) for gather in self._open.values() for tile in gather.missing)

    def _cut(self, gather: _TileGather, tile: int) -> dict[int, Array]:
        regions = gather.tiled.tile_map.tiles[tile - 1].regions
        return {tensor: part(gather.kept[tensor], regions[tensor]) for tensor in gather.tiled.stack.inputs}

    def _patience_s(self, gather: _TileGather, worker: NodeId) -> float:
        usual = self._usual_s.get((gather.key.stream, gather.key.epoch, worker), gather.held.plan.predicted.seconds)
        return max(LEAST_WAIT_S, PATIENCE * usual)

    def _is_hopeless(self, worker: NodeId, asked: _Asked, now: float) -> bool:
        is_gone = worker != self._me and self._peers.incarnation(worker) != asked.incarnation
        return is_gone or now >= asked.late_at

    def _learn(self, event: TileArrived, taken_s: float, was_alone: bool) -> list[Action]:
        name = event.key.stream, event.key.epoch, event.worker
        usual = self._usual_s.get(name, taken_s)
        self._usual_s[name] = max(taken_s, USUAL_MEMORY * usual + (1 - USUAL_MEMORY) * taken_s)
        if not event.trace or event.trace[-1].is_compiling:
            return []
        hop = event.trace[-1]
        transfer_s = max(0.0, taken_s - hop.queue_seconds - hop.compute_seconds)
        return [NoteTile(event.key, event.worker, transfer_s, hop.queue_seconds, hop.compute_seconds, was_alone)]

    def _forget_closed(self, key: FrameKey) -> None:
        self._open = {
            name: gather
            for name, gather in self._open.items()
            if name[0] != key.stream or not is_closed(name[2], key.oldest_open)
        }


def _frame(key: FrameKey) -> FrameId:
    return key.stream, key.epoch, key.sequence
