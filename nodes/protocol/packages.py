"""The JSON messages about packages of models: what is published, who holds what, what is asked for, what is in use.

A published package and a version are sealed by an operator where the pipeline has an authority
(`nodes.enrolment.seal`): then neither the broker nor another member can pass something else off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from nodes.protocol.messages import NodeName, parse_json
from pipeline import ranges
from pipeline.errors import MessageError
from pipeline.pieces.manifest import PackageManifest, Spans, read_manifest
from pipeline.protocol_version import PROTOCOL_VERSION, require_protocol
from pipeline.ranges import Count, Name, Seconds, Timestamp, Word

PUSHED: Final = "pushed"
"""The `source` of a model whose packages come from the broker."""
MOST_ASKED: Final = 64
MOST_PACKAGES: Final = 64
"""That a pipeline may have published at a time."""
SHORT: Final = 12
"""Digits of a package's digest that a model's name ends in."""
PackageDigest = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{32}$")]


@dataclass(frozen=True, slots=True)
class Seal:
    """An operator's signature, with the certificate that it is held against, in PEM."""

    certificate: Annotated[str, StringConstraints(strict=True, max_length=8_192)]
    signature: Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{8,1024}$")]


@dataclass(frozen=True, slots=True)
class PublishedPackage:
    """A package's manifest as it is retained."""

    manifest: PackageManifest
    digest: str
    seal: Seal | None = None

    def text(self, pipeline: str) -> str:
        """What is sealed."""
        return f"trisect package {pipeline} {self.digest}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        seal = asdict(self.seal) if self.seal is not None else None
        return {"protocol": PROTOCOL_VERSION, "manifest": self.manifest.to_json(), "seal": seal}


@dataclass(frozen=True, slots=True)
class Version:
    """Which package a model is from now on. `number` counts a model's roll-outs; a lower one is an old message."""

    model: Name
    package: PackageDigest
    number: Count
    ts: Timestamp = 0.0
    by: Word = ""
    seal: Seal | None = None

    def text(self, pipeline: str) -> str:
        """What is sealed."""
        return f"trisect version {pipeline} {self.model} {self.package} {self.number}"

    @property
    def name(self) -> str:
        """The model's name in plans: of this one package."""
        return versioned(self.model, self.package)


@dataclass(frozen=True, slots=True)
class Holdings:
    """The pieces that a process can publish, as half-open spans by package."""

    node: NodeName
    packages: Annotated[Mapping[PackageDigest, Spans], Field(max_length=MOST_PACKAGES)] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fetch:
    """A request to publish pieces of a package, as half-open spans of at most `MOST_ASKED` altogether.

    What was published in the last `listening_s` seconds has reached the asker, or will.
    """

    package: PackageDigest
    pieces: Spans
    listening_s: Seconds = 0.0


def versioned(model: str, package: str) -> str:
    """The name of a model in plans while this package is what it is."""
    return f"{model}.{package[:SHORT]}"


def family_of(model: str) -> str:
    """The configuration's name of a model whose name in plans may be that of a version."""
    family, _, short = model.rpartition(".")
    return family if family and len(short) == SHORT else model


def read_published(payload: bytes) -> PublishedPackage:
    """A published package. Raises TrisectError."""
    value = parse_json(payload)
    require_protocol(value.get("protocol"), error=MessageError, what="a package")
    manifest = value.get("manifest")
    if not isinstance(manifest, Mapping):
        raise MessageError("manifest: a JSON object expected")
    seal = value.get("seal")
    read = read_manifest(manifest)
    held = ranges.read(Seal, seal, error=MessageError, what="a seal") if seal is not None else None
    return PublishedPackage(read, read.digest, held)


def read_fetch(payload: bytes) -> Fetch:
    """A request for pieces. Raises MessageError."""
    value = parse_json(payload)
    require_protocol(value.pop("protocol", None), error=MessageError, what="a Fetch")
    asked = ranges.read(Fetch, value, error=MessageError, what="a request for pieces")
    count = sum(max(0, end - start) for start, end in asked.pieces)
    if not 0 < count <= MOST_ASKED:
        raise MessageError(f"pieces: 1 to {MOST_ASKED} at a time, not {count}")
    return asked
