"""The cost of a stack shared out in tiles, as a part of a placement's cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from pipeline.ranges import Count, Id, Sum

MOST_TILES = 256


@dataclass(frozen=True, slots=True)
class TileCost:
    """One tile: the node that computes it, bytes there and back as they are sent, seconds of both (0 at the
    coordinator) and of computing. Of the seconds of transfer, `coding_seconds` are to encode and decode on the way
    there, `result_coding_seconds` on the way back.
    """

    worker: Id
    nbytes: Count
    result_nbytes: Count
    transfer_seconds: Sum
    compute_seconds: Sum
    coding_seconds: Sum = 0.0
    result_coding_seconds: Sum = 0.0


@dataclass(frozen=True, slots=True)
class TilesCost:
    """A stack of the edge's blocks shared out, with all its tiles: `seconds` of it are in the edge's stage.

    The coordinator alone would take `alone_seconds`; of `seconds` it computes for `own_seconds` and waits for the rest.
    The busiest worker or way between them is taken for `busy_seconds`. `extra_work` is what the tiles compute beyond
    the stack in one piece, as a share of it. `joules` are those of all its nodes, for computing and for bytes. Workers
    take all cores of their machines for `cores_seconds`, by worker.
    """

    seconds: Sum
    alone_seconds: Sum
    own_seconds: Sum
    busy_seconds: Sum
    extra_work: Sum = 0.0
    joules: Sum = 0.0
    tiles: Annotated[tuple[TileCost, ...], Field(max_length=MOST_TILES)] = ()
    cores_seconds: Annotated[Mapping[Id, Sum], Field(max_length=MOST_TILES)] = field(default_factory=dict)

    @property
    def waiting_seconds(self) -> float:
        """Those in which the coordinator waits for others' tiles."""
        return self.seconds - self.own_seconds

    @property
    def transfer_share(self) -> float:
        """The part of the tiles' seconds that is way there and back."""
        transfer = sum(tile.transfer_seconds for tile in self.tiles)
        return transfer / ((transfer + sum(tile.compute_seconds for tile in self.tiles)) or 1.0)
