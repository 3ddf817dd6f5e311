"""Snapshots of the costs that a plan rests on, node by node. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nodes.planner.costs.block_seconds import Basis
from nodes.protocol.messages import LinkReport


@dataclass(frozen=True, slots=True)
class Utilisation:
    """Shares, from 0 to below 1, of a node's processor and of its link up and down that other streams use."""

    compute: float = 0.0
    up: float = 0.0
    down: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """All that a node's part in a stream's costs follows from.

    `factor` is telemetry's on what `basis` foresees, `overhead_s` what a frame, or a tile, takes the node to receive,
    to be called for, and to send, `frame_overhead_s` what it takes the stream's device to read a frame and to answer
    it.
    """

    basis: Basis
    factor: float
    link: LinkReport
    utilisation: Utilisation = Utilisation()
    overhead_s: float = 0.0
    frame_overhead_s: float = 0.0

    @property
    def slowness(self) -> float:
        """The factor for foreseen seconds: telemetry's, over the share of the processor that others leave."""
        return self.factor / (1 - self.utilisation.compute)

    @property
    def available_link(self) -> LinkReport:
        """The node's link with the rates that other streams leave."""
        return replace(
            self.link,
            up_bytes_per_s=self.link.up_bytes_per_s * (1 - self.utilisation.up),
            down_bytes_per_s=self.link.down_bytes_per_s * (1 - self.utilisation.down),
        )
