"""Commands for a pipeline that runs: its plans, its frames, its nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from nodes.cli.options import (
    DEFAULT_CONFIG,
    NO_CONSTRAINTS,
    STDOUT,
    ConfigOption,
    Constraints,
    ImportOption,
    InputSizeOption,
    JsonFile,
    JsonFlag,
    ObjectiveOption,
    StreamOption,
    TimeoutOption,
    json_target,
    output_file,
    with_constraints,
)
from nodes.cli.signals import stopped_by_signals
from nodes.display.text import json_line


def trace(
    stream: Annotated[
        str | None, typer.Argument(metavar="STREAM", help="The stream; may be left out if there is one.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.", callback=output_file)] = Path(
        "trace.json"
    ),
    config: ConfigOption = DEFAULT_CONFIG,
    frames: Annotated[int, typer.Option(min=1, max=100_000, help="How many frames to wait for.")] = 100,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="How long to wait for them.")] = 30.0,
) -> None:
    """Trace a running stream's next frames into a file for ui.perfetto.dev or chrome://tracing."""
    from nodes.client import requests
    from nodes.config.loader import load_config
    from nodes.instruments import chrome_trace

    settings = load_config(config)
    found = chrome_trace.trace(settings, requests.require_stream(settings, stream), frames=frames, timeout_s=timeout_s)
    chrome_trace.write_json(found, output)
    print(f"{len(found)} frames, {sum(len(frame.spans) for frame in found)} spans: {output}")


def topics(
    asyncapi: Annotated[bool, typer.Option("--asyncapi", help="As an AsyncAPI 3 document in JSON.")] = False,
) -> None:
    """Print a pipeline's topics with their messages, writers and readers."""
    from nodes.display.screen import Screen
    from nodes.instruments import asyncapi as documents

    if asyncapi:
        print(json.dumps(documents.document(), indent=2))
    else:
        Screen().print(documents.table())


def record(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.", callback=output_file)] = Path(
        "pipeline.recording"
    ),
    config: ConfigOption = DEFAULT_CONFIG,
    frames: Annotated[
        bool, typer.Option("--frames", help="Also keep frames and output tensors, which may show people.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Stop after this many seconds; default: at Ctrl-C.")
    ] = None,
    most_mb: Annotated[float, typer.Option(min=0.1, help="Stop when the file has this many megabytes.")] = 1000.0,
) -> None:
    """Record a running pipeline's messages, for a bug report or a test; `trisect replay` plays them."""
    from nodes.config.loader import load_config
    from nodes.instruments.record import Recorder, configuration_of

    recorder = Recorder(load_config(config), configuration_of(config), frames=frames)
    with stopped_by_signals(recorder.stop):
        kept = recorder.run(output, seconds=seconds, most_bytes=int(most_mb * 1e6))
    total = sum(kept.messages.values())
    print(f"{total:,} messages of {kept.seconds:,.1f} s in {kept.nbytes / 1e6:,.2f} MB: {output}")
    print(", ".join(f"{count:,} {name}" for name, count in sorted(kept.messages.items())))
    if kept.is_full:
        print(f"ended at {most_mb:g} MB; --most-mb allows more")


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file written by `trisect record`.")],
    speed: Annotated[float, typer.Option(min=0.01, max=1e6, help="How many times as fast as recorded.")] = 1.0,
    replan: Annotated[
        bool, typer.Option("--replan", help="Leave the recorded plans out: start `trisect planner` to see its own.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The broker's port on loopback; 0 picks a free one.")] = 0,
    websockets_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="A second port of the broker, for a page in a browser.")
    ] = None,
    directory: Annotated[Path | None, typer.Option(help="The folder for the configuration to watch it with.")] = None,
    hold: Annotated[bool, typer.Option(help="Keep the broker running after the last message, until Ctrl-C.")] = True,
) -> None:
    """Play a recording on a broker of its own, for `trisect watch`, `trisect web` or a planner."""
    from nodes.instruments.replay import run

    with stopped_by_signals() as stopped:
        played = run(
            file,
            speed=speed,
            replan=replan,
            port=port,
            websockets_port=websockets_port,
            directory=directory,
            hold=hold,
            stopped=stopped,
        )
    cut = "; the file was cut off there" if played.is_cut else ""
    print(f"{sum(played.messages.values()):,} messages of {played.seconds:,.1f} s, {played.left_out:,} left out{cut}")


def place(
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    edge_from: Annotated[str | None, typer.Option(help="The first block (name or number) on the edge.")] = None,
    cloud_from: Annotated[str | None, typer.Option(help="The first block in the cloud.")] = None,
    tiles: Annotated[str | None, typer.Option(help="A grid of tiles for --stack: 2x2, or shares as 3,5x1.")] = None,
    stack: Annotated[
        str | None, typer.Option(help="The stack of blocks on the edge to compute in tiles: FROM:TO.")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(help="Nodes that compute the tiles, with commas; default: all that can.")
    ] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Hand the stream back to the planner.")] = False,
    timeout_s: TimeoutOption = 60.0,
) -> None:
    """Place a running stream's blocks by hand, or hand it back to the planner; waits until the plan is active."""
    from nodes.cli.tables import plan_table
    from nodes.client import requests
    from nodes.config.loader import load_config
    from nodes.display.screen import Screen

    if auto == bool(edge_from or cloud_from):
        raise typer.BadParameter("give --edge-from and/or --cloud-from to place by hand, or --auto alone")
    if (tiles is None) != (stack is None) or (workers is not None and tiles is None):
        raise typer.BadParameter("give --tiles and --stack together, and --workers only with them")
    settings = load_config(config)
    name = requests.require_stream(settings, stream)
    named = workers.split(",") if workers else []
    plan = requests.place(
        settings,
        name,
        edge_from=edge_from,
        cloud_from=cloud_from,
        auto=auto,
        tiles={"grid": tiles, "stack": stack, "workers": named} if tiles else None,
        timeout_s=timeout_s,
    )
    Screen().print(plan_table(plan))


@with_constraints
def objective(
    objective: Annotated[
        str | None,
        typer.Argument(
            help="latency, throughput, backbone, price, energy, or weights such as latency=1,backbone=0.05."
        ),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    planner: Annotated[str | None, typer.Option(help="exact, hpa, or another; default: exact.")] = None,
    constraints: Constraints = NO_CONSTRAINTS,
    reset: Annotated[bool, typer.Option("--reset", help="Return to what the configuration asks for.")] = False,
    timeout_s: TimeoutOption = 60.0,
) -> None:
    """Set the objective and constraints of a running stream, all at once; waits until the plan is active.

    Options that are left out take their defaults, not their present values. The setting holds until it is changed
    again, also after the planner has restarted.
    """
    from nodes.cli import plan as plan_commands
    from nodes.cli.tables import plan_table
    from nodes.client import requests
    from nodes.config.loader import load_config
    from nodes.config.plan_request import as_written
    from nodes.display.screen import Screen

    plan_request = plan_commands.plan_request_of(objective=objective, planner=planner, **constraints)
    given = plan_request.model_fields_set - {"constraints"} or plan_request.constraints.model_fields_set
    if reset == bool(given):
        raise typer.BadParameter("give an objective and/or constraints, or --reset alone")
    settings = load_config(config)
    name = requests.require_stream(settings, stream)
    found = requests.request_plan(settings, name, None if reset else as_written(plan_request), timeout_s=timeout_s)
    Screen().print(plan_table(found))


@with_constraints
def plan(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Plan this model without running it; default: show running plans."),
    ] = None,
    file: JsonFile = None,
    config: ConfigOption = DEFAULT_CONFIG,
    nodes: Annotated[
        str | None,
        typer.Option(
            help="Nodes and links to plan for: a file, or d3-wifi, d3-4g, d3-5g, d3-optical; default: --config."
        ),
    ] = None,
    as_json: JsonFlag = False,
    objective: ObjectiveOption = None,
    constraints: Constraints = NO_CONSTRAINTS,
    map_path: Annotated[
        Path | None,
        typer.Option("--map", help="Write an SVG of the best kind of plan over both bandwidths.", callback=output_file),
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Write SVGs into this folder: the graph by tier, and the blocks' times.")
    ] = None,
    tiles_picture: Annotated[
        Path | None,
        typer.Option(
            help="Write an SVG of the map that tile workers share, with tiles and halos.", callback=output_file
        ),
    ] = None,
    front: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Show the Pareto front of two of latency, throughput, backbone, energy and price."
        ),
    ] = None,
    input_size: InputSizeOption = "",
    imports: ImportOption = None,
) -> None:
    """Show the running plans; or plan MODEL for given nodes, without running it, and explain the plan."""
    if model == STDOUT:
        model, file = None, STDOUT
    json_path = json_target(as_json, file)
    if model is not None:
        from nodes.cli import plan as plan_commands

        plan_request = plan_commands.plan_request_of(objective=objective, **constraints)
        where = nodes or str(config)
        raise typer.Exit(
            plan_commands.run(
                model,
                where,
                plan_request,
                json_path=json_path,
                map_path=map_path,
                pictures=pictures,
                tiles_picture=tiles_picture,
                front=front,
                input_size=input_size,
                imports=imports or (),
            )
        )
    _refuse_without_model(
        {
            "--nodes": nodes,
            "--objective": objective,
            "--map": map_path,
            "--pictures": pictures,
            "--tiles-picture": tiles_picture,
            "--front": front,
            "--input-size": input_size,
            "--import": imports,
            **{f"--{name.replace('_', '-')}": value for name, value in constraints.items()},
        }
    )
    _show_running(config, json_path)


def _refuse_without_model(given: Mapping[str, object]) -> None:
    """Raise BadParameter for options, by name, that say something about a plan for a MODEL."""
    if unused := [name for name, value in given.items() if value]:
        raise typer.BadParameter(f"{', '.join(unused)}: only with MODEL; without it, running plans are shown")


def _show_running(config: Path, json_path: str | None) -> None:
    """Print the running plans as tables, or as JSON lines to stdout or into a file."""
    from nodes.cli.tables import plan_table
    from nodes.client import requests
    from nodes.config.loader import load_config
    from nodes.display.screen import Screen

    plans = requests.running_plans(load_config(config))
    lines = [json_line(found) for found in plans]
    if json_path is not None and json_path != STDOUT:
        Path(json_path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for found, line in zip(plans, lines, strict=True):
        if json_path == STDOUT:
            print(line)
        else:
            Screen().print(plan_table(found))
    if not plans:
        raise requests.RequestRefused("no plan is published; are the planner and the device node running?")


def drain(
    node: Annotated[str, typer.Argument(help="An edge or cloud node.")],
    config: ConfigOption = DEFAULT_CONFIG,
    undo: Annotated[bool, typer.Option("--undo", help="Let plans use it again.")] = False,
    timeout_s: TimeoutOption = 60.0,
) -> None:
    """Take a node out of all plans without losing a frame; once it says `drained`, it may be stopped."""
    from nodes.client import requests
    from nodes.config.loader import load_config
    from pipeline.plan import NodeId

    requests.drain(load_config(config), NodeId(node), undo=undo, timeout_s=timeout_s)
    print(f"{node} takes part again" if undo else f"{node} is drained; it may stop")


def forget(
    node: Annotated[str, typer.Argument(help="A node that is gone for good.")],
    config: ConfigOption = DEFAULT_CONFIG,
    folder: Annotated[Path | None, typer.Option(help="The folder of `trisect init`, where nodes are enrolled.")] = None,
) -> None:
    """Clear what the broker retains of a node that is gone; refused while the node is alive."""
    from nodes.client import requests
    from nodes.config.loader import load_config
    from pipeline.plan import NodeId

    if folder is not None:
        from nodes.enrolment.folder import PipelineFolder

        settings = PipelineFolder(folder).config_as(node)
    else:
        settings = load_config(config)
    cleared = requests.forget(settings, NodeId(node))
    print(f"{node} is forgotten: {len(cleared)} topics cleared")


def publish(
    files: Annotated[list[Path], typer.Argument(help="JPEG, PNG or NPY files.")],
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    rate_hz: Annotated[
        float | None, typer.Option(help="Frames per second; default: as fast as possible.", min=0.001)
    ] = None,
    timeout_s: TimeoutOption = 60.0,
) -> None:
    """Publish images as frames of a stream and print the result of each, one JSON object a line."""
    from nodes.client import publishing, requests
    from nodes.config.loader import load_config

    settings = load_config(config)
    name = requests.require_stream(settings, stream)
    failed = 0
    for result in publishing.publish(settings, name, files, rate_hz=rate_hz, timeout_s=timeout_s):
        failed += not result["ok"]
        print(json_line(result), flush=True)
    if failed:
        raise typer.Exit(1)
