"""The folder of a pipeline that `trisect init` makes: configuration, authority, enrolments, and a broker's files.

`authority/` and `enrolments/` hold secrets and stay where they are made; `broker/` goes to the broker's machine. One
command changes it at a time.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import yaml

from broker import acl
from broker.acl import Member, Role
from broker.topics import Namespace, valid_id
from nodes.config import enrolment
from nodes.config.bounded_yaml import read_yaml
from nodes.config.loader import load_config, parse_config
from nodes.config.sections import Config
from nodes.enrolment import broker_files
from nodes.enrolment.authority import BROKER_DAYS, MEMBER_DAYS, Authority, new_authority, read_authority
from nodes.enrolment.register import Certificate, Entry, Register, from_json, new_secret, to_json
from pipeline.errors import ConfigError
from pipeline.placement import Tier
from pipeline.plan import NodeId

CONFIGURATION: Final = "pipeline.yaml"
_REGISTER: Final = "register.json"
_LONGEST_HOST: Final = 253
_LABEL: Final = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_HOST: Final = re.compile(rf"(?![0-9.]+$){_LABEL}(\.{_LABEL})*")
"""A name of digits and dots alone is a mistyped address."""


@dataclass(frozen=True, slots=True)
class PipelineFolder:
    """One pipeline's folder; methods raise ConfigError for what cannot be done."""

    path: Path

    @property
    def configuration(self) -> Path:
        """The pipeline's YAML, which people edit."""
        return self.path / CONFIGURATION

    @property
    def broker(self) -> Path:
        """All that the broker's machine needs."""
        return self.path / "broker"

    @property
    def cloud_broker(self) -> Path:
        """The same for a second broker, in the cloud, which the first one has a bridge to."""
        return self.path / "broker-cloud"

    @property
    def enrolments(self) -> Path:
        """A file for each member."""
        return self.path / "enrolments"

    @property
    def _authority(self) -> Path:
        return self.path / "authority"

    @classmethod
    def create(
        cls,
        path: Path,
        configuration: str,
        hosts: Sequence[str],
        *,
        port: int,
        websockets_port: int | None = None,
        cloud_hosts: Sequence[str] = (),
    ) -> PipelineFolder:
        """Make the folder, for a broker with these names and addresses; the first is tried first.

        With `cloud_hosts`, for a second one there as well, which nodes of the cloud go to.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(f"{path} is there and not empty; give another folder, or use what is in it")
        folder = cls(path)
        _require_ports(port, websockets_port)
        _require_hosts([*hosts, *cloud_hosts])
        parse_config(configuration, folder.configuration)  # before anything is there that a second try would meet
        path.mkdir(parents=True, exist_ok=True)
        for private in (folder._authority, folder.enrolments):
            private.mkdir(mode=0o700)
        enrolment.write_private(folder.configuration, configuration, 0o644)
        config = load_config(folder.configuration)
        authority = new_authority(config.pipeline)
        enrolment.write_private(folder._authority / "authority.key", authority.key_pem)
        enrolment.write_private(folder._authority / "authority.pem", authority.pem, 0o644)
        register = Register(config.pipeline, tuple(hosts), port, websockets_port, tuple(cloud_hosts))
        broker_files.create(folder.broker, authority.pem, port=port, websockets_port=websockets_port)
        if cloud_hosts:
            broker_files.create(folder.cloud_broker, authority.pem, port=port, websockets_port=websockets_port)
        folder._certify(register, authority)
        folder._save(register, authority, config)
        return folder

    def config(self) -> Config:
        """The configuration as it is now."""
        return load_config(self.configuration)

    def register(self) -> Register:
        """Who belongs to it."""
        try:
            return from_json((self._authority / _REGISTER).read_text())
        except OSError as error:
            raise ConfigError(
                f"{self.path} is no folder of `trisect init`: {error.strerror}: {error.filename}"
            ) from error

    def enrol(
        self,
        name: str,
        roles: Sequence[Role] = (),
        *,
        streams: Sequence[str] | None = None,
        days: float = MEMBER_DAYS,
        again: bool = False,
    ) -> Path:
        """Let a member in, and write its file; without roles those of the configuration's node or planner.

        A member that is enrolled already is refused unless `again`, which is a renewal with these roles, and lets one
        that was revoked in again.
        """
        with self._locked() as (register, authority):
            config = self.config()
            chosen = tuple(dict.fromkeys(roles)) or _roles_in(config, name)
            self._check(config, register, name, chosen, streams, again=again)
            entry = register.entry(name) if register.knows(name) else Entry(name, chosen, new_secret())
            entry = replace(entry, roles=chosen, streams=tuple(streams) if streams else None, revoked=False)
            return self._issue(register, authority, config, entry, days)

    def renew(self, name: str, *, days: float = MEMBER_DAYS) -> Path:
        """Write a new file: a new certificate, the configuration as it is now. The old one is good to its end."""
        with self._locked() as (register, authority):
            entry = register.entry(name)
            if entry.revoked:
                raise ConfigError(f"{name} was revoked; `trisect enrol {name} --again` lets it in again")
            return self._issue(register, authority, self.config(), entry, days)

    def revoke(self, name: str) -> None:
        """Lock a member out, with every certificate that it ever had."""
        with self._locked() as (register, authority):
            entry = register.entry(name)
            refused = tuple(replace(one, revoked=True) for one in entry.certificates)
            # with another secret, whatever the broker still holds for its client ids is nobody's
            entry = replace(entry, revoked=True, certificates=refused, secret=new_secret())
            self._save(register.put(entry), authority, self.config())
            (self.enrolments / f"{name}{enrolment.SUFFIX}").unlink(missing_ok=True)

    def config_as(self, name: str) -> Config:
        """The configuration to enter with as this member, for an hour: to tidy up after one that is gone."""
        with self._locked() as (register, authority):
            entry = register.entry(name)
            if entry.revoked:
                raise ConfigError(f"{name} was revoked; forget a node before it is revoked, or enrol it again for that")
            content = self._issued(register, authority, self.config(), entry, days=1 / 24)
        config = self.config()
        return config.model_copy(update={"broker": content.enter(config.broker)})

    def renew_broker(self, hosts: Sequence[str] = ()) -> None:
        """Give the broker a new certificate, and names and addresses if there are others."""
        _require_hosts(hosts)
        with self._locked() as (register, authority):
            known = replace(register, hosts=tuple(hosts) or register.hosts)
            self._certify(known, authority)
            self._save(known, authority, self.config())

    def refresh(self) -> None:
        """Write the broker's lists again, after a change of the configuration."""
        with self._locked() as (register, authority):
            self._save(register, authority, self.config())

    def members(self) -> list[Member]:
        """Whom the broker lets in, with what they may do."""
        register, config = self.register(), self.config()
        return [_member(entry, config) for entry in register.members]

    def _certify(self, register: Register, authority: Authority) -> None:
        """New certificates for the brokers, and for the bridge between them."""
        issued = authority.issue_broker(register.pipeline, [*register.hosts, *_LOCAL])
        broker_files.write_certificate(self.broker, issued)
        if not register.cloud_hosts:
            return
        issued = authority.issue_broker(register.pipeline, [*register.cloud_hosts, *_LOCAL])
        broker_files.write_certificate(self.cloud_broker, issued)
        bridge = authority.issue_member(acl.user_of(register.pipeline, acl.BRIDGE), days=BROKER_DAYS)
        names = Namespace(register.pipeline)
        broker_files.write_bridge(self.broker, bridge, register.cloud_hosts[0], register.port, names)

    def _issue(self, register: Register, authority: Authority, config: Config, entry: Entry, days: float) -> Path:
        path = self.enrolments / f"{entry.name}{enrolment.SUFFIX}"
        enrolment.write(path, self._issued(register, authority, config, entry, days))
        return path

    def _issued(
        self, register: Register, authority: Authority, config: Config, entry: Entry, days: float
    ) -> enrolment.Enrolment:
        issued = authority.issue_member(acl.user_of(register.pipeline, entry.name), roles=entry.roles, days=days)
        now = datetime.now(timezone.utc)
        kept = tuple(one for one in entry.certificates if one.expires > now)
        entry = replace(entry, certificates=(*kept, Certificate(issued.serial, issued.expires)))
        register = register.put(entry)
        self._save(register, authority, config)
        return enrolment.Enrolment(
            enrolment=1,
            name=entry.name,
            roles=entry.roles,
            expires=issued.expires,
            broker=tuple(
                enrolment.Endpoint(host=host, port=register.port) for host in _hosts_for(entry, register, config)
            ),
            secret=entry.secret,
            authority=authority.pem,
            certificate=issued.certificate,
            key=issued.key,
            configuration=_portable(self.configuration),
        )

    def _save(self, register: Register, authority: Authority, config: Config) -> None:
        if config.pipeline != register.pipeline:
            raise ConfigError(
                f"{self.configuration}: pipeline is {config.pipeline!r}, and certificates are for "
                f"{register.pipeline!r}; change it back, or make another folder with `trisect init`"
            )
        names = Namespace(register.pipeline)
        members = [_member(entry, config) for entry in register.members]
        revoked, date = authority.revocations(
            register.revoked_serials(datetime.now(timezone.utc)), after=register.revocations_at
        )
        # the register first: what it does not know of could never be revoked
        register = replace(register, revocations_at=date)
        enrolment.write_private(self._authority / _REGISTER, to_json(register))
        broker_files.write_lists(self.broker, access=acl.render(members, names), revoked=revoked)
        if register.cloud_hosts:
            listed = acl.render(members, names, bridge=True)
            broker_files.write_lists(self.cloud_broker, access=listed, revoked=revoked)

    @contextmanager
    def _locked(self) -> Iterator[tuple[Register, Authority]]:
        register = self.register()
        with (self._authority / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            register = self.register()
            texts = [(self._authority / name).read_text() for name in ("authority.pem", "authority.key")]
            yield register, read_authority(*texts)

    @staticmethod
    def _check(
        config: Config,
        register: Register,
        name: str,
        roles: tuple[Role, ...],
        streams: Sequence[str] | None,
        *,
        again: bool,
    ) -> None:
        if not valid_id(name):
            raise ConfigError(f"{name!r} is no name for a member; allowed: 1 to 128 of a-z, 0-9 and -")
        if register.knows(name) and not again:
            state = "was revoked" if register.entry(name).revoked else "is enrolled"
            raise ConfigError(
                f"{name} {state} already; `trisect renew {name}` makes a new file, --again changes its roles"
            )
        if ("planner" in roles) != (name == config.planner.id):
            raise ConfigError(
                f"the planner of this pipeline is {config.planner.id!r}, so that {name!r} cannot be {roles}"
            )
        if streams is not None and "camera" not in roles:
            raise ConfigError("streams are a camera's; a device has those that the configuration gives it")
        unknown = [stream for stream in streams or () if stream not in config.streams]
        if unknown:
            raise ConfigError(f"unknown stream {unknown[0]!r}; streams here: {', '.join(config.streams)}")


_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
"""Of a member on the broker's own machine, and of `trisect doctor` there."""


def _roles_in(config: Config, name: str) -> tuple[Role, ...]:
    if name in config.nodes:
        return ("node",)
    if name == config.planner.id:
        return ("planner",)
    raise ConfigError(
        f"{name!r} is no node of the configuration and not its planner; give --role, one of {', '.join(acl.ROLES)}, "
        f"or a name of: {', '.join((*config.nodes, config.planner.id))}"
    )


def _require_hosts(hosts: Sequence[str]) -> None:
    """Raise ConfigError for what is neither a host's name (RFC 1123, and `_`) nor an address."""
    for host in hosts:
        try:
            ip_address(host)
        except ValueError:
            if len(host) > _LONGEST_HOST or not _HOST.fullmatch(host):
                raise ConfigError(
                    f"{host!r:.150} is neither a host's name nor an address; give a name of letters, digits, - and "
                    "dots, or an address such as 192.168.1.10, without a port"
                ) from None


def _require_ports(port: int, websockets_port: int | None) -> None:
    if port == websockets_port:
        raise ConfigError(f"port {port} is asked for twice, for MQTT and for websockets; give two ports")


def _hosts_for(entry: Entry, register: Register, config: Config) -> tuple[str, ...]:
    """The broker that stands nearest."""
    node = config.nodes.get(NodeId(entry.name))
    is_cloud = node is not None and node.tier is Tier.CLOUD
    return register.cloud_hosts if is_cloud and register.cloud_hosts else register.hosts


def _member(entry: Entry, config: Config) -> Member:
    if "node" in entry.roles:
        owned = tuple(name for name, stream in config.streams.items() if stream.device == entry.name)
        return Member(entry.name, entry.roles, owned)
    return Member(entry.name, entry.roles, entry.streams)


def _portable(path: Path) -> str:
    """The configuration as a member gets it: without a way to the broker, which its file has by itself."""
    values, _, _ = read_yaml(path.read_text(encoding="utf-8"), path)
    values.pop("broker", None)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
