"""Events of the planner's machine, and actions for its shell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nodes.config.plan_request import PlanRequest
from nodes.protocol.messages import LinkReport, NodeInfo, Report
from nodes.protocol.packages import Holdings, PublishedPackage
from nodes.tier.machine.actions import Log, Refuse
from nodes.tier.machine.events import (
    ConnectionLost,
    ConnectionRestored,
    PeerAppliedArrived,
    PeerForgotten,
    PeerStateArrived,
    Tick,
)
from pipeline.graph import ModelGraph
from pipeline.plan import NodeId, Plan, StreamId
from pipeline.profiling.profile import Profile


@dataclass(frozen=True, slots=True)
class InfoArrived:
    """A node published its info."""

    info: NodeInfo


@dataclass(frozen=True, slots=True)
class ProfileArrived:
    """A node published its profile of a model."""

    node: NodeId
    profile: Profile


@dataclass(frozen=True, slots=True)
class LinkArrived:
    """A node published its link's rates and round trip."""

    report: LinkReport


@dataclass(frozen=True, slots=True)
class TelemetryArrived:
    """A node reported. `heard_at` is when it did so last, None if just now: of several reports in one."""

    node: NodeId
    report: Report = field(default_factory=Report)
    heard_at: float | None = None


@dataclass(frozen=True, slots=True)
class ManifestArrived:
    """A model's graph."""

    graph: ModelGraph


@dataclass(frozen=True, slots=True)
class PackageArrived:
    """A package of a model is published."""

    package: PublishedPackage


@dataclass(frozen=True, slots=True)
class PackageRemoved:
    """A package, by its digest, is published no more."""

    digest: str


@dataclass(frozen=True, slots=True)
class HoldingsArrived:
    """A process said which pieces of packages it holds."""

    holdings: Holdings


@dataclass(frozen=True, slots=True)
class PlanSeen:
    """A plan that is retained on the broker, from this planner's earlier life."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class TilesByHand:
    """A grid as `Grid.parse` reads it, a stack as `FROM:TO`, and workers in the order of the tiles.

    Fewer workers than tiles take them in turn; none means all that can.
    """

    grid: str
    stack: str
    workers: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True)
class PlaceRequested:
    """A person wants a placement by hand, or (`auto`) the planner's own again. `request` is what to answer to."""

    stream: StreamId
    request: Any
    edge_from: str | None = None
    cloud_from: str | None = None
    auto: bool = False
    tiles: TilesByHand | None = None


@dataclass(frozen=True, slots=True)
class PlanRequested:
    """A person sent a plan request, or (`None`) wants the configured one again. `request` is what to answer to."""

    stream: StreamId
    request: Any
    plan_request: PlanRequest | None


@dataclass(frozen=True, slots=True)
class PriceRequested:
    """A person asks what a placement by hand, or the best plan under a plan request, would cost; nothing changes."""

    stream: StreamId
    request: Any
    edge_from: str | None = None
    cloud_from: str | None = None
    plan_request: PlanRequest | None = None


@dataclass(frozen=True, slots=True)
class PublishPlan:
    """Publish the plan, retained. One that `stays` has only a new price and reason, which nodes ignore."""

    plan: Plan
    graph: ModelGraph
    stays: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a request with plain JSON values."""

    request: Any
    answer: Mapping[str, Any]


Told: TypeAlias = (
    PeerStateArrived
    | PeerAppliedArrived
    | PeerForgotten
    | InfoArrived
    | ProfileArrived
    | LinkArrived
    | TelemetryArrived
    | ManifestArrived
    | PackageArrived
    | PackageRemoved
    | HoldingsArrived
    | PlanSeen
    | ConnectionLost
    | ConnectionRestored
    | Tick
)
"""All but a person's requests."""
PlannerEvent: TypeAlias = Told | PlaceRequested | PlanRequested | PriceRequested
PlannerAction: TypeAlias = PublishPlan | Reply | Log | Refuse
