"""The command line. Each command imports what it needs when it runs; only node, demo and profile load TensorFlow."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Protocol

import typer

from broker.errors import BrokerError
from pipeline.errors import TrisectError

app = typer.Typer(
    name="trisect",
    help="Run one deep neural network across a device, its edge and the cloud, over an MQTT broker.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="TRISECT_CONFIG", help="The pipeline's YAML file, the same on all machines."),
]
StreamOption = Annotated[str | None, typer.Option("--stream", help="The stream; may be left out if there is one.")]
DEFAULT_CONFIG = Path("configs/demo.yaml")


class Stoppable(Protocol):
    """A process's node."""

    def run(self) -> None:
        """Serve until stopped."""

    def stop(self) -> None:
        """End soon."""


def main() -> None:
    """The entry point: errors that a user can mend are shown without a traceback, with exit code 1."""
    try:
        app()
    except (TrisectError, BrokerError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def broker(
    port: Annotated[int, typer.Option(help="The port; 0 picks a free one.")] = 1883,
    host: Annotated[
        str, typer.Option(help="The address to listen on; not loopback only with passwords.")
    ] = "127.0.0.1",
    websockets_port: Annotated[int | None, typer.Option(help="A second listener, for browsers.")] = None,
    max_packet_bytes: Annotated[int, typer.Option(help="The largest message; above transport.chunk_bytes.")] = 16 << 20,
    persistence_dir: Annotated[Path | None, typer.Option(help="Keep queued and retained messages here.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="Made with mosquitto_passwd.")] = None,
) -> None:
    """Start mosquitto, set up for tensors, and wait until it answers; Ctrl-C stops it."""
    from broker.server import Server, ServerSettings

    settings = ServerSettings(
        port=port,
        host=host,
        websockets_port=websockets_port,
        max_packet_bytes=max_packet_bytes,
        persistence_dir=persistence_dir,
        password_file=password_file,
    )
    if persistence_dir is not None:
        persistence_dir.mkdir(parents=True, exist_ok=True)
    with Server(settings) as server:
        print(f"mosquitto (process {server.pid}) listens on {host}:{server.port}", flush=True)
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            while server.is_running:
                time.sleep(0.2)
        except KeyboardInterrupt:
            print("stopping")
            return
    raise BrokerError(f"mosquitto ended by itself with code {server.returncode}; see its log above")


@app.command()
def node(
    id_: Annotated[str, typer.Option("--id", help="Which node of the configuration this process is.")],
    config: ConfigOption = DEFAULT_CONFIG,
    state_dir: Annotated[Path | None, typer.Option(help="Where a device keeps what outlives it.")] = None,
) -> None:
    """Run one tier node: device, edge or cloud, as the configuration says."""
    from nodes.config import load_config
    from nodes.tier_node import TierNode
    from pipeline.plan import NodeId

    _log_to_stderr(id_)
    _serve(TierNode(load_config(config), NodeId(id_), state_dir=state_dir or _state_dir()))


@app.command()
def planner(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the planner: it turns what nodes measure into plans."""
    from nodes.config import load_config
    from nodes.planner_node import PlannerNode

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
    """Show nodes, plans, predicted beside measured seconds, and what is in flight, live."""
    signal.signal(signal.SIGTERM, _interrupt)
    from nodes import watch as view
    from nodes.config import load_config

    view.run(load_config(config), once=once or as_json, as_json=as_json, timeout_s=timeout_s)


@app.command()
def place(
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    edge_from: Annotated[str | None, typer.Option(help="The first block (name or number) on the edge.")] = None,
    cloud_from: Annotated[str | None, typer.Option(help="The first block in the cloud.")] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Hand the stream back to the planner.")] = False,
    timeout_s: Annotated[float, typer.Option(help="How long to wait until the plan is active.")] = 60.0,
) -> None:
    """Force a placement on a running pipeline, or hand it back to the planner; waits until it is active."""
    from rich.console import Console

    from nodes import requests
    from nodes.config import load_config
    from nodes.plan_view import plan_table

    if auto == bool(edge_from or cloud_from):
        raise typer.BadParameter("give --edge-from and/or --cloud-from to place by hand, or --auto alone")
    settings = load_config(config)
    name = requests.require_stream(settings, stream)
    plan = requests.place(settings, name, edge_from=edge_from, cloud_from=cloud_from, auto=auto, timeout_s=timeout_s)
    Console().print(plan_table(plan))


@app.command()
def plan(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="The plans as published, one JSON object a line.")] = False,
) -> None:
    """Show the plans that a running pipeline goes by."""
    from rich.console import Console

    from nodes import requests
    from nodes.config import load_config
    from nodes.plan_view import plan_table

    plans = requests.running_plans(load_config(config))
    for found in plans:
        if as_json:
            print(json.dumps(found, ensure_ascii=False))
        else:
            Console().print(plan_table(found))
    if not plans:
        raise requests.RequestRefused("no plan is published; are the planner and the device node running?")


@app.command()
def publish(
    files: Annotated[list[Path], typer.Argument(help="JPEG, PNG or NPY files.")],
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    rate_hz: Annotated[float | None, typer.Option(help="Frames per second; left out: at once.", min=0.001)] = None,
    timeout_s: Annotated[float, typer.Option(help="How long to wait for a result.")] = 60.0,
) -> None:
    """Publish images as frames of a stream and print the result of each, one JSON object a line."""
    from nodes import requests
    from nodes.config import load_config

    settings = load_config(config)
    name = requests.require_stream(settings, stream)
    failed = 0
    for result in requests.publish(settings, name, files, rate_hz=rate_hz, timeout_s=timeout_s):
        failed += not result["ok"]
        print(json.dumps(result, ensure_ascii=False), flush=True)
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
    from nodes.demo import run

    raise typer.Exit(run(model=model, frames=frames, json_path=json_path, directory=directory))


@app.command()
def profile(
    models: Annotated[list[str], typer.Argument(help="Models of the zoo, .keras files, or `all`: the papers' 22.")],
    directory: Annotated[Path, typer.Option("-o", "--output", help="Where the files go.")] = Path("profiles"),
    threads: Annotated[int | None, typer.Option(help="Left out: one per core.", min=1)] = None,
    repeats: Annotated[int, typer.Option(help="At most so many runs; a slow model takes fewer.", min=1)] = 10,
    engine: Annotated[str, typer.Option(help="What computes.")] = "tensorflow",
    weights: Annotated[str | None, typer.Option(help="seed:N, imagenet or a weights file.")] = None,
) -> None:
    """Measure models block by block on this machine: a JSON file and a picture for each, and a table."""
    from nodes import profile_commands

    code = profile_commands.run(
        models, directory=directory, engine=engine, threads=threads, repeats=repeats, weights=weights
    )
    raise typer.Exit(code)


@app.command()
def models(
    names: Annotated[list[str] | None, typer.Argument(help="Names of the zoo, or .keras files.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole zoo, not only both papers' networks.")] = False,
    load: Annotated[bool, typer.Option("--load", help="Load each model instead of printing what is known.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """List models: blocks, tensors, parameters, MACs, input, the largest and the narrowest tensors."""
    from nodes.model_commands import show_models

    show_models(names or [], everything=everything, load=load, as_json=as_json)


@app.command()
def verify(
    names: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Names of the zoo, or .keras files.")],
    weights: Annotated[str, typer.Option(help="seed:N, imagenet, or a weights file.")] = "seed:0",
    placements: Annotated[int, typer.Option(help="How many random placements.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of placements and of the frame.", min=0)] = 0,
    engine: Annotated[str, typer.Option(help="What runs the blocks.")] = "tensorflow",
    threads: Annotated[int, typer.Option(help="The engine's threads.", min=1)] = 1,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the outcome here.")] = None,
) -> None:
    """Cut models at random places and compare bit for bit with the unsplit model; exit code 1 if they ever differ."""
    from nodes.model_commands import run_verify

    raise typer.Exit(
        run_verify(
            names,
            weights=weights,
            placements=placements,
            seed=seed,
            engine=engine,
            threads=threads,
            json_path=json_path,
        )
    )


bench_app = typer.Typer(help="Measure what this machine can do.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")


@bench_app.command("engines")
def bench_engines(
    models: Annotated[list[str], typer.Argument(help="Models of the zoo, or .keras files.")],
    threads: Annotated[int | None, typer.Option(help="Left out: one per core.", min=1)] = None,
    weights: Annotated[str | None, typer.Option(help="seed:N, imagenet or a weights file.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the numbers here.")] = None,
) -> None:
    """Compare all installed engines: compile seconds, unsplit milliseconds, and how far answers differ."""
    from nodes import bench_commands

    raise typer.Exit(bench_commands.run(models, threads=threads, weights=weights, json_path=json_path))


def _serve(process: Stoppable) -> None:
    """Run until SIGTERM or Ctrl-C; the first one ends in order, the second at once."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        process.stop()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, _interrupt)

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, on_signal)
    process.run()


def _interrupt(number: int, frame: FrameType | None) -> Any:
    raise KeyboardInterrupt


def _log_to_stderr(name: str) -> None:
    logging.basicConfig(
        level=os.environ.get("TRISECT_LOG", "INFO").upper(),
        format=f"%(asctime)s {name} %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )


def _state_dir() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "trisect"


if __name__ == "__main__":
    main()
