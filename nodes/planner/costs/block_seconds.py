"""Foreseen seconds of each block on each node: measured by the node, else estimated from its speed. Pure."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from nodes.protocol.messages import NodeInfo
from pipeline.errors import ModelError, TileError
from pipeline.estimator import Speed, estimate
from pipeline.frames.input_blocks import DECODE, NORMALISE, has_input
from pipeline.graph import ModelGraph
from pipeline.placement import Tier
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.profiling.profile import Profile
from pipeline.tiles.split import nbytes, size_of
from pipeline.tiles.tiling import Tiling

MOST_PROFILES = 128
"""Of one node."""
MOST_TILINGS = 64
"""Whose tiles are remembered."""
MOST_BIAS = 3.0
"""What is off by more says something about the node, and nothing about the others."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A node's speed, and by how much estimates of the model were off on nodes that have measured it (a factor).

    An estimator errs about a model much the same on every node. Were it not for `bias`, the first node to be measured
    would look better or worse than those that are still estimated for no other reason, and blocks would go to and fro.
    """

    speed: Speed
    bias: float


Basis = Profile | Estimate
"""What a node's seconds follow from, before telemetry corrects them."""


class StageSeconds(NamedTuple):
    """Foreseen seconds of a stage: of the network's blocks, and of the input's own, which other libraries run."""

    network: float
    input: float = 0.0


class TileShare(NamedTuple):
    """A tile of a plan: its number from 1, bytes there and back as they are sent, and what part of each block's map it
    computes; seconds to encode and decode it on its way there, and its result on its way back.
    """

    number: int
    worker: NodeId
    nbytes: int
    result_nbytes: int
    shares: tuple[tuple[int, float], ...]
    coding_s: float = 0.0
    result_coding_s: float = 0.0

    def seconds_of(self, foreseen: Sequence[float]) -> float:
        """Foreseen seconds of the tile, from those of all blocks."""
        return sum(share * foreseen[block] for block, share in self.shares)


@dataclass(slots=True)
class BlockSeconds:
    """Reads `infos` by node and `graphs` by digest, which are its owner's. Profiles are by node and model."""

    infos: Mapping[NodeId, NodeInfo]
    graphs: Mapping[str, ModelGraph]
    _profiles: dict[tuple[NodeId, str], Profile] = field(default_factory=dict)
    _numbers: Counter[NodeId] = field(default_factory=Counter)
    """Of each node's profiles."""
    _speeds: dict[NodeId, Speed] = field(default_factory=dict)
    _estimates: dict[tuple[str, Speed], tuple[float, ...]] = field(default_factory=dict)
    _bases: dict[tuple[NodeId, str, str], Basis | None] = field(default_factory=dict)
    _biases: dict[tuple[str, str], float] = field(default_factory=dict)
    _with_ratios: dict[tuple[str, str], Profile | None] = field(default_factory=dict)
    _stages: dict[tuple[StreamId, Tier], tuple[Plan, Basis, float, StageSeconds]] = field(default_factory=dict)
    _tiles: dict[tuple[str, Tiling], tuple[TileShare, ...]] = field(default_factory=dict)
    frame_work: dict[StreamId, float] = field(default_factory=dict)
    """By stream, how many times the test picture's seconds its frames take to decode."""

    def learn_speed(self, info: NodeInfo) -> str:
        """Take a node's speed; returns what is wrong with it, if anything, and ignores it then."""
        self._speeds.pop(info.node, None)
        self.forget_bases()
        try:
            if info.speed is not None:
                self._speeds[info.node] = Speed.from_json(info.speed)
        except ModelError as error:
            return f"{info.node}: {error}"
        return ""

    def learn_profile(self, node: NodeId, profile: Profile) -> bool:
        """Take a node's profile; returns whether it is another than before."""
        if self._profiles.get((node, profile.model)) == profile:
            return False
        self._numbers[node] += (node, profile.model) not in self._profiles
        self._profiles[node, profile.model] = profile
        self.forget_bases()
        return True

    def forget(self, node: NodeId) -> None:
        """Drop a node's speed and profiles."""
        self._speeds.pop(node, None)
        for key in [key for key in self._profiles if key[0] == node]:
            del self._profiles[key]
        self._numbers.pop(node, None)
        self.forget_bases()

    def profile_of(self, model: str, digest: str) -> Profile | None:
        """The profile of the model by the first node that has one, by id."""
        key = model, digest
        if key not in self._with_ratios:
            fitting = {
                node: profile
                for (node, name), profile in self._profiles.items()
                if name == model and profile.digest == digest and profile.ratios
            }
            self._with_ratios[key] = fitting[min(fitting)] if fitting else None
        return self._with_ratios[key]

    def has_room_for(self, node: NodeId, profile: Profile) -> bool:
        """True when this profile can be kept: it replaces one, or there is room for one more of the node."""
        return (node, profile.model) in self._profiles or self._numbers[node] < MOST_PROFILES

    def tiles(self, plan: Plan) -> tuple[TileShare, ...]:
        """The plan's tiles, in order; none where it has none, or does not fit its graph."""
        graph, tiling = self.graphs.get(plan.digest), plan.tiles
        if graph is None or tiling is None:
            return ()
        key = plan.digest, tiling.uncoded
        if key not in self._tiles:
            while len(self._tiles) >= MOST_TILINGS:
                del self._tiles[next(iter(self._tiles))]
            self._tiles[key] = tuple(_tile_shares(graph, tiling))
        return _as_sent(self._tiles[key], plan) if tiling.codecs else self._tiles[key]

    def stage_seconds(self, basis: Basis, plan: Plan, tier: Tier) -> StageSeconds:
        """Foreseen seconds of the blocks that the tier's node runs by itself: those in tiles are not among them."""
        known, work = self._stages.get((plan.stream, tier)), self.frame_work.get(plan.stream, 1.0)
        if known is None or known[0] is not plan or known[1] is not basis or known[2] != work:
            taken = dict(self._stage(basis, plan, tier))
            of_input = sum(taken.pop(block, 0.0) for block in self._input_blocks(plan))
            known = plan, basis, work, StageSeconds(sum(taken.values()), of_input)
            self._stages[plan.stream, tier] = known
        return known[3]

    def _input_blocks(self, plan: Plan) -> tuple[int, ...]:
        graph = self.graphs.get(plan.digest)
        return (DECODE, NORMALISE) if graph is not None and has_input(graph) else ()

    def _stage(self, basis: Basis, plan: Plan, tier: Tier) -> Iterator[tuple[int, float]]:
        stack = self._shared_out(plan) if tier is Tier.EDGE else ()
        foreseen = self.foreseen(basis, plan.digest, self.frame_work.get(plan.stream, 1.0))
        for block, (seconds, placed) in enumerate(zip(foreseen, plan.placement, strict=False)):
            if placed is tier and block not in stack:
                yield block, seconds

    def _shared_out(self, plan: Plan) -> Sequence[int]:
        """Blocks in tiles, which the coordinator's segments do not have; empty if the plan does not fit its graph."""
        graph = self.graphs.get(plan.digest)
        with contextlib.suppress(TileError):
            return plan.tiles.stack(graph).blocks if plan.tiles is not None and graph is not None else ()
        return ()

    def basis(self, node: NodeId, model: str, digest: str) -> Basis | None:
        """The node's fitting profile, else an estimate, None without either."""
        key = node, model, digest
        if key not in self._bases:
            self._bases[key] = self._find_basis(node, model, digest)
        return self._bases[key]

    def forget_bases(self) -> None:
        """Find anew what seconds follow from: a node, a profile or a graph has come."""
        self._bases.clear()
        self._with_ratios.clear()
        self._biases.clear()

    def _find_basis(self, node: NodeId, model: str, digest: str) -> Basis | None:
        profile, speed = self._profiles.get((node, model)), self._speeds.get(node)
        if profile is not None and not self.why_unfit(node, model, digest):
            return profile
        return Estimate(speed, self._bias(model, digest)) if speed and self._estimated(speed, digest) else None

    def why_unfit(self, node: NodeId, model: str, digest: str) -> str:
        """The reason that the node's profile of the model cannot be used; empty if it can, or there is none."""
        profile, info, graph = self._profiles.get((node, model)), self.infos.get(node), self.graphs.get(digest)
        if profile is None or info is None:
            return ""
        here = (digest, info.engine, info.engine_version, info.threads, info.hardware)
        there = (profile.digest, profile.engine, profile.engine_version, profile.threads, profile.hardware)
        differing = [f"{theirs}, not {ours}" for theirs, ours in zip(there, here, strict=True) if theirs != ours]
        if differing:
            return f"{node} has a profile of another {model!r}, engine or machine: {'; '.join(differing)}"
        if graph is not None and len(profile.seconds) != len(graph):
            return f"{node} has a profile of {len(profile.seconds)} blocks for {len(graph)}"
        return ""

    def foreseen(self, basis: Basis, digest: str, frame_work: float = 1.0) -> tuple[float, ...]:
        """Seconds by block, before telemetry corrects them; a frame takes `frame_work` test pictures to decode."""
        if isinstance(basis, Profile):
            seconds = basis.seconds
        else:
            seconds = tuple(basis.bias * seconds for seconds in self._estimated(basis.speed, digest))
        graph = self.graphs.get(digest)
        if frame_work == 1.0 or graph is None or not has_input(graph) or len(seconds) != len(graph):
            return seconds
        return (*seconds[:DECODE], frame_work * seconds[DECODE], *seconds[DECODE + 1 :])

    def _estimated(self, speed: Speed, digest: str) -> tuple[float, ...]:
        """Estimated seconds by block; empty without the graph, and for a speed at which they are not finite."""
        if digest not in self.graphs:
            return ()
        key = digest, speed
        if key not in self._estimates:
            seconds = estimate(self.graphs[digest], speed)
            self._estimates[key] = seconds if math.isfinite(sum(seconds)) else ()
        return self._estimates[key]

    def _bias(self, model: str, digest: str) -> float:
        if (model, digest) not in self._biases:
            self._biases[model, digest] = self._find_bias(model, digest)
        return self._biases[model, digest]

    def _find_bias(self, model: str, digest: str) -> float:
        ratios = []
        for node, speed in self._speeds.items():
            profile, estimated_s = self._profiles.get((node, model)), sum(self._estimated(speed, digest))
            if profile is not None and estimated_s > 0 and not self.why_unfit(node, model, digest):
                ratios.append(sum(profile.seconds) / estimated_s)
        return round(min(max(statistics.median(ratios), 1 / MOST_BIAS), MOST_BIAS), 3) if ratios else 1.0


def _as_sent(tiles: tuple[TileShare, ...], plan: Plan) -> tuple[TileShare, ...]:
    """The tiles with what the plan foresees of their codecs; as they are where it has no price of them."""
    priced = plan.predicted.tiles.tiles if plan.predicted.tiles is not None else ()
    if len(priced) != len(tiles):
        return tiles
    return tuple(
        tile._replace(
            nbytes=cost.nbytes,
            result_nbytes=cost.result_nbytes,
            coding_s=cost.coding_seconds,
            result_coding_s=cost.result_coding_seconds,
        )
        for tile, cost in zip(tiles, priced, strict=True)
    )


def _tile_shares(graph: ModelGraph, tiling: Tiling) -> Iterator[TileShare]:
    with contextlib.suppress(TileError):  # of an earlier planner, for another network: it is about to be replaced
        tile_map = tiling.tile_map(graph)
        stack = tile_map.stack
        for number, (worker, tile) in enumerate(zip(tiling.workers, tile_map.tiles, strict=True), start=1):
            outputs = [(block, graph.blocks[block].outputs[0]) for block in stack.blocks]
            shares = tuple((block, tile.regions[out].area / math.prod(size_of(graph, out))) for block, out in outputs)
            sent = sum(nbytes(graph, tensor, tile.regions[tensor]) for tensor in stack.inputs)
            yield TileShare(number, worker, sent, nbytes(graph, stack.output, tile.regions[stack.output]), shares)
