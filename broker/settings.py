"""Settings of our own mosquitto, and its configuration file. Starts nothing.

The file has lines that mosquitto 2.0 and 2.1 both read, except for the files of passwords and access lists: 2.1 has
plugins for them, and will drop the options.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal

from broker.errors import SettingsError

MIB: Final = 1024 * 1024
# mosquitto reads its byte bounds into a C int
_INT_MAX: Final = 2**31 - 1

Protocol = Literal["mqttv311", "mqttv50"]
EVERYWHERE: Final = "*"
"""As a host: all of this machine's addresses."""

LogLevel = Literal["error", "warning", "notice", "information", "debug"]
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}")
_LEVELS: Final[tuple[LogLevel, ...]] = ("error", "warning", "notice", "information", "debug")


@dataclass(frozen=True, slots=True, kw_only=True)
class PemFiles:
    """A certificate with its key, and the authority that the other side is held against."""

    authority: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls(PemFiles):
    """PEM files of a broker that lets nobody in without a certificate, whose common name is then the user name."""

    revoked: Path


@dataclass(frozen=True, slots=True)
class Bridge:
    """A connection of this broker to another one, over which topics go both ways, with QoS 1.

    Attributes:
        protocol: mqttv311, which is mosquitto's default and takes MQTT 5 properties off, or mqttv50.
        name: of the connection, unique in this broker.
        client_id: at the other broker; None: mosquitto makes it of this machine's name and `name`.
        filters: of the topics that cross.
        tls: its way in, where the other broker asks for a certificate.
    """

    host: str
    port: int
    protocol: Protocol = "mqttv311"
    name: str = "trisect"
    client_id: str | None = None
    filters: tuple[str, ...] = ("trisect/#",)
    tls: PemFiles | None = None

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host) or not 0 < self.port < 1 << 16:
            raise SettingsError(f"a bridge to {self.host!r}, port {self.port}: a host name and a port expected")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Settings of one mosquitto.

    Attributes:
        port: TCP port; 0 picks a free one.
        host: address to listen on, `*` for all. Anything but loopback needs a password file or TLS.
        websockets_port: a second listener for browsers, or None.
        max_packet_bytes: the largest MQTT packet accepted; CONNACK announces it to every client.
        max_inflight_messages: QoS 1 messages that may be on their way to one client without an acknowledgement.
        max_queued_bytes: bytes that wait for one slow or absent client; above it the broker drops silently.
        max_queued_messages: the same bound in messages. Large, so that the bound in bytes is the one that holds.
        memory_limit_bytes: bound of the whole process, or None. Above it mosquitto refuses and drops.
        persistence_dir: retained messages and queues are kept here across restarts; None forgets them.
        autosave_s: how often they are written, all of them, changed or not; besides, when the broker stops in order.
        password_file: made with `mosquitto_passwd`; turns anonymous access off.
        acl_file: who may read and write which topics.
        tls: certificates, for all listeners.
        plugins: of mosquitto 2.1, the folder that has its plugins; None for 2.0.
        log_level: the least important kind of line that is logged.
        bridge: another broker with which it is one.
    """

    port: int = 0
    host: str = "127.0.0.1"
    websockets_port: int | None = None
    max_packet_bytes: int = 16 * MIB
    max_inflight_messages: int = 64
    max_queued_bytes: int = 512 * MIB
    max_queued_messages: int = 100_000
    memory_limit_bytes: int | None = None
    persistence_dir: Path | None = None
    autosave_s: int = 10
    password_file: Path | None = None
    acl_file: Path | None = None
    tls: ServerTls | None = None
    plugins: Path | None = None
    log_level: LogLevel = "notice"
    bridge: Bridge | None = None

    def __post_init__(self) -> None:
        if not self.is_loopback and self.password_file is None and self.tls is None:
            raise SettingsError(
                f"a broker on {self.host} without passwords would let anyone in; make one with certificates "
                "(`trisect init`), set password_file (mosquitto_passwd -c FILE USER), or listen on 127.0.0.1"
            )
        for name in ("max_packet_bytes", "max_queued_bytes"):
            value = getattr(self, name)
            if not 0 < value <= _INT_MAX:
                raise SettingsError(f"{name} is {value:_}; mosquitto reads 1 to {_INT_MAX:_}")
        if self.max_packet_bytes > self.max_queued_bytes:
            raise SettingsError(
                f"max_queued_bytes ({self.max_queued_bytes:_}) cannot hold one packet of max_packet_bytes "
                f"({self.max_packet_bytes:_}); raise the first or lower the second"
            )

    @property
    def is_loopback(self) -> bool:
        """True when only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


def render(settings: ServerSettings) -> str:
    """The configuration file. The port must be a real one by now: a listener on 0 is a Unix socket to mosquitto 2.0."""
    if settings.port == 0:
        raise SettingsError("port 0 cannot be written into a configuration; pick a free port first")
    lines = [
        *_listener(settings, settings.port),
        *_websockets(settings),
        "set_tcp_nodelay true",
        f"max_packet_size {settings.max_packet_bytes}",
        f"max_inflight_messages {settings.max_inflight_messages}",
        f"max_queued_bytes {settings.max_queued_bytes}",
        f"max_queued_messages {settings.max_queued_messages}",
        *([f"memory_limit {settings.memory_limit_bytes}"] if settings.memory_limit_bytes else []),
        *_access(settings),
        *_persistence(settings),
        *_user(settings),
        *_bridge(settings.bridge),
        "log_dest stderr",
        "log_timestamp_format %Y-%m-%dT%H:%M:%S",
        *(f"log_type {level}" for level in _LEVELS[: _LEVELS.index(settings.log_level) + 1]),
    ]
    return "\n".join(lines) + "\n"


def _websockets(settings: ServerSettings) -> list[str]:
    if settings.websockets_port is None:
        return []
    return [*_listener(settings, settings.websockets_port), "protocol websockets"]


def _listener(settings: ServerSettings, port: int) -> list[str]:
    lines = [f"listener {port}" + ("" if settings.host == EVERYWHERE else f" {settings.host}")]
    if tls := settings.tls:
        lines += [
            f"cafile {tls.authority.absolute()}",
            f"certfile {tls.certificate.absolute()}",
            f"keyfile {tls.key.absolute()}",
            f"crlfile {tls.revoked.absolute()}",
            "require_certificate true",
            "use_identity_as_username true",
        ]
    return lines


def _access(settings: ServerSettings) -> list[str]:
    # who comes with a certificate is not anonymous
    lines = [f"allow_anonymous {'false' if settings.password_file or settings.tls else 'true'}"]
    for option, path in (("password_file", settings.password_file), ("acl_file", settings.acl_file)):
        if path and settings.plugins:
            plugin = settings.plugins / f"mosquitto_{option}.so"
            lines += [f"global_plugin {plugin}", f"plugin_opt_{option} {path.absolute()}"]
        elif path:
            lines.append(f"{option} {path.absolute()}")
    return lines


def _persistence(settings: ServerSettings) -> list[str]:
    if settings.persistence_dir is None:
        return ["persistence false"]
    return [
        "persistence true",
        f"persistence_location {settings.persistence_dir.absolute()}/",
        f"autosave_interval {settings.autosave_s}",
    ]


def _bridge(bridge: Bridge | None) -> list[str]:
    if bridge is None:
        return []
    return [
        f"connection {bridge.name}",
        f"address {bridge.host}:{bridge.port}",
        f"bridge_protocol_version {bridge.protocol}",
        *([f"remote_clientid {bridge.client_id}"] if bridge.client_id else []),
        *_bridge_files(bridge.tls),
        # what is published while the line is cut crosses later, unless it has expired
        "cleansession false",
        "notifications false",
        "bridge_attempt_unsubscribe false",
        "keepalive_interval 15",
        "restart_timeout 1 5",
        *(f"topic {filter_} both 1" for filter_ in bridge.filters),
    ]


def _bridge_files(tls: PemFiles | None) -> list[str]:
    if tls is None:
        return []
    return [
        f"bridge_cafile {tls.authority.absolute()}",
        f"bridge_certfile {tls.certificate.absolute()}",
        f"bridge_keyfile {tls.key.absolute()}",
    ]


def _user(settings: ServerSettings) -> list[str]:
    # started by root, mosquitto becomes the user `mosquitto`: always where others can reach it
    if settings.tls:
        return []
    # and not where only this machine can, and that user may be unable to reach these
    own_files = settings.persistence_dir or settings.password_file or settings.acl_file
    return ["user root"] if own_files and os.geteuid() == 0 else []
