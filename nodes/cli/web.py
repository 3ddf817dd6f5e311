"""`trisect web`: the pipeline as a page in the browser."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nodes.cli.options import DEFAULT_CONFIG, ConfigOption
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import ssl

LEAST_KEY = 16
DEFAULT_PORT = 8080


def web(
    config: ConfigOption = DEFAULT_CONFIG,
    host: Annotated[str, typer.Option(help="The address to listen on; any but loopback needs TLS.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 picks a free one.", min=0, max=65535)] = DEFAULT_PORT,
    folder: Annotated[
        Path | None,
        typer.Option(help="The folder of `trisect init`, or its folder `broker`: serve with the broker's certificate."),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM file with the certificate to serve with.")] = None,
    certificate_key: Annotated[Path | None, typer.Option(help="PEM file with its key.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="Keep the key of the page's address here; otherwise each start has a new one.")
    ] = None,
) -> None:
    """Serve a live page of the pipeline; an operator can also change it there.

    Whoever opens the printed address may do what the login of this process may: give it a viewer's enrolment where
    people should only look.
    """
    import asyncio
    import logging

    from nodes.config.loader import load_config
    from nodes.session import service
    from nodes.web.server import Listener, WebServer

    logging.basicConfig(level=logging.WARNING)
    signal.signal(signal.SIGTERM, _interrupt)
    settings = load_config(config)
    tls = _tls(folder, certificate, certificate_key)
    server = WebServer(settings, Listener(host=host, port=port, tls=tls, key=_key(key_file)))

    def on_ready(url: str) -> None:
        print(f"the page of {settings.pipeline}: {url}", flush=True)
        service.ready()

    try:
        asyncio.run(server.run(on_ready))
    except KeyboardInterrupt:
        service.stopping()


def _key(path: Path | None) -> str:
    """The key in the file, which is made when it is not there; without a file a new one."""
    import secrets

    from nodes.config.enrolment import write_private

    if path is None:
        return secrets.token_urlsafe(24)
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24) + "\n")
    key = path.read_text(encoding="utf-8").strip()
    if len(key) < LEAST_KEY or not key.replace("-", "").replace("_", "").isascii() or not key.isprintable():
        raise ConfigError(
            f"{path}: a key of at least {LEAST_KEY} letters, digits, - and _ expected; delete it to have one made"
        )
    return key


def _tls(folder: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """A server's context with the given certificate, or the broker's in a folder of `trisect init`; None without."""
    import ssl

    from nodes.enrolment import broker_files

    if (certificate is None) != (key is None) or (folder is not None and certificate is not None):
        raise typer.BadParameter("give --certificate with --certificate-key, or --folder alone")
    if folder is not None:
        of_broker = folder / "broker" if (folder / "broker").is_dir() else folder
        certificate, key = of_broker / broker_files.CERTIFICATE, of_broker / broker_files.KEY
    if certificate is None or key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{certificate} and {key} cannot be used as certificate and key: {error}") from error
    return context


def _interrupt(number: int, frame: FrameType | None) -> Any:
    raise KeyboardInterrupt
