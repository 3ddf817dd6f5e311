"""The command line. Each command imports what it needs when it runs; only those that prepare models load TensorFlow."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Protocol

import typer

from broker.errors import BrokerError
from nodes.display.log import NonBlockingLog, open_standard_files
from nodes.display.text import LogFormatter, json_line, plain_lines
from pipeline import folders
from pipeline.errors import TrisectError

app = typer.Typer(
    name="trisect",
    help="Run one deep neural network across a device, its edge and the cloud, over an MQTT broker.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[
    Path,
    typer.Option(
        *("--config", "-c", "--enrolment"),
        envvar="TRISECT_CONFIG",
        help="The pipeline's YAML file, the same on all machines; or this machine's enrolment.",
    ),
]
StreamOption = Annotated[str | None, typer.Option("--stream", help="The stream; may be left out if there is one.")]
DEFAULT_CONFIG = Path("configs/demo.yaml")
ObjectiveOption = Annotated[
    str | None,
    typer.Option(help="latency, throughput, backbone, price, or weights such as latency=1,backbone=0.05."),
]
RawStaysOption = Annotated[str | None, typer.Option(help="device or edge: the input goes no further.")]
MinDepthOption = Annotated[int | None, typer.Option(help="Computing blocks before anything leaves the device.")]
PinOption = Annotated[list[str] | None, typer.Option(metavar="BLOCK=TIER", help="Must run there; may be repeated.")]
ForbidOption = Annotated[list[str] | None, typer.Option(metavar="BLOCK=TIER", help="Must not; may be repeated.")]
ExcludeOption = Annotated[list[str] | None, typer.Option(metavar="NODE", help="Gets no blocks; may be repeated.")]
UploadLimitOption = Annotated[
    list[str] | None, typer.Option(metavar="LINK=MB", help="Megabytes a frame up device_edge or edge_cloud.")
]
TimeLimitOption = Annotated[
    list[str] | None, typer.Option(metavar="TIER=LIMIT", help="Seconds a frame, or a share of all computing: 30%.")
]
InputSizeOption = Annotated[
    str, typer.Option(metavar="HxW", help="Of a .keras file that leaves its input's size open: 256x256.")
]
ImportOption = Annotated[
    list[str] | None,
    typer.Option("--import", metavar="PACKAGE", help="Registers the layers of a .keras file; may be repeated."),
]
_SCISSION = "Scission's job"
TierFilters = Annotated[
    list[str] | None, typer.Option(help="Filters of the tier; may be repeated.", rich_help_panel=_SCISSION)
]
TimeFilter = Annotated[
    str | None, typer.Option(help="At most, in seconds or as a share: 30%.", rich_help_panel=_SCISSION)
]


class Stoppable(Protocol):
    """A process's node; `is_serving` when `run` looks at what `stop` says."""

    is_serving: bool

    def run(self) -> None:
        """Serve until stopped."""

    def stop(self) -> None:
        """End soon."""


_OBJECTS_BETWEEN_COLLECTIONS = 50_000
"""Imports make few cycles: with Python's 700 the collector takes an eighth of the start."""


def main() -> None:
    """The entry point: errors that a user can fix are shown without a traceback, with exit code 1."""
    open_standard_files()
    signal.signal(signal.SIGTERM, _leave)
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    try:
        app(args=_with_json_alone(sys.argv[1:]))
    except (TrisectError, BrokerError) as error:
        print(f"error: {plain_lines(str(error))}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"trisect {version('trisect')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Run one deep neural network across a device, its edge and the cloud, over an MQTT broker."""


@app.command()
def node(
    id_: Annotated[
        str, typer.Option("--id", help="Which node of the configuration this process is; an enrolment says it.")
    ] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    tier: Annotated[
        str | None, typer.Option(help="Join with an id that the configuration lacks, on this tier.")
    ] = None,
    role: Annotated[str, typer.Option(help="With --tier edge: worker, for tiles only.")] = "",
    threads: Annotated[int | None, typer.Option(help="With --tier: threads to compute on; one per core.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where a device keeps what outlives it.")] = None,
) -> None:
    """Run one tier node: device, edge, cloud or a worker of the edge, as the configuration says."""
    from nodes.config.loader import identity_of, load_config, with_node
    from nodes.tier.node import TierNode
    from pipeline.plan import NodeId

    if tier is None and (role or threads):
        raise typer.BadParameter("--role and --threads go with --tier; a node of the configuration has its own")
    settings = load_config(config)
    id_ = identity_of(settings, id_)
    if tier is not None:
        settings = with_node(settings, NodeId(id_), {"tier": tier, "role": role, "threads": threads})
    _log_to_stderr(id_)
    _serve(TierNode(settings, NodeId(id_), state_dir=state_dir or _state_dir()))


@app.command()
def planner(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the planner: it turns what nodes measure into plans."""
    from nodes.config.loader import load_config
    from nodes.planner.node import PlannerNode

    settings = load_config(config)
    _log_to_stderr(settings.planner.id)
    _serve(PlannerNode(settings))


@app.command()
def watch(
    config: ConfigOption = DEFAULT_CONFIG,
    once: Annotated[bool, typer.Option("--once", help="Print one view and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --once: as JSON, for scripts.")] = False,
    timeout_s: Annotated[float, typer.Option(help="With --once: how long to wait for the broker and nodes.")] = 10.0,
) -> None:
    """Show nodes, plans, predicted beside measured seconds, and what is in flight, live.

    With --once, the exit code is 1 when a stream has no plan or a node of its plan is gone.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    from nodes.config.loader import load_config
    from nodes.watch import app as view

    raise typer.Exit(view.run(load_config(config), once=once or as_json, as_json=as_json, timeout_s=timeout_s))


@app.command()
def place(
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    edge_from: Annotated[str | None, typer.Option(help="The first block (name or number) on the edge.")] = None,
    cloud_from: Annotated[str | None, typer.Option(help="The first block in the cloud.")] = None,
    tiles: Annotated[str | None, typer.Option(help="A grid of tiles for --stack: 2x2, or shares as 3,5x1.")] = None,
    stack: Annotated[str | None, typer.Option(help="The blocks on the edge to share out: FROM:TO.")] = None,
    workers: Annotated[str | None, typer.Option(help="Who computes the tiles, with commas; all that can.")] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Hand the stream back to the planner.")] = False,
    timeout_s: Annotated[float, typer.Option(help="How long to wait until the plan is active.")] = 60.0,
) -> None:
    """Force a placement on a running pipeline, or hand it back to the planner; waits until it is active."""
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


@app.command()
def objective(
    objective: Annotated[
        str | None,
        typer.Argument(help="latency, throughput, backbone, price, or weights such as latency=1,backbone=0.05."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    planner: Annotated[str | None, typer.Option(help="exact, hpa, or another; default: exact.")] = None,
    raw_stays_on: RawStaysOption = None,
    min_depth: MinDepthOption = None,
    pin: PinOption = None,
    forbid: ForbidOption = None,
    exclude: ExcludeOption = None,
    upload_limit: UploadLimitOption = None,
    time_limit: TimeLimitOption = None,
    reset: Annotated[bool, typer.Option("--reset", help="Back to what the configuration asks for.")] = False,
    timeout_s: Annotated[float, typer.Option(help="How long to wait until the plan is active.")] = 60.0,
) -> None:
    """Say what a running stream is planned for: objective and constraints, all at once; waits until it is so.

    What is not given is at its default, not as it was. It holds until it is changed again, also for a planner that is
    started anew.
    """
    from nodes.cli import plan as plan_commands
    from nodes.cli.tables import plan_table
    from nodes.client import requests
    from nodes.config.loader import load_config
    from nodes.config.plan_request import as_written
    from nodes.display.screen import Screen

    plan_request = plan_commands.plan_request_of(
        objective=objective,
        planner=planner,
        raw_stays_on=raw_stays_on,
        min_depth=min_depth,
        pin=pin,
        forbid=forbid,
        exclude=exclude,
        upload_limit=upload_limit,
        time_limit=time_limit,
    )
    given = plan_request.model_fields_set - {"constraints"} or plan_request.constraints.model_fields_set
    if reset == bool(given):
        raise typer.BadParameter("give an objective and/or constraints, or --reset alone")
    settings = load_config(config)
    name = requests.require_stream(settings, stream)
    found = requests.request_plan(settings, name, None if reset else as_written(plan_request), timeout_s=timeout_s)
    Screen().print(plan_table(found))


@app.command()
def plan(
    model: Annotated[
        str | None, typer.Argument(help="Plan this model without running it; left out: show the running plans.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    nodes: Annotated[
        str | None,
        typer.Option(
            help="Nodes and links to plan for: a file, or d3-wifi, d3-4g, d3-5g, d3-optical; default: --config."
        ),
    ] = None,
    json_path: Annotated[
        str | None, typer.Option("--json", metavar="[PATH]", help="As JSON: into a file, or (last, or alone) printed.")
    ] = None,
    objective: ObjectiveOption = None,
    raw_stays_on: RawStaysOption = None,
    min_depth: MinDepthOption = None,
    pin: PinOption = None,
    forbid: ForbidOption = None,
    exclude: ExcludeOption = None,
    upload_limit: UploadLimitOption = None,
    time_limit: TimeLimitOption = None,
    map_path: Annotated[
        Path | None, typer.Option("--map", help="Write an SVG of the best kind of plan over both bandwidths.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Write SVGs into this folder: the graph by tier, and the blocks' times.")
    ] = None,
    tiles_picture: Annotated[
        Path | None, typer.Option(help="Write an SVG of the map that tile workers share, with tiles and halos.")
    ] = None,
    input_size: InputSizeOption = "",
    imports: ImportOption = None,
    profiles: Annotated[
        Path | None, typer.Option(help="Scission's job: measured systems, see above.", rich_help_panel=_SCISSION)
    ] = None,
    network: Annotated[
        Path | None, typer.Option(help="CSV: source,destination,ping(ms),bandwidth(mbps).", rich_help_panel=_SCISSION)
    ] = None,
    named: Annotated[
        str | None, typer.Option("--model", help="The model, as the profiles call it.", rich_help_panel=_SCISSION)
    ] = None,
    device: TierFilters = None,
    edge: TierFilters = None,
    cloud: TierFilters = None,
    top: Annotated[int, typer.Option(help="How many answers.", min=1, rich_help_panel=_SCISSION)] = 5,
    input_mb: Annotated[float, typer.Option(help="Megabytes of a frame.", rich_help_panel=_SCISSION)] = 0.15,
    device_upload: Annotated[float | None, typer.Option(help="At most, in MB.", rich_help_panel=_SCISSION)] = None,
    edge_upload: Annotated[float | None, typer.Option(help="At most, in MB.", rich_help_panel=_SCISSION)] = None,
    device_time: TimeFilter = None,
    edge_time: TimeFilter = None,
    cloud_time: TimeFilter = None,
) -> None:
    """Show the running plans; or plan a MODEL for given nodes and say why; or answer Scission's queries.

    Scission's job takes --profiles DIR, --network FILE and --model NAME. DIR has TIER/SYSTEM/MODEL.json as `trisect
    profile -o DIR/TIER/SYSTEM` writes them, Scission's TIER-SYSTEM.dat, or its measurements as JSON. Filters: a number
    pins that layer to the tier, !number forbids it, -1 leaves the tier unused, !-1 uses it, NAME or !NAME selects
    systems (@2500 if the name is a number). In the JSON, layers are half-open, and null for an unused tier.
    """
    if profiles is not None or network is not None or named is not None:
        if profiles is None or network is None or named is None or model is not None:
            raise typer.BadParameter("Scission's job needs --profiles, --network and --model, and no MODEL before")
        from nodes.cli import scission as scission_commands

        code = scission_commands.run(
            profiles,
            network,
            named,
            device=device,
            edge=edge,
            cloud=cloud,
            top=top,
            input_mb=input_mb,
            device_upload=device_upload,
            edge_upload=edge_upload,
            device_time=device_time,
            edge_time=edge_time,
            cloud_time=cloud_time,
            json_path=Path("/dev/stdout") if json_path == "-" else Path(json_path) if json_path else None,
        )
        raise typer.Exit(code)
    if model is not None:
        from nodes.cli import plan as plan_commands

        plan_request = plan_commands.plan_request_of(
            objective=objective,
            raw_stays_on=raw_stays_on,
            min_depth=min_depth,
            pin=pin,
            forbid=forbid,
            exclude=exclude,
            upload_limit=upload_limit,
            time_limit=time_limit,
        )
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
                input_size=input_size,
                imports=imports or (),
            )
        )
    from nodes.cli.tables import plan_table
    from nodes.client import requests
    from nodes.config.loader import load_config
    from nodes.display.screen import Screen

    plans = requests.running_plans(load_config(config))
    lines = [json_line(found) for found in plans]
    if json_path is not None and json_path != "-":
        Path(json_path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for found, line in zip(plans, lines, strict=True):
        if json_path == "-":
            print(line)
        else:
            Screen().print(plan_table(found))
    if not plans:
        raise requests.RequestRefused("no plan is published; are the planner and the device node running?")


@app.command()
def drain(
    node: Annotated[str, typer.Argument(help="An edge or cloud node.")],
    config: ConfigOption = DEFAULT_CONFIG,
    undo: Annotated[bool, typer.Option("--undo", help="Let plans use it again.")] = False,
    timeout_s: Annotated[float, typer.Option(help="How long to wait until it is empty.")] = 60.0,
) -> None:
    """Empty a node without losing a frame: plans leave it out, and when it says `drained` it may stop."""
    from nodes.client import requests
    from nodes.config.loader import load_config
    from pipeline.plan import NodeId

    requests.drain(load_config(config), NodeId(node), undo=undo, timeout_s=timeout_s)
    print(f"{node} takes part again" if undo else f"{node} is drained; it may stop")


@app.command()
def forget(
    node: Annotated[str, typer.Argument(help="A node that is gone for good.")],
    config: ConfigOption = DEFAULT_CONFIG,
    folder: Annotated[Path | None, typer.Option(help="Of `trisect init`, where nodes are enrolled.")] = None,
) -> None:
    """Clear what the broker retains of a node that is gone; refused while it lives."""
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


@app.command()
def publish(
    files: Annotated[list[Path], typer.Argument(help="JPEG, PNG or NPY files.")],
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    rate_hz: Annotated[float | None, typer.Option(help="Frames per second; left out: at once.", min=0.001)] = None,
    timeout_s: Annotated[float, typer.Option(help="How long to wait for a result.")] = 60.0,
) -> None:
    """Publish images as frames of a stream and print the result of each, one JSON object a line."""
    from nodes.client import requests
    from nodes.config.loader import load_config

    settings = load_config(config)
    name = requests.require_stream(settings, stream)
    failed = 0
    for result in requests.publish(settings, name, files, rate_hz=rate_hz, timeout_s=timeout_s):
        failed += not result["ok"]
        print(json_line(result), flush=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def demo(
    model: Annotated[str, typer.Option(help="A model of the zoo, or a .keras file.")] = "mobilenet_v2",
    frames: Annotated[int, typer.Option(help="How many photos to stream.", min=8)] = 60,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the numbers here.")] = None,
    directory: Annotated[Path | None, typer.Option(help="Keep logs, photos and configuration here.")] = None,
) -> None:
    """Start broker, planner and three nodes here, stream photos, change the plan in mid-stream, prove the results."""
    from nodes.cli.demo import run

    raise typer.Exit(run(model=model, frames=frames, json_path=json_path, directory=directory))


@app.command()
def profile(
    models: Annotated[list[str], typer.Argument(help="Models of the zoo, .keras files, or `all`: the papers' 22.")],
    directory: Annotated[Path, typer.Option("-o", "--output", help="Where the files go.")] = Path("profiles"),
    threads: Annotated[int | None, typer.Option(help="Left out: one per core.", min=1)] = None,
    repeats: Annotated[int, typer.Option(help="At most so many runs; a slow model takes fewer.", min=1)] = 10,
    engine: Annotated[str, typer.Option(help="What computes: litert or tensorflow.")] = "litert",
    weights: Annotated[str | None, typer.Option(help="seed:N, imagenet or a weights file.")] = None,
    input_size: InputSizeOption = "",
    imports: ImportOption = None,
) -> None:
    """Measure models block by block on this machine: a JSON file and a picture for each, and a table."""
    from nodes.cli import profile as profile_commands

    code = profile_commands.run(
        models,
        directory=directory,
        engine=engine,
        threads=threads,
        repeats=repeats,
        weights=weights,
        input_size=input_size,
        imports=imports or (),
    )
    raise typer.Exit(code)


@app.command()
def models(
    names: Annotated[list[str] | None, typer.Argument(help="Names of the zoo, or .keras files.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole zoo, not only both papers' networks.")] = False,
    load: Annotated[bool, typer.Option("--load", help="Load each model instead of printing what is known.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
    input_size: InputSizeOption = "",
    imports: ImportOption = None,
) -> None:
    """List models: blocks, tensors, parameters, MACs, input, the largest and the narrowest tensors."""
    from nodes.cli.models import show_models

    show_models(
        names or [], everything=everything, load=load, as_json=as_json, input_size=input_size, imports=imports or ()
    )


@app.command()
def verify(
    names: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Names of the zoo, or .keras files.")],
    weights: Annotated[str, typer.Option(help="seed:N, imagenet, or a weights file.")] = "seed:0",
    placements: Annotated[int, typer.Option(help="How many random placements, or stacks of blocks.", min=1)] = 20,
    tiles: Annotated[
        list[str] | None,
        typer.Option(
            help="Cut stacks into tiles, not models: rows x columns, 2x2, or shares, 3,5,8x1. May be repeated."
        ),
    ] = None,
    stack: Annotated[
        str | None, typer.Option(metavar="FROM:TO", help="Tile only this one: its first and last block, both in it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of placements, stacks and of the frame.", min=0)] = 0,
    engine: Annotated[str, typer.Option(help="What runs the blocks: litert or tensorflow.")] = "litert",
    threads: Annotated[int, typer.Option(help="The engine's threads.", min=1)] = 1,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the outcome here.")] = None,
    fingerprint: Annotated[
        bool, typer.Option("--fingerprint", help="Only print a hash of the answers to seeded frames.")
    ] = False,
    frames: Annotated[int, typer.Option(help="Of --fingerprint: equal hashes need equal numbers.", min=1)] = 8,
    exact: Annotated[str, typer.Option(help="everywhere (the same bits on x86 and ARM) or machine.")] = "everywhere",
    input_size: InputSizeOption = "",
    imports: ImportOption = None,
) -> None:
    """Cut models at random places and compare bit for bit with the unsplit model; exit code 1 if they ever differ."""
    from nodes.cli.models import run_fingerprint, run_verify

    if fingerprint:
        raise typer.Exit(
            run_fingerprint(
                names,
                weights=weights,
                engine=engine,
                threads=threads,
                exact=exact,
                frames=frames,
                input_size=input_size,
                imports=imports or (),
            )
        )
    raise typer.Exit(
        run_verify(
            names,
            weights=weights,
            placements=placements,
            seed=seed,
            engine=engine,
            threads=threads,
            json_path=json_path,
            tiles=tiles or (),
            stack=stack,
            exact=exact,
            input_size=input_size,
            imports=imports or (),
        )
    )


@app.command()
def pack(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name of the zoo, or a .keras file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The package to write: FILE.trisect.")],
    weights: Annotated[str, typer.Option(help="seed:N, imagenet, or a weights file.")] = "seed:0",
    input_size: InputSizeOption = "",
    imports: ImportOption = None,
) -> None:
    """Write a model into one file, which nodes load without TensorFlow. Takes TensorFlow, once."""
    from nodes.cli.models import run_pack

    raise typer.Exit(run_pack(model, output, weights=weights, input_size=input_size, imports=imports or ()))


bench_app = typer.Typer(help="Measure what this machine can do.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")


@bench_app.command("engines")
def bench_engines(
    models: Annotated[list[str], typer.Argument(help="Models of the zoo, or .keras files.")],
    threads: Annotated[int | None, typer.Option(help="Left out: one per core.", min=1)] = None,
    weights: Annotated[str | None, typer.Option(help="seed:N, imagenet or a weights file.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the numbers here.")] = None,
    input_size: InputSizeOption = "",
    imports: ImportOption = None,
) -> None:
    """Compare all installed engines: compile seconds, unsplit milliseconds, and how far answers differ."""
    from nodes.cli import bench as bench_commands

    raise typer.Exit(
        bench_commands.run(
            models, threads=threads, weights=weights, json_path=json_path, input_size=input_size, imports=imports or ()
        )
    )


def _register() -> None:
    """Commands that stand in modules of their own."""
    from nodes.cli import broker as broker_commands
    from nodes.cli import enrol, supervise

    app.add_typer(broker_commands.app, name="broker")
    enrol.register(app)
    supervise.register(app)


_register()


def _with_json_alone(arguments: list[str]) -> list[str]:
    """`plan --json` without a path prints; typer knows no options whose value may be left out."""
    if arguments[:1] != ["plan"] or "--json" not in arguments:
        return arguments
    at = arguments.index("--json") + 1
    alone = at == len(arguments) or (arguments[at].startswith("-") and arguments[at] != "-")
    return [*arguments[:at], "-", *arguments[at:]] if alone else arguments


def _serve(process: Stoppable) -> None:
    """Run until SIGTERM or Ctrl-C; the first one ends in order, the second at once.

    What it writes (journals with photos, caches) is for its user only.
    """
    os.umask(0o077)

    def on_signal(number: int, frame: FrameType | None) -> None:
        process.stop()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, _interrupt)
        if not process.is_serving:  # it loads, or waits for the broker: what it began is undone on the way out
            raise SystemExit(0)

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, on_signal)
    process.run()


def _leave(number: int, frame: FrameType | None) -> Any:
    """End in order, also while modules are imported: 143, as a shell says it."""
    raise SystemExit(128 + number)


def _interrupt(number: int, frame: FrameType | None) -> Any:
    raise KeyboardInterrupt


def _log_to_stderr(name: str) -> None:
    handler = NonBlockingLog()
    handler.setFormatter(LogFormatter(f"%(asctime)s {name} %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=os.environ.get("TRISECT_LOG", "INFO").upper(), handlers=[handler])


def _state_dir() -> Path:
    return folders.state()
