"""What a plan rests on, node by node. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nodes.planner.costs.compute_seconds import Basis
from nodes.protocol.messages import LinkReport


@dataclass(frozen=True, slots=True)
class Taken:
    """Shares, from 0 to below 1, of a node's processor and of its ways to and from the broker that others have."""

    compute: float = 0.0
    up: float = 0.0
    down: float = 0.0


@dataclass(frozen=True, slots=True)
class Condition:
    """All that a node's part in a stream's costs follows from; `factor` is telemetry's on what `basis` foresees,
    `handling_s` what a frame takes the node to receive and to send; of a worker, what a tile's way there and back takes
    beside its bytes. `intake_s` is what it takes the stream's device to read a frame and to answer it.
    """

    basis: Basis
    factor: float
    link: LinkReport
    taken: Taken = Taken()
    handling_s: float = 0.0
    intake_s: float = 0.0

    @property
    def slowness(self) -> float:
        """What to multiply foreseen seconds with: what others take of a shared processor is missing for this stream."""
        return self.factor / (1 - self.taken.compute)

    @property
    def way(self) -> LinkReport:
        """What is left of the node's way to the broker and back."""
        return replace(
            self.link,
            up_bytes_per_s=self.link.up_bytes_per_s * (1 - self.taken.up),
            down_bytes_per_s=self.link.down_bytes_per_s * (1 - self.taken.down),
        )
