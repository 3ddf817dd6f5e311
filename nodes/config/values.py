"""Types of single values in a configuration file: ids, keys of tables, paths, endpoints."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, ValidationInfo

from pipeline.plan import NodeId, StreamId

ID = r"^[a-z0-9-]{1,128}$"
ENDPOINT = r"^(\[[0-9A-Fa-f:.]+\]|[^\s/\[\]@:]{1,253})(:\d{1,5})?$|^[0-9A-Fa-f:.]{1,64}$"
_MODEL_NAME = r"^[a-z0-9_.-]{1,128}$"
_MOST_PORTS = 65_535


def path_beside_file(value: Any, info: ValidationInfo) -> Any:
    """A path, absolute or relative to the folder of the configuration file. Raises ValueError for anything else."""
    if not isinstance(value, str) or not value:
        raise ValueError("a path, relative to this file's folder")
    return info.context["folder"] / Path(value).expanduser() if info.context else Path(value).expanduser()


def endpoint_of(text: str) -> tuple[str, int | None]:
    """Host and port of `host`, `host:port`, an IPv6 address, or `[address]:port`. Raises ValueError."""
    bracketed = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::(\d{1,5}))?", text)
    if bracketed is None and text.count(":") > 1:
        return text, None
    host, port = (bracketed[1], bracketed[2]) if bracketed else (text.partition(":")[0], text.partition(":")[2] or None)
    if not host or (port is not None and not 1 <= int(port) <= _MOST_PORTS):
        raise ValueError(f"{text!r} is no host or host:port")
    return host, int(port) if port is not None else None


def host_alone(value: str) -> str:
    """A host name or address. Raises ValueError for one with a port behind it."""
    if ":" in value:  # in a name there is none: an address of IPv6, or a port behind the host
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise ValueError("a host name or address alone; the port has a key of its own") from None
    return value


def as_tuple(value: Any) -> Any:
    """A list as a tuple, as strict tuples ask for; anything else as it is."""
    return tuple(value) if isinstance(value, list) else value


LocalPath: TypeAlias = Annotated[Path, BeforeValidator(path_beside_file)]
"""A path that the configuration file gives relative to itself."""

Id: TypeAlias = Annotated[str, Field(pattern=ID)]
StreamKey: TypeAlias = Annotated[StreamId, Field(pattern=ID, description="a stream's id of a-z, 0-9 and -")]
NodeKey: TypeAlias = Annotated[NodeId, Field(pattern=ID, description="a node's id of a-z, 0-9 and -")]
ModelKey: TypeAlias = Annotated[str, Field(pattern=_MODEL_NAME, description="a model's name of a-z, 0-9, -, _ and .")]
