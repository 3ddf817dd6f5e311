"""Commands for whoever watches over processes: systemd units, health with an exit code, doctor and check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nodes.cli.options import DEFAULT_CONFIG, ConfigOption

EnrolmentArgument = Annotated[
    Path, typer.Argument(help="A node's or the planner's enrolment, or the folder `broker` of `trisect init`.")
]
DirectoryOption = Annotated[Path, typer.Option(help="The folder of systemd's units.")]
SYSTEM = Path("/etc/systemd/system")

service = typer.Typer(help="Have systemd start this machine's part at boot and restart it when it fails.")


@service.command()
def show(what: EnrolmentArgument) -> None:
    """Print the unit that `install` would write."""
    from nodes.cli import units

    print(units.unit_for(what).text, end="")


@service.command()
def install(
    what: EnrolmentArgument,
    directory: DirectoryOption = SYSTEM,
    now: Annotated[bool, typer.Option("--now/--later", help="Also start it now.")] = True,
) -> None:
    """Write a systemd unit and start it: with readiness, a watchdog, restarts, and no more rights than it needs."""
    from nodes.cli import units

    for line in units.install(units.unit_for(what), directory, start=now):
        print(line)


@service.command()
def remove(
    name: Annotated[str, typer.Argument(help="A node's id, the planner's, or broker.")],
    directory: DirectoryOption = SYSTEM,
) -> None:
    """Stop the unit and remove it, with its copy of the enrolment; what it has stored stays."""
    from nodes.cli import units

    for line in units.remove(name, directory):
        print(line)


def health(
    config: ConfigOption = DEFAULT_CONFIG,
    node: Annotated[str | None, typer.Option("--node", help="The node; default: the enrolment's member.")] = None,
    timeout_s: Annotated[float, typer.Option(help="How long to wait for broker and node.")] = 10.0,
) -> None:
    """Exit with 0 if a node serves, else with 1 and the reason; without a node, look at the whole pipeline."""
    from nodes.cli import health as checks
    from nodes.config.loader import load_config

    raise typer.Exit(checks.run(load_config(config), node, timeout_s=timeout_s))


def doctor(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    timeout_s: Annotated[float, typer.Option(help="How long to wait for the broker and for each answer.")] = 5.0,
) -> None:
    """Diagnose this machine and its connection to the pipeline, with remedies; exits with 1 if something is wrong."""
    from nodes.doctor.examination import run

    raise typer.Exit(run(config, as_json=as_json, timeout_s=timeout_s))


def check(
    files: Annotated[list[Path], typer.Argument(help="Configurations or enrolments.")],
) -> None:
    """Check configurations and the files that they name, without running anything; exits with 1 if one is wrong."""
    from nodes.doctor.examination import check_files

    raise typer.Exit(check_files(files))
