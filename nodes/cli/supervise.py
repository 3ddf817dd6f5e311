"""Commands for whoever watches over processes: systemd units, health with an exit code, doctor and check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path,
    typer.Option(
        *("--config", "-c", "--enrolment"),
        envvar="TRISECT_CONFIG",
        help="This machine's enrolment, or the pipeline's YAML file.",
    ),
]
DEFAULT = Path("configs/demo.yaml")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    units = typer.Typer(help="Have systemd start this machine's part at boot, and again when it fails.")
    units.command("install")(install)
    units.command("show")(show)
    units.command("remove")(remove)
    app.add_typer(units, name="service")
    for command in (health, doctor, check):
        app.command()(command)


EnrolmentArgument = Annotated[
    Path, typer.Argument(help="A node's or the planner's enrolment, or the folder `broker` of `trisect init`.")
]
DirectoryOption = Annotated[Path, typer.Option(help="Where systemd looks for units.")]
SYSTEM = Path("/etc/systemd/system")


def show(what: EnrolmentArgument) -> None:
    """Print the unit that `install` would write."""
    from nodes.cli import units

    print(units.unit_for(what).text, end="")


def install(
    what: EnrolmentArgument,
    directory: DirectoryOption = SYSTEM,
    now: Annotated[bool, typer.Option("--now/--later", help="Start it now, too.")] = True,
) -> None:
    """Write a systemd unit and start it: with readiness, a watchdog, restarts, and no more rights than it needs."""
    from nodes.cli import units

    for line in units.install(units.unit_for(what), directory, start=now):
        print(line)


def remove(
    name: Annotated[str, typer.Argument(help="A node's id, the planner's, or broker.")],
    directory: DirectoryOption = SYSTEM,
) -> None:
    """Stop the unit and remove it, with its copy of the enrolment; what it has stored stays."""
    from nodes.cli import units

    for line in units.remove(name, directory):
        print(line)


def health(
    config: ConfigOption = DEFAULT,
    node: Annotated[str | None, typer.Option("--node", help="This one; default: who the enrolment is of.")] = None,
    timeout_s: Annotated[float, typer.Option(help="How long to wait for broker and node.")] = 10.0,
) -> None:
    """Exit with 0 if a node serves, else with 1 and why; without a node: if every stream has a plan and its nodes."""
    from nodes.cli import health as checks
    from nodes.config.loader import load_config

    raise typer.Exit(checks.run(load_config(config), node, timeout_s=timeout_s))


def doctor(
    config: ConfigOption = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
    timeout_s: Annotated[float, typer.Option(help="How long to wait for the broker and for each answer.")] = 5.0,
) -> None:
    """Look at this machine and its way to the pipeline; each finding has its remedy. Ends with 1 if one is wrong."""
    from nodes.doctor.examination import run

    raise typer.Exit(run(config, as_json=as_json, timeout_s=timeout_s))


def check(
    files: Annotated[list[Path], typer.Argument(help="Configurations or enrolments.")],
) -> None:
    """Check configurations without running them, and the files that they name on this machine; 1 if one is wrong."""
    from nodes.doctor.examination import check_files

    raise typer.Exit(check_files(files))
