"""The planners by name: each a function from graph, costs, constraints and objective to a placement.

All are judged by the same cost, `pipeline.cost.predict`. Importing this loads neither SciPy nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from pipeline.cost import Costs
from pipeline.errors import PlanError
from pipeline.graph import ModelGraph
from pipeline.partition import baselines, exact, hpa
from pipeline.partition.constraints import Constraint
from pipeline.partition.objective import LATENCY, Objective
from pipeline.placement import Placement

__all__ = ["LATENCY", "PLANNERS", "Constraint", "Objective", "Planner", "planner"]


class Planner(Protocol):
    """Chooses a placement; raises Infeasible when the constraints leave none, PlanError for unusable costs.

    HPA and DADS have an objective of their own, whatever they are asked for.
    """

    def __call__(
        self, graph: ModelGraph, costs: Costs, constraints: Sequence[Constraint] = (), objective: Objective = LATENCY
    ) -> Placement:
        """The placement of this planner's choice."""
        ...


PLANNERS: Mapping[str, Planner] = MappingProxyType(
    {
        "exact": exact.partition,
        "hpa": hpa.partition,
        "neurosurgeon": baselines.neurosurgeon,
        "dads-light": baselines.dads_light,
        "dads-heavy": baselines.dads_heavy,
        "scission": baselines.scission,
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
