"""Snapshots of the costs that a plan rests on, node by node. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nodes.planner.costs.block_seconds import Basis
from nodes.protocol.messages import LinkReport
from pipeline.frames.input_blocks import NORMALISE, has_input
from pipeline.graph import ModelGraph


@dataclass(frozen=True, slots=True)
class Utilisation:
    """Shares, from 0 to below 1, of a node's processor and of its link up and down that other streams use."""

    compute: float = 0.0
    up: float = 0.0
    down: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """All that a node's part in a stream's costs follows from.

    `factor` is telemetry's on what `basis` foresees of a network, `input_factor` on what it foresees of the input's own
    blocks. `overhead_s` is what a frame, or a tile, takes the node to receive, to be called for, and to send,
    `frame_overhead_s` what it takes the stream's device to read a frame and to answer it, `gather_s` what it takes a
    coordinator to cut a frame's tiles, to hand them out and to put them together.
    """

    basis: Basis
    factor: float
    link: LinkReport
    utilisation: Utilisation = Utilisation()
    overhead_s: float = 0.0
    frame_overhead_s: float = 0.0
    input_factor: float = 1.0
    gather_s: float = 0.0

    @property
    def slowness(self) -> float:
        """The factor for foreseen seconds: telemetry's, over the share of the processor that others leave."""
        return self.factor / (1 - self.utilisation.compute)

    @property
    def input_slowness(self) -> float:
        """The same for the input's own blocks."""
        return self.input_factor / (1 - self.utilisation.compute)

    def seconds(self, foreseen: Sequence[float], graph: ModelGraph | None) -> tuple[float, ...]:
        """Seconds by block of a model of this graph, from what its basis foresees."""
        begin = NORMALISE + 1 if graph is not None and has_input(graph) else 0
        for_input, slowness = self.input_slowness, self.slowness
        of_input = [for_input * seconds for seconds in foreseen[:begin]]
        return (*of_input, *[slowness * seconds for seconds in foreseen[begin:]])

    @property
    def overheads_s(self) -> tuple[float, float]:
        """Seconds to receive, be called for and send a frame, and to read and answer one."""
        return self.overhead_s, self.frame_overhead_s

    @property
    def available_link(self) -> LinkReport:
        """The node's link with the rates that other streams leave."""
        if not (self.utilisation.up or self.utilisation.down):
            return self.link
        return replace(
            self.link,
            up_bytes_per_s=self.link.up_bytes_per_s * (1 - self.utilisation.up),
            down_bytes_per_s=self.link.down_bytes_per_s * (1 - self.utilisation.down),
        )
