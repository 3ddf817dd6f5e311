"""Plan requests, in the file and on the command line: an objective, a planner, constraints.

As sections with names of blocks and nodes; `constraints_of` turns them into what planners know.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, ValidationError

from broker.complaints import shortened
from nodes.config.base import Section, Table, TierName, empty, tier
from pipeline.cost import link_label
from pipeline.errors import ConfigError, PlanError
from pipeline.graph import ModelGraph
from pipeline.partition import PLANNERS, constraints
from pipeline.partition import objective as objectives
from pipeline.partition.constraints import Constraint
from pipeline.partition.objective import MEGABYTE, Objective
from pipeline.placement import Tier
from pipeline.plan import NodeId
from pipeline.ranges import MOST_BLOCKS, MOST_SECONDS

_PERCENT = 100.0
DEVICE_STAYS = "is where the frames enter; to compute nothing there, give time_limit: {device: 0}"
"""The reason why a stream's device is not excluded."""


def _objective(text: Any) -> Any:
    try:
        return str(objectives.parse(text))
    except (PlanError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error


def _planner(name: Any) -> Any:
    if not isinstance(name, str) or name not in PLANNERS:
        raise ValueError(f"one of {', '.join(PLANNERS)}")
    return name


def _time_limit(value: Any) -> Any:
    """Seconds, or a share as text such as `30%`."""
    try:
        if isinstance(value, str) and value.endswith("%"):
            number = float(value[:-1])
            good = 0 <= number <= _PERCENT
        else:
            number = math.nan if isinstance(value, bool) else float(value)
            good = 0 <= number <= MOST_SECONDS
    except (TypeError, ValueError, OverflowError):
        good = False
        number = math.nan
    if not good or not math.isfinite(number):
        raise ValueError("seconds a frame of at least 0, or a share of all computing such as '30%'")
    return str(value)


def _link(value: Any) -> Any:
    if not isinstance(value, str) or value not in ("device_edge", "edge_cloud"):
        raise ValueError("device_edge or edge_cloud")
    return Tier.DEVICE if value == "device_edge" else Tier.EDGE


def _tiers(value: Any) -> Any:
    return tuple(map(tier, value if isinstance(value, list) else [value]))


def _block(value: Any) -> Any:
    return str(value) if isinstance(value, int) else value


LinkName: TypeAlias = Annotated[Tier, BeforeValidator(_link)]
BlockName: TypeAlias = Annotated[str, BeforeValidator(_block)]
Tiers: TypeAlias = Annotated[tuple[Tier, ...], BeforeValidator(_tiers)]
TimeLimit: TypeAlias = Annotated[str, BeforeValidator(_time_limit)]
Megabytes: TypeAlias = Annotated[float, Field(ge=0, le=1e9)]


class ConstraintsSection(Section):
    """Constraints of a plan."""

    raw_stays_on: TierName | None = Field(
        None, description="device or edge: the input, and what still shows it, goes no further"
    )
    min_depth: int = Field(
        0, ge=0, le=MOST_BLOCKS, description="blocks from 0 that everything passes before it leaves the device"
    )
    pin: Table[BlockName, TierName] = Field(
        default_factory=empty, description="a table of blocks (name or number) and the tier that each runs on"
    )
    forbid: Table[BlockName, Tiers] = Field(
        default_factory=empty, description="a table of blocks (name or number) and the tiers that each does not run on"
    )
    exclude_nodes: tuple[NodeId, ...] = Field((), description="a list of nodes that get no blocks", strict=False)
    upload_limit_mb: Table[LinkName, Megabytes] = Field(
        default_factory=empty, description="a table of device_edge and edge_cloud, megabytes a frame of at least 0"
    )
    time_limit: Table[TierName, TimeLimit] = Field(
        default_factory=empty, description="a table of tiers, seconds a frame or a share of all computing such as 30%"
    )
    energy_limit_j: float | None = Field(
        None, ge=0, le=1e9, description="joules a frame of at least 0, more than what nodes draw when idle"
    )


class PlanRequest(Section):
    """Planner, objective and constraints of a stream's plans."""

    planner: Annotated[str, BeforeValidator(_planner)] = Field("exact", description=f"one of {', '.join(PLANNERS)}")
    objective: Annotated[str, BeforeValidator(_objective)] = Field(
        "latency",
        description="latency, throughput, backbone, price, energy, or weights such as latency=1,backbone=0.05",
    )
    codecs: bool = Field(True, description="true, or false to send all tensors as they are")
    constraints: ConstraintsSection = Field(default_factory=ConstraintsSection)

    def parsed_objective(self) -> Objective:
        """The objective that plans are judged by."""
        return objectives.parse(self.objective)

    @property
    def is_by_energy(self) -> bool:
        """True when joules count, in the objective or in a limit."""
        return self.parsed_objective().energy > 0 or self.constraints.energy_limit_j is not None

    @property
    def is_by_price(self) -> bool:
        """True when money counts in the objective."""
        return self.parsed_objective().price > 0


def constraints_of(graph: ModelGraph, section: ConstraintsSection) -> tuple[Constraint, ...]:
    """The constraints on blocks and links. Raises ModelError for a block that the model does not have,
    PlanError for a depth that it does not have.
    """
    found: list[Constraint] = []
    if section.raw_stays_on is not None:
        found.append(constraints.RawStays(section.raw_stays_on))
    if section.min_depth > len(graph):
        raise PlanError(
            f"min_depth {section.min_depth} is more than the {len(graph)} blocks of {graph.name}; to keep them all on "
            "the device, exclude the other nodes"
        )
    if section.min_depth:
        found.append(constraints.MinDepth(section.min_depth))
    found += (constraints.Pin(graph.block_named(name).index, at) for name, at in section.pin.items())
    found += (
        constraints.Forbid(graph.block_named(name).index, at) for name, tiers in section.forbid.items() for at in tiers
    )
    found += (constraints.UploadLimit(lower, mb * MEGABYTE) for lower, mb in section.upload_limit_mb.items())
    for at, limit in section.time_limit.items():
        if limit.endswith("%"):
            found.append(constraints.ShareLimit(at, float(limit[:-1]) / _PERCENT))
        else:
            found.append(constraints.TimeLimit(at, float(limit)))
    if section.energy_limit_j is not None:
        found.append(constraints.EnergyLimit(section.energy_limit_j))
    return tuple(found)


def read_plan_request(asked: Any) -> PlanRequest:
    """Read a plan request as a configuration has it. Raises ConfigError, which names each wrong part."""
    try:
        return PlanRequest.model_validate(asked)
    except ValidationError as error:
        problems = []
        for details in error.errors(include_url=False):
            where = ".".join(str(part) for part in details["loc"] if part != "[key]")
            context = details.get("ctx", {})
            wrong, allowed = shortened(repr(details["input"]), 80), context.get("error", details["msg"])
            problems.append(f"{shortened(where, 200)}: {wrong} is not allowed; {shortened(str(allowed))}")
        raise ConfigError("\n".join(problems)) from error


def as_written(plan_request: PlanRequest) -> dict[str, Any]:
    """A plan request as a configuration file has it: plain JSON values that `read_plan_request` reads back."""
    asked = plan_request.constraints
    written = {
        "raw_stays_on": asked.raw_stays_on.label if asked.raw_stays_on is not None else None,
        "min_depth": asked.min_depth or None,
        "pin": {block: at.label for block, at in asked.pin.items()},
        "forbid": {block: [at.label for at in tiers] for block, tiers in asked.forbid.items()},
        "exclude_nodes": list(asked.exclude_nodes),
        "upload_limit_mb": {link_label(lower): mb for lower, mb in asked.upload_limit_mb.items()},
        "time_limit": {at.label: limit for at, limit in asked.time_limit.items()},
    }
    constraints: dict[str, Any] = {key: value for key, value in written.items() if value}
    if asked.energy_limit_j is not None:
        constraints["energy_limit_j"] = asked.energy_limit_j
    uncoded = {} if plan_request.codecs else {"codecs": False}
    return {"planner": plan_request.planner, "objective": plan_request.objective, **uncoded, "constraints": constraints}
