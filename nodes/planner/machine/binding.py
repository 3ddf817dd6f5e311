"""A stream's binding: what the registry needs of it to say which nodes can serve it."""

from __future__ import annotations

from dataclasses import dataclass, field

from nodes.planner.costs.ratios import Ratios
from pipeline.plan import NodeId


@dataclass(slots=True)
class Late:
    """A node's process that was not ready in time, `times` times: each time it gets twice as long.

    It is left out until it is no longer at work on this epoch; None once that is so.
    """

    session: str
    epoch: int | None
    times: int = 1


@dataclass(frozen=True, slots=True)
class StreamBinding:
    """A stream's device and model; nodes that refused it, by session, or were late; and its codecs' ratios."""

    device: NodeId
    model: str
    banned: dict[NodeId, str] = field(default_factory=dict)
    late: dict[NodeId, Late] = field(default_factory=dict)
    ratios: Ratios = field(default_factory=Ratios, compare=False)

    def is_left_out(self, node: NodeId, session: str) -> bool:
        """True when this process of the node refused a plan of the stream, or is still at work on one, too late."""
        late = self.late.get(node)
        is_late = late is not None and late.session == session and late.epoch is not None
        return is_late or self.banned.get(node) == session

    def was_late(self, node: NodeId, session: str) -> int:
        """How often this process of the node was late."""
        late = self.late.get(node)
        return late.times if late is not None and late.session == session else 0
