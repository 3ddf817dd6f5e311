"""`trisect plan MODEL --front A,B`: the plans of which none is better by one measure without being worse by another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from nodes.cli.options import STDOUT
from nodes.display.screen import wide_screen
from pipeline.graph import ModelGraph
from pipeline.partition.constraints import Constraint
from pipeline.partition.explain import kind_of, priced_plan_json
from pipeline.partition.front import MEASURES, front
from pipeline.partition.priced_plan import NodeSet, PricedPlan


def run(
    graph: ModelGraph,
    node_sets: Sequence[NodeSet],
    constraints: Sequence[Constraint],
    names: tuple[str, str],
    *,
    json_path: str | None = None,
    pictures: Path | None = None,
) -> None:
    """Find the front by these two measures, and print or write it. Raises Infeasible."""
    console = wide_screen(stderr=json_path == STDOUT)
    with console.status("plan") as status:
        plans = front(graph, node_sets, names, constraints, progress=lambda found: status.update(f"{found} plans"))
    if json_path is not None:
        text = json.dumps(_as_json(graph, names, plans), indent=1) + "\n"
        if json_path == STDOUT:
            print(text, end="")
        else:
            Path(json_path).write_text(text, encoding="utf-8")
    if json_path != STDOUT:
        console.print(_table(graph, names, plans), highlight=False)
    if pictures is not None:
        from pipeline.pictures import FrontPoint, front_picture

        points = [FrontPoint(kind_of(graph, plan.placement), *_values(names, plan)) for plan in plans]
        pictures.mkdir(parents=True, exist_ok=True)
        path = pictures / f"{graph.name}-front.svg"
        title = f"{graph.name}: plans by {names[0]} and {names[1]}"
        path.write_text(front_picture(points, _heading(names[0]), _heading(names[1]), title), encoding="utf-8")
        console.print(f"{path} written", highlight=False)


def _values(names: tuple[str, str], plan: PricedPlan) -> tuple[float, float]:
    return MEASURES[names[0]].of(plan.predicted), MEASURES[names[1]].of(plan.predicted)


def _heading(name: str) -> str:
    return f"{name}, {MEASURES[name].unit}" if MEASURES[name].unit else name


def _as_json(graph: ModelGraph, names: tuple[str, str], plans: Sequence[PricedPlan]) -> dict[str, Any]:
    return {
        "model": graph.name,
        "measures": [{"name": name, "unit": MEASURES[name].unit} for name in names],
        "front": [
            dict(zip(names, _values(names, plan), strict=True)) | {"plan": priced_plan_json(graph, plan)}
            for plan in plans
        ],
    }


def _table(graph: ModelGraph, names: tuple[str, str], plans: Sequence[PricedPlan]) -> Table:
    table = Table(title=f"{graph.name}: plans by {names[0]} and {names[1]}, none better by both", title_justify="left")
    for name in names:
        table.add_column(_heading(name), justify="right")
    for heading in ("runs on", "nodes"):
        table.add_column(heading)
    for plan in plans:
        first, second = _values(names, plan)
        tiled = " with tiles" if plan.tiling else ""
        table.add_row(
            f"{first:.4g}", f"{second:.4g}", kind_of(graph, plan.placement) + tiled, ", ".join(plan.nodes.values())
        )
    return table
