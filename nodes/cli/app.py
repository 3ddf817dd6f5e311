"""The command line. Each command imports what it needs when it runs; only those that prepare models load TensorFlow."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Annotated, Any

import typer

from nodes.cli import broker as broker_commands
from nodes.cli import enrol as enrolling
from nodes.cli import load as load_commands
from nodes.cli import model as pushing
from nodes.cli import model_commands as models
from nodes.cli import pipeline_commands as running
from nodes.cli import process_commands as processes
from nodes.cli import serve_http as http_commands
from nodes.cli import supervise as supervising
from nodes.cli import web as web_commands
from nodes.cli.options import Command
from nodes.display.log import open_standard_files
from nodes.display.text import plain, plain_lines
from pipeline.errors import TrisectError

app = typer.Typer(
    name="trisect",
    help="Run one deep neural network across a device, its edge and the cloud, over an MQTT broker.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_OBJECTS_BETWEEN_COLLECTIONS = 50_000
"""Imports make few cycles: with Python's 700 the collector takes an eighth of the start."""
_START_S = 10.0
"""After this many seconds a process that still runs has started."""


def _collect_seldom_at_first() -> None:
    """Go on with Python's thresholds later, past what the start has made.

    paho leaves a cycle for each message: with rare collections, or with all that is imported counted in, a process that
    runs for long grows by megabytes of them.
    """
    usual = gc.get_threshold()

    def started() -> None:
        gc.freeze()
        gc.set_threshold(*usual)

    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    timer = threading.Timer(_START_S, started)
    timer.daemon = True
    timer.start()


def main() -> None:
    """The entry point."""
    open_standard_files()
    signal.signal(signal.SIGTERM, _leave)
    _collect_seldom_at_first()
    carry_out(sys.argv[1:])


def carry_out(arguments: Sequence[str]) -> None:
    """Run one command: errors that a user can fix are one line on stderr, with exit code 1. Raises SystemExit."""
    try:
        app(args=list(arguments))
    except TrisectError as error:
        print(f"error: {plain_lines(str(error))}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {plain(error.filename)}: {error.strerror}", file=sys.stderr)
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
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run one deep neural network across a device, its edge and the cloud, over an MQTT broker."""


_bench = typer.Typer(help="Benchmark this machine, or a running stream.", no_args_is_help=True)
_bench.command("engines", cls=Command)(models.bench_engines)
_bench.command("load", cls=Command)(load_commands.load)
_bench.command("report")(load_commands.report)

_PANELS: Mapping[str, Sequence[Callable[..., None] | tuple[str, typer.Typer]]] = {
    "Start": [processes.demo, enrolling.init, supervising.doctor, supervising.check],
    "Run": [
        *(("broker", broker_commands.app), processes.node, processes.planner, ("service", supervising.service)),
        *(running.publish, http_commands.serve_http),
    ],
    "Watch": [
        *(processes.watch, web_commands.web, supervising.health, processes.metrics),
        *(running.trace, running.topics, running.record, running.replay),
    ],
    "Plan": [running.plan, running.place, running.objective, running.drain, running.forget, models.scission],
    "Models": [
        *(models.models, models.profile, models.verify, models.pack, ("model", pushing.app), ("bench", _bench)),
    ],
    "Members": [enrolling.enrol, enrolling.renew, enrolling.revoke, enrolling.members],
}
"""Commands, and groups of them by name, as `trisect --help` shows them."""
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        if isinstance(_command, tuple):
            app.add_typer(_command[1], name=_command[0], rich_help_panel=_panel)
        else:
            app.command(cls=Command, rich_help_panel=_panel)(_command)


def _leave(number: int, frame: FrameType | None) -> Any:
    """End in order, also while modules are imported: 143, as a shell says it."""
    raise SystemExit(128 + number)
