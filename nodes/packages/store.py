"""Packages that are open in this process, to be fetched or served, and the room that they may take on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.lite.package import SUFFIX
from pipeline.models import kept
from pipeline.pieces.manifest import PackageManifest
from pipeline.pieces.partial import PartialPackage


class Source(Protocol):
    """Something that has pieces of a package."""

    @property
    def manifest(self) -> PackageManifest:
        """Its manifest."""
        ...

    @property
    def held(self) -> frozenset[int]:
        """Pieces that are here."""
        ...

    def read(self, piece: int) -> bytes | None:
        """A piece's bytes, None where they are not here."""
        ...


@dataclass(slots=True)
class PackageStore:
    """Sources by their packages' digests. One thread changes them; `read` may be called from another."""

    directory: Path
    sources: dict[str, Source] = field(default_factory=dict)

    def has_file(self, package: str) -> bool:
        """True for a package of which an earlier run has left a file."""
        return (self.directory / f"{package}{SUFFIX}").exists()

    def open(self, package: str, manifest: PackageManifest) -> PartialPackage:
        """Open the package's file, perhaps a new one. Raises ModelError where it cannot be written."""
        source = PartialPackage(self.directory, manifest)
        self.sources[package] = source
        return source

    def remove(self, package: str) -> None:
        """Delete the package's file; one that is only served from elsewhere stays."""
        source = self.sources.pop(package, None)
        if isinstance(source, PartialPackage):
            source.path.unlink(missing_ok=True)
            source.close()

    def held(self) -> Mapping[str, frozenset[int]]:
        """Pieces that are here, of the packages of which there are any."""
        held = {package: source.held for package, source in self.sources.items()}
        return {package: pieces for package, pieces in held.items() if pieces}

    def read(self, package: str, piece: int) -> bytes | None:
        """A piece's bytes, None where they are not here."""
        source = self.sources.get(package)
        return source.read(piece) if source is not None else None

    def make_room(self, package: PartialPackage, pieces: frozenset[int], in_use: frozenset[int]) -> None:
        """Remove other packages for these pieces, and in the end pieces of this one that are not in use.

        Raises ModelError for a cache that is too small for them, ConfigError for a limit that is none.
        """
        limit, nbytes_of = kept.limit_bytes(), package.manifest.nbytes_of
        wanted = sum(map(nbytes_of, pieces))
        if wanted > limit:
            raise kept.too_small(f"{len(pieces)} pieces of package {package.digest}", wanted, limit)
        missing = sum(map(nbytes_of, package.missing(pieces)))
        if not missing:
            return
        kept.prune(self.directory, max(0.0, limit - missing))
        if (over := kept.taken_bytes(self.directory) + missing - limit) > 0:
            unwanted = iter(sorted(package.held - pieces - in_use))
            while over > 0 and (piece := next(unwanted, None)) is not None:
                over -= package.forget([piece])
