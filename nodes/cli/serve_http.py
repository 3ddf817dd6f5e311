"""`trisect serve-http`: the Open Inference Protocol before a pipeline."""

from __future__ import annotations

import signal
from ipaddress import ip_address
from types import FrameType
from typing import Annotated

import typer

from nodes.cli.options import DEFAULT_CONFIG, ConfigOption
from pipeline.errors import ConfigError

DEFAULT_PORT = 8000


def serve_http(
    config: ConfigOption = DEFAULT_CONFIG,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 picks a free one.", min=0, max=65535)] = DEFAULT_PORT,
    timeout_s: Annotated[
        float, typer.Option(help="Seconds without an answer after which requests fail.", min=1)
    ] = 30.0,
    anyone: Annotated[
        bool,
        typer.Option(
            "--anyone", help="Listen beyond this machine; there is no login, so anyone who reaches the port may use it."
        ),
    ] = False,
) -> None:
    """Serve each stream as a model of the Open Inference Protocol v2, for clients such as tritonclient.

    Needs the extra `http`, and `outputs: true` on the streams. Clients send the model's input, or pixels, or an image.
    """
    import asyncio
    import logging

    from nodes.config.loader import load_config
    from nodes.session import service

    try:
        from nodes.serving.server import serve
    except ImportError as error:
        raise ConfigError("serve-http needs aiohttp", hint="pip install 'trisect[http]'") from error

    if not anyone and not _is_loopback(host):
        raise ConfigError(
            f"{host} is not this machine alone, and this protocol knows no login",
            hint="listen on 127.0.0.1 behind a proxy that has one, or give --anyone",
        )
    logging.basicConfig(level=logging.WARNING)
    signal.signal(signal.SIGTERM, _interrupt)
    settings = load_config(config)

    def on_ready(address: tuple[str, int]) -> None:
        at = f"[{address[0]}]" if ":" in address[0] else address[0]
        print(f"serving {', '.join(settings.streams)} at http://{at}:{address[1]}/v2", flush=True)
        service.ready()

    try:
        asyncio.run(serve(settings, host, port, timeout_s=timeout_s, ready=on_ready))
    except KeyboardInterrupt:
        service.stopping()
    except OSError as error:
        raise ConfigError(f"{host}:{port}: {error.strerror or error}") from error


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
