"""The folder that a broker's machine gets: its certificate, the lists, and what mosquitto is started with.

Needs no `cryptography`: that machine need not have it. Lists are written whole or not at all, since a broker may be
reading them.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from broker import acl
from broker.settings import EVERYWHERE, Bridge, PemFiles, ServerSettings, ServerTls
from broker.topics import Namespace
from nodes.config.enrolment import write_private
from pipeline.errors import ConfigError

AUTHORITY, CERTIFICATE, KEY = "authority.pem", "broker.pem", "broker.key"
BRIDGE_CERTIFICATE, BRIDGE_KEY = "bridge.pem", "bridge.key"
ACCESS, REVOKED, SETTINGS = "acl", "revoked.crl", "broker.json"
AUTOSAVE_S: Final = 1_800
"""mosquitto writes all that it holds at each save, changed or not: every ten seconds that was 1.2 GB a day at idle. It
also saves when it stops in order; after a power cut every process says again what it retains.
"""
RELOADED: Final = (CERTIFICATE, KEY, ACCESS, REVOKED)
"""What a running broker should read again when it changes."""
USER: Final = "mosquitto"


class Pair(Protocol):
    """A certificate and its key, in PEM."""

    @property
    def certificate(self) -> str: ...

    @property
    def key(self) -> str: ...


def create(folder: Path, authority: str, *, port: int, websockets_port: int | None) -> None:
    """Make the folder; its certificate and lists follow."""
    folder.mkdir(mode=0o755)
    write_private(folder / AUTHORITY, authority, 0o644)
    _write_settings(folder, {"port": port, "websockets_port": websockets_port, "bridge": None})


def write_certificate(folder: Path, issued: Pair) -> None:
    """Put the broker's certificate there, with its key."""
    write_private(folder / KEY, issued.key)
    write_private(folder / CERTIFICATE, issued.certificate, 0o644)
    _hand_over(folder / KEY)


def write_bridge(folder: Path, issued: Pair, host: str, port: int, names: Namespace) -> None:
    """Join this broker with another one, which knows it by this certificate."""
    write_private(folder / BRIDGE_KEY, issued.key)
    write_private(folder / BRIDGE_CERTIFICATE, issued.certificate, 0o644)
    _hand_over(folder / BRIDGE_KEY)
    bridge = {
        "host": host,
        "port": port,
        "client_id": f"trisect.{names.pipeline}.bridge.{secrets.token_hex(16)}",
        "filters": list(acl.bridged(names)),
    }
    _write_settings(folder, {**_read_settings(folder), "bridge": bridge})


def _write_settings(folder: Path, values: Mapping[str, Any]) -> None:
    write_private(folder / SETTINGS, json.dumps(values, indent=1) + "\n")
    _hand_over(folder / SETTINGS)


def _read_settings(folder: Path) -> dict[str, Any]:
    values = json.loads((folder / SETTINGS).read_text())
    if not isinstance(values, dict):
        raise ValueError("no JSON object")
    return values


def _bridge_of(folder: Path, values: Mapping[str, Any] | None) -> Bridge | None:
    if values is None:
        return None
    return Bridge(
        host=str(values["host"]),
        port=int(values["port"]),
        protocol="mqttv50",
        client_id=str(values["client_id"]),
        filters=tuple(map(str, values["filters"])),
        tls=PemFiles(authority=folder / AUTHORITY, certificate=folder / BRIDGE_CERTIFICATE, key=folder / BRIDGE_KEY),
    )


def write_lists(folder: Path, *, access: str, revoked: str) -> None:
    """Put the access list and the revoked certificates there."""
    write_private(folder / REVOKED, revoked, 0o644)
    write_private(folder / ACCESS, access)
    _hand_over(folder / ACCESS)


def settings_of(folder: Path, *, host: str = EVERYWHERE, plugins: Path | None = None) -> ServerSettings:
    """What mosquitto is started with; it keeps its messages in the folder. Raises ConfigError, SettingsError."""
    try:
        values = _read_settings(folder)
        port, websockets_port = int(values["port"]), values["websockets_port"]
        bridge = _bridge_of(folder, values.get("bridge"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder} is no broker's folder of `trisect init`: {error}") from error
    missing = [name for name in (AUTHORITY, *RELOADED) if not (folder / name).exists()]
    if missing:
        raise ConfigError(
            f"{folder} lacks {', '.join(missing)}; copy the whole folder `broker` that `trisect init` made"
        )
    return ServerSettings(
        host=host,
        port=port,
        websockets_port=websockets_port,
        persistence_dir=folder / "state",
        autosave_s=AUTOSAVE_S,
        acl_file=folder / ACCESS,
        tls=ServerTls(
            authority=folder / AUTHORITY,
            certificate=folder / CERTIFICATE,
            key=folder / KEY,
            revoked=folder / REVOKED,
        ),
        bridge=bridge,
        plugins=plugins,
    )


def prepare(folder: Path) -> None:
    """Give mosquitto's own user what it reads and writes, where root starts it; it does not stay root."""
    state = folder / "state"
    state.mkdir(exist_ok=True, mode=0o700)
    secret = (folder / name for name in (KEY, ACCESS, SETTINGS, BRIDGE_KEY))
    for path in (state, *state.iterdir(), *(path for path in secret if path.exists())):
        _hand_over(path)


def stamp(folder: Path) -> tuple[tuple[int, int], ...]:
    """Changes when what a running broker has read changes."""
    found = []
    for name in RELOADED:
        try:
            status = (folder / name).stat()
        except OSError:
            continue
        found.append((status.st_ino, status.st_mtime_ns))
    return tuple(found)


def _hand_over(path: Path) -> None:
    if os.geteuid() != 0:
        return  # whoever made it starts the broker, or copies it to who does
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return
    shutil.chown(path, USER)
