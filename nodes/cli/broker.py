"""`trisect broker`: mosquitto set up for tensors, on loopback or for enrolled members, and its configuration."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nodes.display.text import plain
from pipeline import folders

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.server import Server

app = typer.Typer(invoke_without_command=True)

POLL_S = 0.5
FolderOption = Annotated[
    Path | None,
    typer.Option(help="The folder of `trisect init`, or its folder `broker`: for enrolled members, with TLS."),
]


@app.callback()
def broker(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 picks a free one.")] = 1883,
    host: Annotated[
        str, typer.Option(help="The address to listen on; any but loopback needs passwords.")
    ] = "127.0.0.1",
    websockets_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="A second listener, for browsers.")
    ] = None,
    max_packet_bytes: Annotated[int, typer.Option(help="The largest message; above transport.chunk_bytes.")] = 16 << 20,
    persistence_dir: Annotated[Path | None, typer.Option(help="Keep queued and retained messages here.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="Made with mosquitto_passwd.")] = None,
    folder: FolderOption = None,
    log_file: Annotated[
        Path | None, typer.Option(help="Keep its log here; broker-PORT.log in the state folder, if left out.")
    ] = None,
) -> None:
    """Start mosquitto with settings for tensors; runs until Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    from broker.server import Server, ServerSettings, find_mosquitto, find_plugins
    from nodes.enrolment import broker_files

    plugins = find_plugins(find_mosquitto())
    if folder is not None:
        of_broker = _broker_folder(folder)
        broker_files.prepare(of_broker)
        settings = broker_files.settings_of(of_broker, plugins=plugins)
        _run(Server(settings, log_file=log_file or _log_of(settings.port)), lambda: broker_files.stamp(of_broker))
        return
    settings = ServerSettings(
        port=port,
        host=host,
        websockets_port=websockets_port,
        max_packet_bytes=max_packet_bytes,
        persistence_dir=persistence_dir,
        password_file=password_file,
        plugins=plugins,
    )
    if persistence_dir is not None:
        persistence_dir.mkdir(parents=True, exist_ok=True)
    _run(Server(settings, log_file=log_file or _log_of(port)), lambda: None)


def _log_of(port: int) -> Path:
    return folders.state() / f"broker-{port}.log"


def _run(broker: Server, stamp: Callable[[], Any]) -> None:
    """Serve until a signal; have it read its files again when they change, or on SIGHUP."""
    from nodes.session import service

    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    signal.signal(signal.SIGHUP, ask)
    signal.signal(signal.SIGTERM, _interrupt)
    seen = stamp()
    with broker as server:
        print(f"mosquitto (process {server.pid}) listens on {server.host}:{server.port}", flush=True)
        print(f"its log: {plain(server.log_file or 'not kept')}", flush=True)
        service.ready()
        try:
            while True:
                server.check()
                time.sleep(POLL_S)
                service.alive()
                now = stamp()
                if asked or now != seen:
                    asked, seen = False, now
                    server.reload()
                    print("read certificates and lists again", flush=True)
        except KeyboardInterrupt:
            print("stopping")


@app.command()
def acl(folder: Annotated[Path, typer.Argument(help="The folder that `trisect init` made.")]) -> None:
    """Print who may write and read which topics, as mosquitto's ACL file."""
    from broker import acl as access
    from broker.topics import Namespace
    from nodes.enrolment.folder import PipelineFolder

    pipeline = PipelineFolder(folder)
    print(access.render(pipeline.members(), Namespace(pipeline.register().pipeline)), end="")


@app.command()
def config(
    folder: Annotated[Path, typer.Argument(help="The folder of `trisect init`, or its folder `broker`.")],
    at: Annotated[Path | None, typer.Option(help="Where the folder will be on the broker's machine.")] = None,
) -> None:
    """Print the configuration for a mosquitto that something else starts, a distribution's service for instance."""
    from dataclasses import replace

    from broker.server import find_mosquitto, find_plugins, render
    from nodes.enrolment import broker_files

    of_broker = _broker_folder(folder)
    settings = broker_files.settings_of(of_broker, plugins=find_plugins(find_mosquitto()))
    text = render(replace(settings))
    print(text if at is None else text.replace(str(of_broker.absolute()), str(at)), end="")


def _broker_folder(folder: Path) -> Path:
    return folder / "broker" if (folder / "broker").is_dir() else folder


def _interrupt(number: int, frame: FrameType | None) -> Any:
    raise KeyboardInterrupt
