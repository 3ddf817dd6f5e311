"""Who belongs to a pipeline: members, their roles and certificates, as one JSON file beside the authority's key."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter, ValidationError

from broker.acl import Role
from pipeline.errors import ConfigError

VERSION: Final = 1
SECRET_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Certificate:
    """One that was issued; a revoked one stays in the list of those until it has ended anyway."""

    serial: int
    expires: datetime
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One member. `streams` are those that a camera feeds, None for all; a device's are in the configuration."""

    name: str
    roles: tuple[Role, ...]
    secret: str = field(repr=False)
    streams: tuple[str, ...] | None = None
    certificates: tuple[Certificate, ...] = ()
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Register:
    """All members, those that were revoked as well, and where the broker is: with `cloud_hosts`, a second one there."""

    pipeline: str
    hosts: tuple[str, ...]
    port: Annotated[int, Field(ge=1, le=65_535)]
    websockets_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    cloud_hosts: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()
    revocations_at: datetime | None = None
    version: int = VERSION

    def entry(self, name: str) -> Entry:
        """The member of this name. Raises ConfigError."""
        found = next((entry for entry in self.entries if entry.name == name), None)
        if found is None:
            known = ", ".join(entry.name for entry in self.entries) or "nobody yet"
            raise ConfigError(f"{name!r} is not enrolled; enrolled: {known}")
        return found

    def knows(self, name: str) -> bool:
        """Whether there is, or was, a member of this name."""
        return any(entry.name == name for entry in self.entries)

    def put(self, entry: Entry) -> Register:
        """With this entry in the place of one of its name, or at the end."""
        if self.knows(entry.name):
            return replace(self, entries=tuple(entry if one.name == entry.name else one for one in self.entries))
        return replace(self, entries=(*self.entries, entry))

    @property
    def members(self) -> tuple[Entry, ...]:
        """Those who may enter."""
        return tuple(entry for entry in self.entries if not entry.revoked)

    def revoked_serials(self, now: datetime) -> list[int]:
        """Certificates to refuse, which would be good otherwise."""
        return [one.serial for entry in self.entries for one in entry.certificates if one.revoked and one.expires > now]


def new_secret() -> str:
    """The end of a member's client ids, which nobody guesses."""
    return secrets.token_hex(SECRET_BYTES)


_ADAPTER: Final = TypeAdapter(Register)


def to_json(register: Register) -> str:
    """The file's text."""
    return _ADAPTER.dump_json(register, indent=1).decode() + "\n"


def from_json(text: str) -> Register:
    """Read the file's text. Raises ConfigError."""
    try:
        register = _ADAPTER.validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"the register of members cannot be read: {error.error_count()} faults") from error
    if register.version != VERSION:
        raise ConfigError(f"the register is of version {register.version}, and this trisect reads {VERSION}")
    return register


def shown(entry: Entry) -> dict[str, Any]:
    """What a person may see of an entry."""
    values = asdict(entry)
    del values["secret"]
    return values
