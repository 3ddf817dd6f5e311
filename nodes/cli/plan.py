"""`trisect plan MODEL`: plan for a configuration's nodes without running anything, and say why.

Needs no TensorFlow for networks of the zoo.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nodes.cli import front as front_commands
from nodes.cli.explanation import explanation
from nodes.cli.options import STDOUT
from nodes.config.model_settings import source_of as configured_source
from nodes.config.plan_request import PlanRequest, constraints_of, read_plan_request
from nodes.config.sections import Config
from nodes.display.screen import Screen, wide_screen
from nodes.planner import offline
from pipeline.errors import ConfigError, PlanError
from pipeline.frames.input_blocks import with_input
from pipeline.graph import ModelGraph
from pipeline.models import ModelSource
from pipeline.models.graphs import graph_of
from pipeline.models.source import named
from pipeline.partition.constraints import Constraint
from pipeline.partition.explain import Explanation, decision_map, explain
from pipeline.partition.front import measures
from pipeline.partition.objective import Objective
from pipeline.partition.priced_plan import NodeSet, PricedPlan

_MAP_SIDE = 25
_MAP_FACTOR = 100.0
_MAP_TRIED = 10
"""Plans after which a map says how long the others will take."""
"""The map reaches from this much less than the present bandwidths to this much more."""


def run(
    model: str,
    nodes: str,
    plan_request: PlanRequest,
    *,
    json_path: str | None = None,
    map_path: Path | None = None,
    pictures: Path | None = None,
    tiles_picture: Path | None = None,
    front: str | None = None,
    input_size: str = "",
    imports: Sequence[str] = (),
) -> int:
    """Plan, and print or write what was asked for; the exit code. Raises TrisectError, BrokerError."""
    config = offline.find_config(nodes)
    graph = with_input(graph_of(source_of(model, config, input_size, imports)))
    measured = measures(front) if front is not None else None
    by_energy = measured is not None and "energy" in measured
    try:
        config.check_objective(PlanRequest(objective="energy") if by_energy else plan_request, model)
    except ValueError as error:
        raise ConfigError(f"{nodes}: {error}") from error
    constraints, objective = constraints_of(graph, plan_request.constraints), plan_request.parsed_objective()
    node_sets = offline.node_sets(config, graph, plan_request.constraints.exclude_nodes)
    if measured is not None:
        front_commands.run(graph, node_sets, constraints, measured, json_path=json_path, pictures=pictures)
        return 0
    console = wide_screen(stderr=json_path == STDOUT)
    with console.status("plan") as status:
        found = explain(graph, node_sets, constraints, objective, progress=status.update)
    predicted = found.best.predicted.within(offline.deviation(config, found.best))
    found = replace(found, best=replace(found.best, predicted=predicted))
    _show(graph, found, json_path, console)
    if pictures is not None:
        _write_pictures(graph, found.best, pictures, console)
    if tiles_picture is not None:
        _write_tiles(graph, found.best, tiles_picture, console)
    if map_path is not None:
        here = found.best.costs.device_edge.bandwidth_bytes_per_s, found.best.costs.edge_cloud.bandwidth_bytes_per_s
        map_path.write_text(_map(graph, node_sets, constraints, objective, here, console), encoding="utf-8")
        console.print(f"{map_path} written", highlight=False)
    return 0


def _show(graph: ModelGraph, found: Explanation, json_path: str | None, console: Screen) -> None:
    is_plain = json_path == STDOUT
    if json_path is not None:
        text = json.dumps(found.to_json(graph), indent=1) + "\n"
        if is_plain:
            print(text, end="")
        else:
            Path(json_path).write_text(text, encoding="utf-8")
    if not is_plain:
        for part in explanation(graph, found):
            console.print(part, highlight=False)


def _write_pictures(graph: ModelGraph, best: PricedPlan, folder: Path, console: Screen) -> None:
    from pipeline.pictures import placement_bars, placement_graph

    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in (
        ("graph", placement_graph(graph, best.placement, best.predicted)),
        ("bars", placement_bars(graph, best.placement, best.costs)),
    ):
        path = folder / f"{graph.name}-{name}.svg"
        path.write_text(picture, encoding="utf-8")
        console.print(f"{path} written", highlight=False)


def _write_tiles(graph: ModelGraph, best: PricedPlan, path: Path, console: Screen) -> None:
    from pipeline.pictures import tile_picture

    if best.tiling is None or best.predicted.tiles is None:
        raise PlanError(
            f"the best plan for {graph.name!r} has no tiles to draw: it needs nodes of role worker, and a stack "
            "that they compute faster than the edge node alone"
        )
    path.write_text(tile_picture(graph, best.tiling, best.predicted.tiles), encoding="utf-8")
    console.print(f"{path} written", highlight=False)


def source_of(model: str, config: Config, input_size: str = "", imports: Sequence[str] = ()) -> ModelSource:
    """A model of the configuration, of the zoo, or a file."""
    if model in config.models:
        return configured_source(model, config.models[model])
    return named(model, None, input_size, imports)


def plan_request_of(
    *,
    objective: str | None,
    planner: str | None = None,
    raw_stays_on: str | None,
    min_depth: int | None,
    pin: Sequence[str] | None,
    forbid: Sequence[str] | None,
    exclude: Sequence[str] | None,
    upload_limit: Sequence[str] | None,
    time_limit: Sequence[str] | None,
    energy_limit: float | None = None,
) -> PlanRequest:
    """The plan request of a command line's options. Raises ConfigError, which names the option."""
    forbidden: dict[str, list[str]] = {}
    for block, tier in _pairs("--forbid", forbid):
        forbidden.setdefault(block, []).append(tier)
    constraints: dict[str, Any] = {
        "raw_stays_on": raw_stays_on,
        "min_depth": min_depth,
        "pin": _unique("--pin", pin),
        "forbid": forbidden,
        "exclude_nodes": list(exclude or ()),
        "upload_limit_mb": {
            link: _number("--upload-limit", mb) for link, mb in _unique("--upload-limit", upload_limit).items()
        },
        "time_limit": _unique("--time-limit", time_limit),
    }
    asked: dict[str, Any] = {"constraints": {key: value for key, value in constraints.items() if value}}
    if energy_limit is not None:
        asked["constraints"]["energy_limit_j"] = energy_limit
    asked |= {key: value for key, value in (("objective", objective), ("planner", planner)) if value is not None}
    return read_plan_request(asked)


def _pairs(option: str, given: Sequence[str] | None) -> list[tuple[str, str]]:
    found = []
    for text in given or ():
        name, equals, value = text.rpartition("=")
        if not equals or not name or not value:
            raise ConfigError(f"{option} {text!r}: give NAME=VALUE")
        found.append((name, value))
    return found


def _unique(option: str, given: Sequence[str] | None) -> dict[str, str]:
    pairs = _pairs(option, given)
    for name in dict(pairs):
        others = sorted({other for same, other in pairs if same == name})
        if len(others) > 1:
            raise ConfigError(f"{option}: {name} is given as {' and as '.join(others)}; keep one")
    return dict(pairs)


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{option}: {text!r} is no number of megabytes") from None


def _map(
    graph: ModelGraph,
    node_sets: Sequence[NodeSet],
    constraints: Sequence[Constraint],
    objective: Objective,
    here: tuple[float, float],
    console: Screen,
) -> str:
    from pipeline.pictures import heat_map

    steps = [_MAP_FACTOR ** (2 * i / (_MAP_SIDE - 1) - 1) for i in range(_MAP_SIDE)]
    device_edge, edge_cloud = ([rate * step for step in steps] for rate in here)
    columns = (TextColumn("map"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    began, done, total = time.monotonic(), 0, _MAP_SIDE**2
    console.print(f"map: {total} plans, for {_MAP_SIDE} bandwidths of each link", style="dim")

    def advance() -> None:
        nonlocal done
        done += 1
        progress.advance(task)
        if done == _MAP_TRIED:  # on the way from a slow to a fast line no plan is much harder than another
            left_s = (time.monotonic() - began) / done * (total - done)
            console.print(f"map: about {left_s:.0f} s more", style="dim", highlight=False)

    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        kinds, values = decision_map(
            graph,
            node_sets,
            constraints,
            objective,
            device_edge,
            edge_cloud,
            progress=advance,
        )
    title = f"{graph.name}: best plan for {objective}"
    return heat_map(
        title=title,
        device_edge=device_edge,
        edge_cloud=edge_cloud,
        kinds=kinds,
        values=values,
        here=here,
        value_text=objective.text,
    )
