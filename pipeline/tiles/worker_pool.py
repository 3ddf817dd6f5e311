"""The seconds of tiles on a coordinator and its workers: computing, transfers, and the bottleneck of a stream of them.

Model: the coordinator sends the tiles' inputs one after the other, in the tiles' order, over its one link to the
broker; the broker hands each on when it has it; a worker computes its tile whole; results come down the coordinator's
one link from the broker as they arrive. A tile of the coordinator itself goes nowhere and is computed meanwhile.
Where tiles are coded, the coordinator encodes the next one while one is sent, and decodes results one after the other.
Whatever the tiles, the coordinator takes some time more to cut them, to hand them out and to put them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from pipeline.coding import QUICKEST, CodecSpeed, CodingWorth
from pipeline.energy import NO_DRAW, Draw
from pipeline.errors import PlanError
from pipeline.placement import NodeId

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TileNode:
    """A node that computes tiles: `seconds` of each block in one piece, and its link to the broker.

    `latency_s` is one way; as a coordinator it takes `gather_s` for a frame's tiles besides what they take; it knows
    `codecs`. While it computes it takes the part `core_share` of its machine's cores. Raises PlanError unless rates are
    above 0, and the latency and `gather_s` finite and at least 0.
    """

    node: NodeId
    seconds: tuple[float, ...]
    up_bytes_per_s: float
    down_bytes_per_s: float
    latency_s: float
    draw: Draw = NO_DRAW
    gather_s: float = 0.0
    codecs: Mapping[str, CodecSpeed] = field(default_factory=lambda: MappingProxyType({}))
    machine: str = ""
    core_share: float = 0.0

    def __post_init__(self) -> None:
        if not (min(self.up_bytes_per_s, self.down_bytes_per_s) > 0 and 0 <= self.latency_s < np.inf):
            raise PlanError(
                f"{self.node} sends {self.up_bytes_per_s} and gets {self.down_bytes_per_s} bytes/s after "
                f"{self.latency_s} s: rates are above 0, a latency is at least 0; measure its link again"
            )
        if not 0 <= self.gather_s < np.inf:
            raise PlanError(f"{self.node} takes {self.gather_s} s to gather tiles: give at least 0")


@dataclass(frozen=True, slots=True)
class WorkerPool:
    """An edge node that runs the stage, and those that compute tiles for it; it may compute some itself.

    `ratios[tensor][codec]` are how many times fewer bytes a codec makes of a tensor, and `worth` by what tiles' codecs
    are chosen.
    """

    coordinator: TileNode
    workers: tuple[TileNode, ...] = ()
    ratios: Mapping[int, Mapping[str, float]] = field(default_factory=lambda: MappingProxyType({}))
    worth: CodingWorth = QUICKEST
    chosen: dict[tuple[int, bool], str] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Codecs that were asked for, by tensor and whether it is on its way back (`pipeline.tiles.tile_codings`)."""

    def member(self, node: NodeId) -> TileNode:
        """The member of this name. Raises KeyError."""
        return next(member for member in (self.coordinator, *self.workers) if member.node == node)


@dataclass(frozen=True, slots=True)
class Moved:
    """Tiles on one way, float64 `[..., layout, tile]`: bytes as they are sent, seconds to encode and to decode them."""

    nbytes: Floats
    encode_s: Floats
    decode_s: Floats

    @classmethod
    def nothing(cls, shape: tuple[int, ...]) -> Moved:
        """No bytes."""
        return cls(*np.zeros((3, *shape)))

    @classmethod
    def joined(cls, parts: Sequence[Moved]) -> Moved:
        """All parts, one after the other along the first axis."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*(part.arrays for part in parts), strict=True)))

    @property
    def arrays(self) -> tuple[Floats, Floats, Floats]:
        """Bytes, seconds to encode, seconds to decode."""
        return self.nbytes, self.encode_s, self.decode_s

    def __add__(self, other: Moved) -> Moved:
        return Moved(*(one + more for one, more in zip(self.arrays, other.arrays, strict=True)))

    def __getitem__(self, at: int | Ints | tuple[Ints, ...]) -> Moved:
        return Moved(*(array[at] for array in self.arrays))

    def put(self, at: int, other: Moved) -> None:
        """Replace what stands at this place of the first axis."""
        for own, others in zip(self.arrays, other.arrays, strict=True):
            own[at] = others

    def where(self, mask: Bools) -> Moved:
        """The same tiles where the mask is true, nothing elsewhere."""
        return Moved(*(array * mask for array in self.arrays))


@dataclass(frozen=True, slots=True)
class Timed:
    """Times of tile layouts, float64 `[..., layout]`: seconds until all tiles are gathered (`seconds`), of the
    coordinator's own tiles (`own_seconds`), and of the busiest worker, link or machine (`busy_seconds`); `joules` of
    all nodes. `cores_seconds`, `[member, ..., layout]`: seconds in which a member's tiles take all of its machine's
    cores.
    """

    seconds: Floats
    own_seconds: Floats
    busy_seconds: Floats
    joules: Floats
    cores_seconds: Floats


@dataclass(frozen=True, slots=True)
class TileWorkers:
    """The node of each tile and its rates, as arrays `[layout, tile]`.

    A place without a node (`member` is `nobody`) computes, sends and returns nothing. `core_share`, `[member]`, are
    members' parts of their machines' cores, `machines` the members of each machine that has several.
    """

    is_remote: Bools
    is_own: Bools
    up: Floats
    down: Floats
    latency_s: Floats
    member: Ints
    nobody: int
    coordinator_up: float
    coordinator_down: float
    gather_s: float
    coordinator_watts: float
    watts: Floats
    joules_per_byte: Floats
    core_share: Floats
    machines: tuple[list[int], ...]

    @classmethod
    def from_pool(cls, pool: WorkerPool, tiles: Sequence[Sequence[NodeId | None]]) -> TileWorkers:
        """Look up the nodes of `tiles`, a row for each layout, all of one length, filled with None."""
        members = {member.node: place for place, member in enumerate((pool.coordinator, *pool.workers))}
        nobody = len(members)
        member = np.array([[nobody if n is None else members[n] for n in row] for row in tiles], np.int64)
        rates = np.array(
            [(m.up_bytes_per_s, m.down_bytes_per_s, m.latency_s) for m in (pool.coordinator, *pool.workers)]
        )
        up, down, latency_s = np.vstack([rates, [np.inf, np.inf, 0.0]]).T
        is_own = member == 0
        draws = [m.draw for m in (pool.coordinator, *pool.workers)]
        watts = np.array([*(draw.watts for draw in draws), 0.0])[member]
        together: dict[str, list[int]] = {}
        for place, one in enumerate((pool.coordinator, *pool.workers)):
            together.setdefault(one.machine or one.node, []).append(place)
        at_both_ends = [draw.joules_per_byte + pool.coordinator.draw.joules_per_byte for draw in draws]
        return cls(
            (member > 0) & (member < nobody),
            is_own,
            up[member],
            down[member],
            latency_s[member] + pool.coordinator.latency_s,
            member,
            nobody,
            pool.coordinator.up_bytes_per_s,
            pool.coordinator.down_bytes_per_s,
            pool.coordinator.gather_s,
            pool.coordinator.draw.watts,
            watts,
            np.array([*at_both_ends, 0.0])[member],
            np.array([m.core_share for m in (pool.coordinator, *pool.workers)]),
            tuple(places for places in together.values() if len(places) > 1),
        )

    def seconds(self, pool: WorkerPool, block: int) -> Floats:
        """Seconds of the block in one piece on the node of each tile, `[layout, tile]`."""
        of_members = [member.seconds[block] for member in (pool.coordinator, *pool.workers)]
        return np.array([*of_members, 0.0])[self.member]

    def __getitem__(self, tile_layouts: Ints) -> TileWorkers:
        """The layouts of these indices, in this order."""
        return replace(
            self,
            is_remote=self.is_remote[tile_layouts],
            is_own=self.is_own[tile_layouts],
            up=self.up[tile_layouts],
            down=self.down[tile_layouts],
            latency_s=self.latency_s[tile_layouts],
            member=self.member[tile_layouts],
            watts=self.watts[tile_layouts],
            joules_per_byte=self.joules_per_byte[tile_layouts],
        )


def timed(tile_workers: TileWorkers, computed: Floats, sent: Moved, returned: Moved) -> Timed:
    """Time layouts: `computed` are each tile's seconds, `[..., layout, tile]`, `sent` and `returned` its ways."""
    sent, returned = sent.where(tile_workers.is_remote), returned.where(tile_workers.is_remote)
    own = (computed * tile_workers.is_own).sum(axis=-1)
    gathered = _gathered(tile_workers, arrivals(tile_workers, computed, sent, returned), returned)
    together = np.maximum(gathered, own) + tile_workers.gather_s
    taken = np.stack([(computed * (tile_workers.member == m)).sum(axis=-1) for m in range(tile_workers.nobody)])
    taken *= tile_workers.core_share.reshape(-1, *[1] * (taken.ndim - 1))
    spent = [
        *(taken[places].sum(axis=0) for places in tile_workers.machines),
        sent.nbytes.sum(axis=-1) / tile_workers.coordinator_up,
        returned.nbytes.sum(axis=-1) / tile_workers.coordinator_down,
        sent.encode_s.sum(axis=-1),
        returned.decode_s.sum(axis=-1),
        *_by_member(
            tile_workers,
            computed * tile_workers.is_remote,
            sent.nbytes / tile_workers.down,
            returned.nbytes / tile_workers.up,
            sent.decode_s,
            returned.encode_s,
        ),
    ]
    return Timed(together, own, np.max(spent, axis=0), _joules(tile_workers, computed, sent, returned), taken)


def arrivals(tile_workers: TileWorkers, computed: Floats, sent: Moved, returned: Moved) -> Floats:
    """Seconds from the first tile's encoding until each result is at the broker's end of the coordinator's link; -inf
    for no remote tile.

    A worker that has several tiles computes them in order.
    """
    sent_s = sent.nbytes / tile_workers.coordinator_up
    there = _one_after_the_other(np.cumsum(sent.encode_s, axis=-1), sent_s)
    there = there + sent.nbytes / tile_workers.down + tile_workers.latency_s + sent.decode_s
    ready = there + computed
    for before in range(tile_workers.member.shape[-1] - 1):
        for later in range(before + 1, tile_workers.member.shape[-1]):
            same = tile_workers.is_remote[..., before] & (
                tile_workers.member[..., before] == tile_workers.member[..., later]
            )
            if same.any():
                waited = np.maximum(there[..., later], ready[..., before]) + computed[..., later]
                ready[..., later] = np.where(same, waited, ready[..., later])
    back = ready + returned.encode_s + returned.nbytes / tile_workers.up + tile_workers.latency_s
    return np.where(tile_workers.is_remote, back, -np.inf)


def _gathered(tile_workers: TileWorkers, back: Floats, returned: Moved) -> Floats:
    """Seconds until the last result, in the order in which they arrive, has come down and is decoded; -inf for none."""
    order = np.argsort(back, axis=-1)
    sooner, nbytes, decode_s = (
        np.take_along_axis(array, order, -1) for array in (back, returned.nbytes, returned.decode_s)
    )
    down = _one_after_the_other(sooner, nbytes / tile_workers.coordinator_down)
    behind = np.cumsum(decode_s[..., ::-1], axis=-1)[..., ::-1]
    last: Floats = (down + behind).max(axis=-1)
    return last


def _one_after_the_other(ready: Floats, taken: Floats) -> Floats:
    """When each is done along the last axis, each begun when it is ready and the one before is done."""
    before = np.cumsum(taken, axis=-1) - taken
    done: Floats = np.maximum.accumulate(ready - before, axis=-1) + before + taken
    return done


def _joules(tile_workers: TileWorkers, computed: Floats, sent: Moved, returned: Moved) -> Floats:
    """Of all nodes, for computing, coding and bytes."""
    here_s, there_s = sent.encode_s + returned.decode_s, sent.decode_s + returned.encode_s
    joules: Floats = (
        (computed + there_s) * tile_workers.watts
        + here_s * tile_workers.coordinator_watts
        + (sent.nbytes + returned.nbytes) * tile_workers.joules_per_byte
    ).sum(axis=-1)
    return joules


def _by_member(tile_workers: TileWorkers, *spent: Floats) -> list[Floats]:
    """The sums over each remote member's tiles."""
    found = []
    for member in range(1, tile_workers.nobody):
        mask = tile_workers.member == member
        found += [(seconds * mask).sum(axis=-1) for seconds in spent]
    return found
