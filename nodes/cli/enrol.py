"""Commands where a pipeline's authority is: make a folder, let members in, renew them, lock them out."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from nodes.enrolment.folder import PipelineFolder

FolderOption = Annotated[Path, typer.Option("--folder", "-f", help="The pipeline's folder, as `trisect init` made it.")]
DaysOption = Annotated[float, typer.Option(help="How long the certificate is valid.", min=1, max=7300)]
HERE = Path()


def init(
    folder: Annotated[Path, typer.Argument(help="The folder to create; keep it, it holds the authority's key.")],
    pipeline: Annotated[str | None, typer.Option(help="The pipeline's name; default: the folder's.")] = None,
    broker: Annotated[
        list[str] | None,
        typer.Option(help="A name or address of the broker's machine; may be repeated, the first is tried first."),
    ] = None,
    port: Annotated[int, typer.Option(help="The broker's port, for MQTT over TLS.", min=1, max=65535)] = 8883,
    websockets_port: Annotated[
        int | None, typer.Option(help="A second port, for websockets over TLS.", min=1, max=65535)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A name from the zoo, or a .trisect or .keras file, which is copied.")
    ] = None,
    weights: Annotated[str, typer.Option(help="seed:N, imagenet or a weights file.")] = "imagenet",
    device: Annotated[list[str] | None, typer.Option(help="A node's id; may be repeated.")] = None,
    edge: Annotated[list[str] | None, typer.Option(help="A node's id; may be repeated.")] = None,
    cloud: Annotated[list[str] | None, typer.Option(help="A node's id; may be repeated.")] = None,
    config: Annotated[Path | None, typer.Option(help="A configuration to take instead of making one.")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Ask nothing: a network, three nodes, photos.")] = False,
    bridge: Annotated[
        str | None, typer.Option(metavar="HOST", help="A second broker in the cloud, joined by a bridge; its address.")
    ] = None,
) -> None:
    """Create a pipeline's folder: configuration, certificate authority, broker files. Asks for what is missing."""
    from nodes.cli import drawn_network
    from nodes.enrolment import starting
    from nodes.enrolment.folder import PipelineFolder

    file = _model_file(model)
    name = pipeline or folder.resolve().name.lower()
    hosts = broker or [*_asked("the broker's name or address, as all machines reach it", "localhost" if demo else None)]
    if config is not None:
        text = starting.adopted(config, pipeline)
    else:
        nodes = _node_ids({"device": device, "edge": edge, "cloud": cloud}, asks=not demo)
        network = f"models/{file.name}" if file is not None else model
        if demo and network is None:
            network = f"models/{drawn_network.FILE}" if drawn_network.is_needed() else "mobilenet_v2"
        network = network or _asked("the model", "mobilenet_v2")[0]
        seeded = "seed:0" if demo else weights
        text = starting.configuration(name, network, seeded, nodes, photos=demo, bridged=bridge is not None)
    made = PipelineFolder.create(
        folder, text, hosts, port=port, websockets_port=websockets_port, cloud_hosts=[bridge] if bridge else []
    )
    if demo:
        from nodes.cli import sample_images

        sample_images.put_photos(folder / "photos")
    if file is not None:
        (folder / "models").mkdir()
        shutil.copy(file, folder / "models")
    elif demo and model is None and config is None and drawn_network.is_needed():
        drawn_network.put(folder / "models")
    operator = made.enrol("operator", ["operator"])
    _say_next(made, operator, bridge)


def _model_file(model: str | None) -> Path | None:
    """The file that a model is, None for a name of the zoo. Raises ConfigError for one that is not there."""
    file = Path(model or "")
    if file.suffix not in {".keras", ".trisect"}:
        return None
    if not file.is_file():
        raise ConfigError(f"{file} is not there; `trisect pack NAME -o {file}` makes a package of a network of the zoo")
    return file


def _node_ids(given: Mapping[str, list[str] | None], *, asks: bool) -> dict[str, list[str]]:
    """The ids of nodes by tier: those given, else asked for, else one."""
    return {
        tier: ids or (_asked(f"ids of {tier} nodes", f"{tier}-1") if asks else [f"{tier}-1"])
        for tier, ids in given.items()
    }


def enrol(
    names: Annotated[list[str], typer.Argument(help="Nodes of the configuration, its planner, or others with --role.")],
    folder: FolderOption = HERE,
    role: Annotated[
        list[str] | None, typer.Option(help="node, planner, operator, camera or viewer; may be repeated.")
    ] = None,
    stream: Annotated[list[str] | None, typer.Option(help="A camera's stream; may be repeated; default: all.")] = None,
    days: DaysOption = 365,
    again: Annotated[bool, typer.Option("--again", help="Enrol a member again, also a revoked one.")] = False,
) -> None:
    """Enrol members; each gets one file, which every command takes, as in `trisect node --enrolment FILE`."""
    from broker.acl import ROLES
    from nodes.enrolment.folder import PipelineFolder

    unknown = [one for one in role or () if one not in ROLES]
    if unknown:
        raise ConfigError(f"unknown role {unknown[0]!r}; roles: {', '.join(ROLES)}")
    made = PipelineFolder(folder)
    roles = [one for one in ROLES if one in (role or ())]
    for name in names:
        path = made.enrol(name, roles, streams=stream, days=days, again=again)
        _say_written(made, name, path)


def renew(
    names: Annotated[list[str], typer.Argument(help="Members, or `broker` for its own certificate.")],
    folder: FolderOption = HERE,
    days: DaysOption = 365,
    host: Annotated[
        list[str] | None, typer.Option(help="With `broker`: its names and addresses, if they have changed.")
    ] = None,
) -> None:
    """Give members new certificates and the present configuration; old certificates stay valid until they expire."""
    from nodes.enrolment.folder import PipelineFolder

    made = PipelineFolder(folder)
    for name in names:
        if name == "broker" and not made.register().knows(name):
            made.renew_broker(host or ())
            print(f"{made.broker}: a new certificate; a broker on another machine gets the folder again")
        else:
            _say_written(made, name, made.renew(name, days=days))


def revoke(names: Annotated[list[str], typer.Argument(help="Members to revoke.")], folder: FolderOption = HERE) -> None:
    """Revoke members' certificates; a `trisect broker --folder` on this machine refuses them at once."""
    from nodes.enrolment.folder import PipelineFolder

    made = PipelineFolder(folder)
    for name in names:
        made.revoke(name)
        print(f"{name} is revoked; a broker on another machine acts on it when it gets {made.broker} again")


def members(
    folder: FolderOption = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """List enrolled members with their roles and when their certificates expire."""
    from rich.table import Table

    from nodes.display.screen import Screen
    from nodes.display.text import json_line
    from nodes.enrolment.folder import PipelineFolder
    from nodes.enrolment.register import shown

    entries = PipelineFolder(folder).register().entries
    if as_json:
        for entry in entries:
            values = shown(entry)
            values["certificates"] = [{**one, "expires": one["expires"].isoformat()} for one in values["certificates"]]
            print(json_line(values))
        return
    table = Table("member", "roles", "state", "certificate ends")
    for entry in entries:
        ends = max((one.expires for one in entry.certificates), default=None)
        state = "revoked" if entry.revoked else "enrolled"
        table.add_row(entry.name, ", ".join(entry.roles), state, f"{ends:%Y-%m-%d}" if ends else "")
    Screen().print(table)


def _asked(what: str, default: str | None) -> list[str]:
    """Words that a person types; the default, or a ConfigError, where nobody is there to type."""
    if not sys.stdin.isatty():
        if default is None:
            raise ConfigError(f"give {what}: nobody is here to be asked; see `trisect init --help`")
        return [default]
    words: list[str] = typer.prompt(what, default=default).replace(",", " ").split()
    return words


def _say_written(made: PipelineFolder, name: str, path: Path) -> None:
    from nodes.enrolment import starting

    print(f"{name}: {path}")
    for file in starting.files_beside(made.config(), name, made.path):
        print(f"  put {file} beside it there, under the same relative path")


def _say_next(made: PipelineFolder, operator: Path, bridge: str | None) -> None:
    config = made.config()
    names = " ".join((*config.nodes, config.planner.id))
    print(f"{made.configuration}: what runs where; edit it before you enrol nodes, or `trisect renew` them")
    print(f"{operator}: for you, as in: trisect watch -c {operator}")
    print(f"next, here:                  trisect enrol {names} -f {made.path}")
    print(f"on the broker's machine:     trisect broker --folder {made.broker}")
    print("on each node's machine:      trisect node --enrolment ID.enrolment")
    print(f"next to the broker:          trisect planner --enrolment {config.planner.id}.enrolment")
    if bridge is not None:
        print(f"the second broker, with a bridge to the first: trisect broker --folder {made.cloud_broker}")
