"""The planners by name: each a function from graph, costs and constraints to a placement.

All are judged by the same cost, `pipeline.cost.predict`. Importing this loads neither SciPy nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from pipeline.cost import Costs
from pipeline.errors import PlanError
from pipeline.graph import ModelGraph
from pipeline.partition import baselines, exact
from pipeline.partition.constraints import NONE, Constraints
from pipeline.placement import Placement

__all__ = ["NONE", "PLANNERS", "Constraints", "Planner", "planner"]


class Planner(Protocol):
    """Chooses a placement; raises Infeasible when the constraints leave none, PlanError for unusable costs."""

    def __call__(self, graph: ModelGraph, costs: Costs, constraints: Constraints = NONE) -> Placement:
        """The placement of this planner's choice."""
        ...


PLANNERS: Mapping[str, Planner] = MappingProxyType(
    {
        "exact": exact.partition,
        "device-only": baselines.device_only,
        "edge-only": baselines.edge_only,
        "cloud-only": baselines.cloud_only,
    }
)


def planner(name: str) -> Planner:
    """The planner of this name. Raises PlanError."""
    try:
        return PLANNERS[name]
    except KeyError:
        raise PlanError(f"unknown planner {name!r}: {', '.join(PLANNERS)}") from None
