"""The `transport` section of a configuration file, and a node's part in the direct way."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from nodes.config.base import Section
from nodes.config.values import host_alone

_HOST = r"^[^\s/\[\]@]{1,253}$"


class TransportSection(Section):
    """Transport of tensors. A chunk is smaller where the broker's packet limit is: 16 MiB for ours, 1 MB elsewhere."""

    chunk_bytes: int = Field(
        1_048_576, ge=16_384, le=8_388_608, description="bytes from 16384 to 8388608; about 1 MiB is fastest"
    )
    expiry_s: int = Field(
        30, ge=1, le=3600, description="whole seconds from 1 to 3600 that a tensor may wait in the broker"
    )
    keepalive_s: int = Field(15, ge=1, le=600, description="whole seconds from 1 to 600 after which silence means lost")
    direct: bool = Field(
        False,
        description="true (tensors go from node to node where they can, and through the broker elsewhere) or false",
    )


class DirectSection(Section):
    """Where a node listens for tensors that come directly, and where others find it, if it does not see that itself."""

    host: Annotated[str, AfterValidator(host_alone)] | None = Field(
        None, pattern=_HOST, description="the host name or address by which other nodes reach it, without a port"
    )
    port: int | None = Field(None, ge=1, le=65535, description="the port at which they do, from 1 to 65535")
    listen_host: Annotated[str, AfterValidator(host_alone)] | None = Field(
        None, pattern=_HOST, description="the address of this machine to listen on; all of them if left out"
    )
    listen_port: int | None = Field(
        None, ge=1, le=65535, description="the port to listen on, if it is not port; any free one if both are left out"
    )

    @model_validator(mode="after")
    def _translated_ports_are_told(self) -> DirectSection:
        if self.listen_port is not None and self.port is None:
            raise ValueError(
                "listen_port without port; give the port at which others reach it, alone if it is the same"
            )
        return self
