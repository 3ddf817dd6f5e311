"""`trisect model`: packages that nodes fetch from each other, published, listed, rolled out and removed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nodes.cli.options import DEFAULT_CONFIG, Command, ConfigOption, JsonFlag, PixelMode

app = typer.Typer(help="Publish packages, which nodes fetch by digest, and roll them out.", no_args_is_help=True)

SAID_EVERY_S = 5.0


@app.command()
def push(
    file: Annotated[Path, typer.Argument(help="A package, as `trisect pack` writes it.")],
    config: ConfigOption = DEFAULT_CONFIG,
    name: Annotated[str | None, typer.Option(help="The model's name in the configuration; default: its own.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Names of its classes, one a line; default: the package's.")
    ] = None,
    preprocess: Annotated[
        PixelMode | None, typer.Option(help="Preprocessing of pixels; default: the package's.")
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="HxW", help="The size that photos are resized to; default: the input's.")
    ] = "",
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Publish the manifest only: nodes have the package already.")
    ] = False,
) -> None:
    """Publish a package, and serve its pieces until nodes hold all of them."""
    from nodes.config.loader import load_config
    from nodes.config.model_settings import read_labels
    from nodes.packages import publishing
    from pipeline.errors import ConfigError
    from pipeline.models.source import parse_size

    settings = load_config(config)
    sides = parse_size(size)
    if sides and len(sides) != len(("height", "width")):
        raise ConfigError(f"--size {size}: height and width with x between, as in 224x224")
    if not no_wait and not any(node.store for node in settings.nodes.values()):
        print("no node keeps packages whole (store: true), so this serves until plans have brought each piece to one")
    shown = _Progress()
    manifest = publishing.push(
        settings,
        file,
        name=name,
        labels=read_labels(labels) if labels is not None else None,
        mode=preprocess,
        size=(sides[0], sides[1]) if sides else None,
        waits=not no_wait,
        progress=shown.show,
    )
    print(f"{manifest.digest} is published: {manifest.name}, {manifest.size / 1e6:,.1f} MB, model {manifest.model}")
    print(f"have it run: trisect model roll-out {manifest.name} {manifest.digest[:12]} -c {config}")


class _Progress:
    """Shares that nodes hold, now and then."""

    def __init__(self) -> None:
        self._said_at = 0.0

    def show(self, shares: Mapping[str, float]) -> None:
        """Print them, once in a while."""
        if time.monotonic() - self._said_at >= SAID_EVERY_S and shares:
            self._said_at = time.monotonic()
            print(", ".join(f"{name} has {share:.0%}" for name, share in shares.items()), flush=True)


@app.command(name="list")
def list_(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonFlag = False) -> None:
    """Show what is published, who holds how much of it, and which version each model is."""
    from rich.table import Table

    from nodes.config.loader import load_config
    from nodes.display.screen import Screen
    from nodes.display.text import json_line, plain
    from nodes.packages import publishing

    rows = publishing.rows(load_config(config))
    if as_json:
        for row in rows:
            print(json_line(asdict(row)))
        return
    table = Table("package", "name", "MB", "version of", "held by")
    for row in rows:
        table.add_row(
            row.package,
            plain(row.name),
            f"{row.nbytes / 1e6:,.1f}",
            ", ".join(f"{model} ({number})" for model, number in row.version_of.items()),
            ", ".join(f"{name} {share:.0%}" for name, share in row.held.items()) or "nobody",
        )
    Screen().print(table)


@app.command(name="roll-out", cls=Command)
def roll_out(
    model: Annotated[str, typer.Argument(help="A model of the configuration whose source is pushed.")],
    package: Annotated[str | None, typer.Argument(help="Digest of a package, or its beginning.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    timeout_s: Annotated[float, typer.Option(help="How long to wait until all of its streams run it.")] = 120.0,
) -> None:
    """Switch a model's streams to a package under their next epoch, or back to an earlier package."""
    from nodes.config.loader import load_config
    from nodes.packages import publishing

    version = publishing.roll_out(load_config(config), model, package, timeout_s=timeout_s)
    print(f"version {version.number} of {model} runs: package {version.package}")


@app.command()
def remove(
    package: Annotated[str, typer.Argument(help="Digest of a package, or its beginning.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Publish a package no more, and have nodes delete it; refused while it is a model's version."""
    from nodes.config.loader import load_config
    from nodes.packages import publishing

    print(f"{publishing.remove(load_config(config), package)} is removed")
