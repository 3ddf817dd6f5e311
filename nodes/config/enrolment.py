"""The enrolment file: all that one machine needs to take part in a pipeline, as one YAML file with PEM texts.

Written where the authority is, read where a node, the planner or a person is; it holds a private key, so it is for its
owner only. `load` makes a Config of it, so that whatever takes a configuration file takes an enrolment, too.
"""

from __future__ import annotations

import logging
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from nodes.config.base import Section
from nodes.config.bounded_yaml import read_yaml
from nodes.config.broker_section import BrokerSection
from nodes.config.credentials import Credentials
from pipeline.errors import ConfigError

_log = logging.getLogger(__name__)

VERSION: Final = 1
MARK: Final = "# A trisect enrolment"
SUFFIX: Final = ".enrolment"
_OTHERS: Final = 0o077


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Endpoint(Section):
    """One way to the broker."""

    host: str = Field(min_length=1, max_length=255)
    port: int = Field(ge=1, le=65_535)


class Enrolment(Section):
    """The file's content. `configuration` is the pipeline's YAML, without its broker section."""

    enrolment: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9-]{1,128}$")
    roles: Annotated[tuple[str, ...], BeforeValidator(_tuple), Field(min_length=1, max_length=8)]
    expires: datetime
    broker: Annotated[tuple[Endpoint, ...], BeforeValidator(_tuple), Field(min_length=1, max_length=16)]
    secret: str = Field(pattern=r"^[0-9a-f]{16,64}$", repr=False)
    authority: str = Field(max_length=65_536)
    certificate: str = Field(max_length=65_536)
    key: str = Field(max_length=65_536, repr=False)
    configuration: str = Field(max_length=1 << 20)

    @property
    def credentials(self) -> Credentials:
        """What the broker wants to see."""
        return Credentials(
            self.name, self.roles, self.expires, self.authority, self.certificate, key=self.key, secret=self.secret
        )

    def enter(self, section: BrokerSection) -> BrokerSection:
        """The configuration's broker section, as this member enters."""
        return section.enrolled(self.credentials, [(at.host, at.port) for at in self.broker])


def is_enrolment(text: str) -> bool:
    """Whether the text of a file is an enrolment, and no configuration."""
    return text.startswith(MARK)


def parse(text: str, path: Path) -> Enrolment:
    """Read the text of an enrolment. Raises ConfigError, which shows nothing of its secrets."""
    try:
        values, _, _ = read_yaml(text, path)
        if isinstance(values, dict) and isinstance(values.get("expires"), datetime):
            expires = values["expires"]
            values["expires"] = expires if expires.tzinfo else expires.replace(tzinfo=timezone.utc)
        found = Enrolment.model_validate(values)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{path}: no enrolment of this version of trisect: {_where(error)}; enrol again") from error
    if path.exists() and path.stat().st_mode & _OTHERS:
        _log.warning("%s holds a private key, and others on this machine may read it; chmod 600 %s", path, path)
    return found


def _where(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False))
    return "it is not YAML"


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they are."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def render(enrolment: Enrolment) -> str:
    """The text of the file."""
    values = enrolment.model_dump(mode="python")
    values["roles"] = list(values["roles"])
    values["broker"] = list(values["broker"])
    head = f"{MARK} of {enrolment.name} ({', '.join(enrolment.roles)}). It holds a private key: for its owner only.\n"
    return head + yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def write(path: Path, enrolment: Enrolment) -> None:
    """Write the file, whole or not at all, readable by its owner only."""
    write_private(path, render(enrolment))


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file whole or not at all, with these rights from its first byte on."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.chmod(mode)
    draft.replace(path)
