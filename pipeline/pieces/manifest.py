"""A package in pieces: equal parts of its file, each named by its SHA-256, so that a node fetches those it needs.

The manifest has the digests of all pieces, which blocks read which of them, and what travels with the network: labels
and preprocessing. A package is named by the digest of its manifest, so whoever trusts that name trusts every byte.
Knows no network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, StringConstraints

from pipeline import ranges
from pipeline.answers.task import Task
from pipeline.errors import ModelError
from pipeline.frames.input_blocks import ADDED, has_input
from pipeline.graph import ModelGraph
from pipeline.lite.package import Package
from pipeline.models import PreprocessMode
from pipeline.ranges import Count, Name, Word

PIECE_BYTES: Final = 512 << 10
"""Small enough for brokers that take a megabyte, large enough that a piece's message and digest weigh nothing."""
LEAST_PIECE_BYTES: Final = 16 << 10
MOST_PIECE_BYTES: Final = 1 << 20
MOST_PIECES: Final = 60_000
DIGEST_HEX: Final = 32
MOST_LABELS: Final = 100_000
VERSION: Final = 1

Piece = Annotated[int, Field(strict=True, ge=0, lt=MOST_PIECES)]
Span = tuple[Piece, Annotated[int, Field(strict=True, ge=1, le=MOST_PIECES)]]
"""Pieces, half-open."""


def _in_order(spans: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """A thousand spans of all pieces would take seconds to count."""
    last = 0
    for start, end in spans:
        if start < last or end <= start:
            raise ValueError(f"spans in order that do not overlap expected, not {start} to {end} behind {last}")
        last = end
    return spans


Spans = Annotated[tuple[Span, ...], Field(max_length=1_000), AfterValidator(_in_order)]
PieceDigest = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{64}$")]
Extent = Annotated[int, Field(strict=True, ge=1, le=65_536)]
Label = Annotated[str, StringConstraints(strict=True, max_length=200)]


@dataclass(frozen=True, slots=True)
class PackageManifest:
    """What a package consists of.

    Attributes:
        name: of the network, as its models section or its file has it.
        model: digest of the network.
        size: bytes of the file.
        piece_bytes: of all pieces but the last.
        pieces: SHA-256 of each piece.
        header: pieces without which nothing can be read.
        blocks: by block, the pieces that have its constants.
        mode, height, width: preprocessing of frames; a height of None leaves the network's own.
        labels: of its classes, or None.
        task: of the network, or None where the configuration says it.
    """

    name: Name
    model: Name
    size: Count
    piece_bytes: Annotated[int, Field(strict=True, ge=LEAST_PIECE_BYTES, le=MOST_PIECE_BYTES)]
    pieces: Annotated[tuple[PieceDigest, ...], Field(min_length=1, max_length=MOST_PIECES)]
    header: Spans
    blocks: Annotated[tuple[Spans, ...], Field(min_length=1, max_length=ranges.MOST_BLOCKS)]
    mode: PreprocessMode = "none"
    height: Extent | None = None
    width: Extent | None = None
    labels: Annotated[tuple[Label, ...], Field(max_length=MOST_LABELS)] | None = None
    task: Task | None = None
    packed_by: Word = ""
    version: int = VERSION

    @property
    def digest(self) -> str:
        """The package's name: of all that is in the manifest, and so of every byte of the file."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_HEX]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def nbytes_of(self, piece: int) -> int:
        """Bytes of a piece; the last one's are what is left."""
        return min(self.piece_bytes, self.size - piece * self.piece_bytes)

    def needed(self, blocks: Iterable[int]) -> frozenset[int]:
        """Pieces that a segment of these blocks reads, the header's among them."""
        return frozenset(_indices(chain(self.header, *(self.blocks[block] for block in blocks))))

    def own_blocks(self, graph: ModelGraph, blocks: Iterable[int]) -> list[int]:
        """Numbers in the package of these blocks of a graph, which may have the input's and the answer's own, too."""
        added = ADDED if has_input(graph) else 0
        return [block - added for block in blocks if added <= block < added + len(self.blocks)]

    @property
    def whole(self) -> frozenset[int]:
        """All pieces."""
        return frozenset(range(len(self.pieces)))

    def is_piece(self, index: int, data: bytes | memoryview) -> bool:
        """True for the very bytes of this piece."""
        is_known = 0 <= index < len(self.pieces) and len(data) == self.nbytes_of(index)
        return is_known and hashlib.sha256(data).hexdigest() == self.pieces[index]


def read_manifest(value: Mapping[str, Any]) -> PackageManifest:
    """The manifest in plain JSON values. Raises ModelError for what is none, or contradicts itself."""
    ranges.require_version(value, VERSION, error=ModelError, what="package manifest")
    manifest = ranges.read(PackageManifest, value, error=ModelError, what="a package's manifest")
    expected = -(-manifest.size // manifest.piece_bytes)
    if expected != len(manifest.pieces):
        raise ModelError(f"pieces: {expected} for {manifest.size:,} bytes expected, not {len(manifest.pieces)}")
    ends = [end for start, end in chain(manifest.header, *manifest.blocks) if not start < end <= expected]
    if ends:
        raise ModelError(f"blocks: pieces up to {expected} there are, not up to {max(ends)}")
    return manifest


def manifest_of(
    package: Package,
    *,
    name: str,
    piece_bytes: int = PIECE_BYTES,
    labels: Sequence[str] | None = None,
    mode: PreprocessMode | None = None,
    size: tuple[int, int] | None = None,
) -> PackageManifest:
    """The manifest of a package file; `labels`, `mode` and `size` (height, width) in place of those in it.

    Raises ModelError for a package with more pieces than a manifest has room for.
    """
    nbytes = package.path.stat().st_size
    if -(-nbytes // piece_bytes) > MOST_PIECES:
        raise ModelError(
            f"package {package.path} has {nbytes:,} bytes, and at most {MOST_PIECES * piece_bytes:,} can be published "
            f"in pieces of {piece_bytes:,}",
            size=nbytes,
            limit=MOST_PIECES * piece_bytes,
        )
    about = package.about
    held, sides = about.get("labels"), size or about.get("size")
    given = tuple(labels) if labels is not None else tuple(map(str, held)) if isinstance(held, list) else None
    blocks = tuple(
        spans_of(_pieces_of(package.extents(block), piece_bytes)) for block in range(len(package.graph.blocks))
    )
    values = {
        "name": name,
        "model": package.graph.digest,
        "size": nbytes,
        "piece_bytes": piece_bytes,
        "pieces": tuple(_digests(package.path, piece_bytes)),
        "header": spans_of(_pieces_of(package.header_extents(nbytes), piece_bytes)),
        "blocks": blocks,
        "mode": mode or about.get("preprocess") or "none",
        "height": sides[0] if sides else None,
        "width": sides[1] if sides else None,
        "labels": given,
        "task": about.get("task"),
        "packed_by": str(about.get("trisect", ""))[:200],
        "version": VERSION,
    }
    return ranges.read(PackageManifest, values, error=ModelError, what="a package's manifest")


def _digests(path: Path, piece_bytes: int) -> Iterator[str]:
    with path.open("rb") as file:
        while data := file.read(piece_bytes):
            yield hashlib.sha256(data).hexdigest()


def _pieces_of(extents: Iterable[tuple[int, int]], piece_bytes: int) -> set[int]:
    """Pieces in which bytes from start to end lie, for all of these."""
    return {i for start, end in extents for i in range(start // piece_bytes, -(-end // piece_bytes))}


def _indices(spans: Iterable[tuple[int, int]]) -> Iterator[int]:
    for start, end in spans:
        yield from range(start, end)


def spans_of(pieces: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Pieces as half-open spans, in order."""
    spans: list[list[int]] = []
    for piece in sorted(set(pieces)):
        if spans and spans[-1][1] == piece:
            spans[-1][1] += 1
        else:
            spans.append([piece, piece + 1])
    return tuple((start, end) for start, end in spans)


def pieces_in(spans: Iterable[tuple[int, int]]) -> frozenset[int]:
    """Pieces of these spans."""
    return frozenset(_indices(spans))
