"""systemd units for a node, the planner or the broker: written, checked, installed.

A unit of a node runs as a user that exists only while it runs (DynamicUser), with the enrolment handed to it as a
credential, so that the file in /etc is root's. Sources: systemd.exec(5), systemd.service(5).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nodes.config import enrolment
from nodes.config.loader import load_config
from nodes.config.sections import Config
from pipeline.errors import ConfigError

ENROLMENTS: Final = Path("/etc/trisect")
FILES: Final = Path("/srv/trisect")
"""Where packages, labels and photos lie that an enrolment names; all may read it."""
WATCHDOG_S: Final = 60

_UNIT: Final = """\
# Written by `trisect service install`.
[Unit]
Description=trisect {what}
After=network-online.target{after}
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
{own}Environment=PYTHONUNBUFFERED=1
Restart=always
RestartSec=5
# it waits for a broker that is not there yet, and a first start may fetch and pack a model
TimeoutStartSec=infinity
TimeoutStopSec=30
WatchdogSec={watchdog}
SyslogIdentifier=trisect-{name}
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome={home}
PrivateTmp=yes
PrivateDevices={private_devices}
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""
_MEMBER: Final = """\
DynamicUser=yes
LoadCredential=enrolment:{enrolment}
StateDirectory=trisect-{name}
CacheDirectory=trisect-{name}
Environment=XDG_STATE_HOME=%S/trisect-{name} XDG_CACHE_HOME=%C/trisect-{name} TRISECT_FILES={files}
{devices}"""
_BROKER: Final = """\
ExecReload=/bin/kill -HUP $MAINPID
User=mosquitto
ReadWritePaths={folder}
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit's text; `source` is the enrolment to copy to `kept`, or `folder` the broker's, which stays where it is."""

    name: str
    text: str
    source: Path | None = None
    folder: Path | None = None

    @property
    def file(self) -> str:
        """The unit's name to systemd."""
        return f"trisect-{self.name}.service"

    @property
    def kept(self) -> Path:
        """Where its enrolment is."""
        return ENROLMENTS / f"{self.name}{enrolment.SUFFIX}"


def unit_for(what: Path) -> Unit:
    """The unit of an enrolment or of a broker's folder. Raises ConfigError for what cannot be a service."""
    if what.is_dir():
        return _of_broker(what / "broker" if (what / "broker").is_dir() else what)
    config = load_config(what)
    member = config.broker.credentials
    if member is None:
        raise ConfigError(f"{what} is no enrolment; a service is installed from the file that `trisect enrol` wrote")
    if "planner" in member.roles:
        command = "planner"
    elif "node" in member.roles:
        command = "node"
    else:
        raise ConfigError(
            f"{what} is of a {', '.join(member.roles)}, and only a node, the planner or a broker is a service"
        )
    unit = Unit(member.name, "", what)
    camera = command == "node" and _uses_camera(config, member.name)
    own = _MEMBER.format(
        name=member.name, enrolment=unit.kept, files=FILES, devices="SupplementaryGroups=video\n" if camera else ""
    )
    text = _rendered(
        name=member.name,
        what=f"{command} {member.name} of {config.pipeline}",
        # systemd sets the variable, and older ones lack the specifier %d for it
        command=f"{_executable()} {command} --enrolment ${{CREDENTIALS_DIRECTORY}}/enrolment",
        own=own,
        private_devices="no" if camera else "yes",
        after=" trisect-broker.service mosquitto.service",
    )
    return Unit(member.name, text, what)


def _of_broker(folder: Path) -> Unit:
    from nodes.enrolment import broker_files

    broker_files.settings_of(folder)  # whole, or a ConfigError
    folder = folder.resolve()
    text = _rendered(
        name="broker",
        what=f"broker, with the files in {folder}",
        command=f"{_executable()} broker --folder {folder}",
        own=_BROKER.format(folder=folder),
    )
    return Unit("broker", text, folder=folder)


def _rendered(*, name: str, what: str, command: str, own: str, private_devices: str = "yes", after: str = "") -> str:
    home = "read-only" if Path(_executable()).is_relative_to("/home") else "yes"
    return _UNIT.format(
        name=name,
        what=what,
        command=command,
        own=own,
        private_devices=private_devices,
        after=after,
        home=home,
        watchdog=WATCHDOG_S,
    )


def _uses_camera(config: Config, node: str) -> bool:
    owned = (stream for stream in config.streams.values() if stream.device == node)
    return any(stream.source is not None and stream.source.camera is not None for stream in owned)


def _executable() -> str:
    """This installation's `trisect`. Not resolved further: a venv's script finds its venv by where it is."""
    beside = Path(sys.executable).with_name("trisect")
    found = str(beside) if beside.exists() else shutil.which("trisect")
    if found is None:
        raise ConfigError(
            "there is no program `trisect` on this machine, only its source; install the wheel with pip first"
        )
    return found


def require_reachable(path: Path, example: str) -> None:
    """Raise ConfigError when another user, which a service's is, cannot come to the path."""
    for folder in path.absolute().parents:
        if not folder.stat().st_mode & 0o001:
            raise ConfigError(
                f"{path} lies in {folder}, which only its owner may enter, and a service runs as a user of its own; "
                f"put it where all may, {example}"
            )


def install(unit: Unit, directory: Path, *, start: bool) -> Iterator[str]:
    """Write the unit and its enrolment, and start it; yields what was done. Raises ConfigError."""
    require_reachable(Path(_executable()), "for instance: python3 -m venv /opt/trisect")
    if unit.folder is not None:
        require_reachable(unit.folder / "acl", "for instance in /srv; what is secret in it has rights of its own")
    try:
        if unit.folder is not None:
            from nodes.enrolment import broker_files

            broker_files.prepare(unit.folder)  # as root, who alone can give mosquitto's user what it reads and writes
        if unit.source is not None:
            ENROLMENTS.mkdir(mode=0o700, exist_ok=True)
            enrolment.write_private(unit.kept, unit.source.read_text(encoding="utf-8"))
            yield f"{unit.kept}: the enrolment, for root only"
            for file in _named(unit):
                yield f"put {file} into {FILES}, under this relative path, where all may read it"
        directory.mkdir(parents=True, exist_ok=True)
        enrolment.write_private(directory / unit.file, unit.text, 0o644)
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written: {error.strerror}; run this as root") from error
    yield f"{directory / unit.file}: the unit"
    if not start:
        yield f"start it with: systemctl enable --now {unit.file}"
        return
    if not Path("/run/systemd/system").exists():
        raise ConfigError("systemd does not run here, so that nothing was started; use --later to only write the unit")
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", unit.file)
    yield f"started; its log: journalctl -u {unit.file}"


def _named(unit: Unit) -> list[str]:
    from nodes.enrolment.starting import files_beside

    assert unit.source is not None
    return list(files_beside(load_config(unit.source), unit.name, unit.source.parent))


def remove(name: str, directory: Path) -> Iterator[str]:
    """Stop and remove a unit; yields what was done. Raises ConfigError."""
    unit = Unit(name, "")
    path = directory / unit.file
    if not path.exists():
        raise ConfigError(f"{path} is not there; installed: {', '.join(sorted(_installed(directory))) or 'nothing'}")
    if Path("/run/systemd/system").exists():
        _systemctl("disable", "--now", unit.file)
    for file in (path, unit.kept):
        if file.exists():
            file.unlink()
            yield f"{file}: removed"


def _installed(directory: Path) -> list[str]:
    return [path.stem.removeprefix("trisect-") for path in directory.glob("trisect-*.service")]


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"systemctl {' '.join(arguments)} failed: {done.stderr.strip() or done.returncode}")
