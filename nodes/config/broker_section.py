"""The `broker` section of a configuration file: where the broker is, and who we are to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator

from nodes.config.base import Section
from nodes.config.credentials import Credentials
from nodes.config.values import ENDPOINT, LocalPath, as_tuple, endpoint_of, host_alone


class BrokerSection(Section):
    """The MQTT broker's address and our credentials."""

    host: Annotated[str, AfterValidator(host_alone)] = Field(
        "127.0.0.1",
        pattern=r"^[^\s/\[\]@]{1,253}$",
        description="a host name or address alone: no mqtt:// before it, no brackets around it, no port after it",
    )
    port: int = Field(1883, ge=1, le=65535, description="a port from 1 to 65535")
    username: str | None = Field(None, description="text, in quotes if it looks like a number, or null")
    password: str | None = Field(
        None, repr=False, description="text, in quotes if it looks like a number, or null; needs a username"
    )

    alternatives: Annotated[
        tuple[Annotated[str, Field(pattern=ENDPOINT, description="a host, or host:port")], ...],
        BeforeValidator(as_tuple),
    ] = Field((), description="a list of other ways to the same broker, host or host:port, tried in turn")
    tls: bool = Field(False, description="true (encrypted) or false; ca, certificate and key make it true")
    ca: LocalPath | None = Field(
        None, description="the path of the authority's certificate in PEM; left out: the system's authorities"
    )
    certificate: LocalPath | None = Field(None, description="the path of this client's certificate in PEM")
    key: LocalPath | None = Field(None, description="the path of that certificate's key in PEM, without a password")
    _credentials: Credentials | None = PrivateAttr(None)

    @property
    def credentials(self) -> Credentials | None:
        """An enrolled member's, in place of files."""
        return self._credentials

    def enrolled(self, credentials: Credentials, endpoints: Sequence[tuple[str, int]]) -> BrokerSection:
        """The section of an enrolled member, for these hosts and ports of the broker."""
        (host, port), *others = endpoints
        alternatives = tuple(f"[{name}]:{at}" if ":" in name else f"{name}:{at}" for name, at in others)
        section = BrokerSection(host=host, port=port, tls=True, alternatives=alternatives)
        section._credentials = credentials
        return section

    @property
    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """Hosts and ports, the preferred one first; an alternative without a port has the first one's."""
        found = [(self.host, self.port)]
        for text in self.alternatives:
            host, port = endpoint_of(text)
            found.append((host, port or self.port))
        return tuple(found)

    @model_validator(mode="after")
    def _password_has_an_owner(self) -> BrokerSection:
        if self.password is not None and self.username is None:
            raise ValueError("a password without a username; give both or neither")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate goes with its key; give both or neither")
        return self
