"""What tiles take on a head and its workers: computing, the way there and back, and what limits a stream of them.

Model: the head sends the tiles' inputs one after the other, in the tiles' order, over its one way to the broker; the
broker hands each on when it has it; a worker computes its tile whole; results come down the head's one way from the
broker as they arrive. A tile of the head itself goes nowhere and is computed meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.errors import PlanError
from pipeline.placement import NodeId

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TileNode:
    """A node that computes tiles: `seconds` of each block in one piece, and its way to the broker.

    Rates in bytes per second, `latency_s` one way. Raises PlanError for what cannot be.
    """

    node: NodeId
    seconds: tuple[float, ...]
    up_bytes_per_s: float
    down_bytes_per_s: float
    latency_s: float

    def __post_init__(self) -> None:
        if not (min(self.up_bytes_per_s, self.down_bytes_per_s) > 0 and 0 <= self.latency_s < np.inf):
            raise PlanError(
                f"{self.node} sends {self.up_bytes_per_s} and gets {self.down_bytes_per_s} bytes/s after "
                f"{self.latency_s} s: rates are above 0, a latency is at least 0; measure its link again"
            )


@dataclass(frozen=True, slots=True)
class Team:
    """An edge node that runs the stage, and those that compute tiles for it; it may compute some itself."""

    head: TileNode
    workers: tuple[TileNode, ...] = ()

    def of(self, node: NodeId) -> TileNode:
        """The member of this name. Raises KeyError."""
        return next(member for member in (self.head, *self.workers) if member.node == node)


@dataclass(frozen=True, slots=True)
class Timed:
    """Of ways to tile a stack, an array each: seconds until all tiles are there (`seconds`), those in which the head
    computes its own (`own_seconds`), and those of the busiest worker or way between them (`busy_seconds`).
    """

    seconds: Floats
    own_seconds: Floats
    busy_seconds: Floats


@dataclass(frozen=True, slots=True)
class Crew:
    """Who has which tile, as arrays over the tiles (last axis): what `timed` needs of a team.

    A place that nobody has is nobody's tile: it computes, sends and returns nothing.
    """

    is_remote: Bools
    is_own: Bools
    up: Floats
    down: Floats
    latency_s: Floats
    member: Ints
    nobody: int
    head_up: float
    head_down: float

    @classmethod
    def of(cls, team: Team, tiles: Sequence[Sequence[NodeId | None]]) -> Crew:
        """Of nodes by way and tile; all rows are of one length, filled with None."""
        members = {member.node: place for place, member in enumerate((team.head, *team.workers))}
        nobody = len(members)
        member = np.array([[nobody if n is None else members[n] for n in row] for row in tiles], np.int64)
        ways = np.array([(m.up_bytes_per_s, m.down_bytes_per_s, m.latency_s) for m in (team.head, *team.workers)])
        up, down, latency_s = np.vstack([ways, [np.inf, np.inf, 0.0]]).T
        is_own = member == 0
        return cls(
            (member > 0) & (member < nobody),
            is_own,
            up[member],
            down[member],
            latency_s[member] + team.head.latency_s,
            member,
            nobody,
            team.head.up_bytes_per_s,
            team.head.down_bytes_per_s,
        )

    def seconds(self, team: Team, block: int) -> Floats:
        """What the block in one piece takes the node of each tile."""
        of_members = [member.seconds[block] for member in (team.head, *team.workers)]
        return np.array([*of_members, 0.0])[self.member]

    def __getitem__(self, ways: Ints) -> Crew:
        """These ways, in this order."""
        return replace(
            self,
            is_remote=self.is_remote[ways],
            is_own=self.is_own[ways],
            up=self.up[ways],
            down=self.down[ways],
            latency_s=self.latency_s[ways],
            member=self.member[ways],
        )


def timed(crew: Crew, computed: Floats, sent: Floats, returned: Floats) -> Timed:
    """What ways to tile take: `computed` seconds, `sent` and `returned` bytes are `[..., way, tile]`."""
    sent, returned = sent * crew.is_remote, returned * crew.is_remote
    own = (computed * crew.is_own).sum(axis=-1)
    back = arrivals(crew, computed, sent, returned)
    order = np.argsort(back, axis=-1)
    sooner = np.take_along_axis(back, order, -1)
    behind = np.cumsum(np.take_along_axis(returned, order, -1)[..., ::-1], axis=-1)[..., ::-1] / crew.head_down
    together = np.maximum((sooner + behind).max(axis=-1), own)
    busy = np.maximum(sent.sum(axis=-1) / crew.head_up, returned.sum(axis=-1) / crew.head_down)
    for spent in _by_member(crew, computed * crew.is_remote, sent / crew.down, returned / crew.up):
        busy = np.maximum(busy, spent)
    return Timed(together, own, busy)


def arrivals(crew: Crew, computed: Floats, sent: Floats, returned: Floats) -> Floats:
    """Seconds from the first send until each result is at the broker's end of the head's way; -inf for no remote tile.

    A worker that has several tiles computes them in order.
    """
    there = np.cumsum(sent, axis=-1) / crew.head_up + sent / crew.down + crew.latency_s
    ready = there + computed
    for before in range(crew.member.shape[-1] - 1):
        for later in range(before + 1, crew.member.shape[-1]):
            same = crew.is_remote[..., before] & (crew.member[..., before] == crew.member[..., later])
            if same.any():
                waited = np.maximum(there[..., later], ready[..., before]) + computed[..., later]
                ready[..., later] = np.where(same, waited, ready[..., later])
    back = ready + returned / crew.up + crew.latency_s
    return np.where(crew.is_remote, back, -np.inf)


def _by_member(crew: Crew, *spent: Floats) -> list[Floats]:
    """The sums over each remote member's tiles."""
    found = []
    for member in range(1, crew.nobody):
        of = crew.member == member
        found += [(seconds * of).sum(axis=-1) for seconds in spent]
    return found
