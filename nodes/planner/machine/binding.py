"""A stream's binding: what the registry needs of it to say which nodes can serve it."""

from __future__ import annotations

from dataclasses import dataclass, field

from nodes.planner.costs.ratios import Ratios
from pipeline.plan import NodeId


@dataclass(frozen=True, slots=True)
class StreamBinding:
    """A stream's device and model, the nodes that refused it, by session, and its codecs' ratios."""

    device: NodeId
    model: str
    banned: dict[NodeId, str] = field(default_factory=dict)
    ratios: Ratios = field(default_factory=Ratios, compare=False)
