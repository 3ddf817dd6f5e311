"""Commands that start the processes of a pipeline: nodes, planner, the view of them, and the demo."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from nodes.cli.options import DEFAULT_CONFIG, ConfigOption, ReportOption
from nodes.display.log import NonBlockingLog
from nodes.display.text import LogFormatter, plain
from pipeline import folders
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from nodes.config.sections import Config
    from nodes.session.presence import IdCheck
    from pipeline.plan import NodeId


class Stoppable(Protocol):
    """A process's node; `is_serving` when `run` looks at what `stop` says."""

    is_serving: bool

    def run(self) -> None:
        """Serve until stopped."""

    def stop(self, why: str = "") -> None:
        """End soon, and say why."""


def node(
    id_: Annotated[str, typer.Option("--id", help="The node's id in the configuration; an enrolment has it.")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    tier: Annotated[
        str | None, typer.Option(help="Join on this tier, with an id that the configuration does not have.")
    ] = None,
    role: Annotated[str, typer.Option(help="With --tier edge: worker, for tiles only.")] = "",
    threads: Annotated[
        int | None, typer.Option(help="With --tier: threads to compute on; default: one per core.")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="The folder for state that a device keeps over restarts.")
    ] = None,
) -> None:
    """Run one tier node: device, edge, cloud or a worker of the edge, as the configuration says."""
    from nodes.config.loader import identity_of, load_config, require_node, with_node
    from pipeline.plan import NodeId

    if tier is None and (role or threads):
        raise typer.BadParameter("--role and --threads go with --tier; a node of the configuration has its own")
    settings = load_config(config)
    id_ = identity_of(settings, id_)
    if tier is not None:
        settings = with_node(settings, NodeId(id_), {"tier": tier, "role": role, "threads": threads})
    require_node(settings, NodeId(id_))  # before a broker is asked for it
    _log_to_stderr(id_)
    check = _check_id(settings, NodeId(id_))
    from nodes.tier.node import TierNode

    _serve(TierNode(settings, NodeId(id_), state_dir=state_dir or folders.state(), check=check))


def planner(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the planner, which makes plans of what nodes measure."""
    from nodes.config.loader import load_config

    settings = load_config(config)
    _log_to_stderr(settings.planner.id)
    check = _check_id(settings, settings.planner.id)
    from nodes.planner.node import PlannerNode

    _serve(PlannerNode(settings, check=check))


def watch(
    config: ConfigOption = DEFAULT_CONFIG,
    once: Annotated[bool, typer.Option("--once", help="Print one view and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --once: as JSON, for scripts.")] = False,
    timeout_s: Annotated[float, typer.Option(help="With --once: how long to wait for the broker and nodes.")] = 10.0,
) -> None:
    """Show nodes, plans, predicted and measured seconds, and frames in flight, live.

    With --once the exit code is 1 when a node of the configuration is not there or a stream does not run.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    from nodes.config.loader import load_config
    from nodes.watch import app as view

    problems = view.run(load_config(config), once=once or as_json, as_json=as_json, timeout_s=timeout_s)
    for problem in problems:
        print(f"problem: {plain(problem)}", file=sys.stderr)
    if problems:
        raise typer.Exit(1)


def metrics(
    config: ConfigOption = DEFAULT_CONFIG,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to serve on; 0 picks a free one.")] = 9464,
    host: Annotated[str, typer.Option(help="The address to answer on; 0.0.0.0 for all of them.")] = "127.0.0.1",
) -> None:
    """Serve the telemetry of all nodes to Prometheus, on /metrics."""
    from nodes.config.instruments import MetricsSection
    from nodes.config.loader import load_config
    from nodes.instruments.listening import MetricsListener

    settings = load_config(config)
    _log_to_stderr("metrics")
    _serve(MetricsListener(settings, MetricsSection(port=port, host=host)))


def demo(
    model: Annotated[
        str | None,
        typer.Option(
            help="A model of the zoo, a .keras file, a package; default: mobilenet_v2, without TensorFlow a small one."
        ),
    ] = None,
    frames: Annotated[int, typer.Option(help="How many photos to stream.", min=8)] = 60,
    json_path: ReportOption = None,
    directory: Annotated[Path | None, typer.Option(help="Keep logs, photos and configuration here.")] = None,
) -> None:
    """Run a whole pipeline here: stream photos, change the plan in mid-stream, verify every result."""
    from nodes.cli.demo import run

    raise typer.Exit(run(model=model, frames=frames, json_path=json_path, directory=directory))


def _check_id(config: Config, node: NodeId) -> IdCheck:
    """Ask the broker whether the id is free while the rest is imported: it takes a third of a second either way."""
    from broker.topics import Namespace
    from nodes.session.presence import IdCheck

    streams = [name for name, section in config.streams.items() if section.device == node]
    return IdCheck(config, Namespace(config.pipeline), node, streams)


def _serve(process: Stoppable) -> None:
    """Run until SIGTERM or Ctrl-C; the first one ends in order, the second at once.

    What it writes (journals with photos, caches) is for its user only.
    """
    os.umask(0o077)

    def on_signal(number: int, frame: FrameType | None) -> None:
        process.stop(f"{signal.Signals(number).name} came" + ("" if process.is_serving else " while it loaded"))
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, _interrupt)
        if not process.is_serving:  # it loads, or waits for the broker: what it began is undone on the way out
            raise SystemExit(0)

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, on_signal)
    process.run()


def _interrupt(number: int, frame: FrameType | None) -> Any:
    raise KeyboardInterrupt


_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _log_to_stderr(name: str) -> None:
    handler = NonBlockingLog()
    handler.setFormatter(LogFormatter(f"%(asctime)s {name} %(levelname)s %(message)s", "%H:%M:%S"))
    level = os.environ.get("TRISECT_LOG", "INFO").upper()
    if level not in _LEVELS:
        raise ConfigError(f"TRISECT_LOG: {level!r:.80} is no level; give one of {', '.join(_LEVELS).lower()}")
    logging.basicConfig(level=level, handlers=[handler])
