"""Packages that come in pieces, in a cache that has room for few of them: it stays within its bound."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nodes.packages.store import PackageStore
from pipeline.errors import ModelError
from pipeline.models import kept
from pipeline.pieces.manifest import LEAST_PIECE_BYTES, PackageManifest, manifest_of
from pipeline.pieces.partial import WholeFile
from tests.unit.pipeline.pieces.test_pieces import package_file

PACKAGES = 12
ROOM = 2.5
"""Packages that have room at a time."""


@pytest.fixture
def sources(tmp_path: Path) -> list[WholeFile]:
    found = []
    for seed in range(PACKAGES):
        package = package_file(tmp_path / f"{seed}.trisect", seed=seed)
        found.append(WholeFile(package.path, manifest_of(package, name="chain", piece_bytes=LEAST_PIECE_BYTES)))
    return found


def limited_to(nbytes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kept.LIMIT_VARIABLE, str(nbytes / kept.GIGABYTE))


def fetch(store: PackageStore, source: WholeFile, pieces: frozenset[int]) -> None:
    """As the downloads do: room for what is wanted, then the pieces."""
    manifest: PackageManifest = source.manifest
    package = store.sources.get(manifest.digest) or store.open(manifest.digest, manifest)
    store.make_room(package, pieces, frozenset())  # type: ignore[arg-type]
    for piece in package.missing(pieces):  # type: ignore[attr-defined]
        assert package.put(piece, source.read(piece))  # type: ignore[attr-defined]


def test_the_cache_keeps_its_bound_over_many_packages_and_parts_of_them(
    tmp_path: Path, sources: list[WholeFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = ROOM * sources[0].manifest.size
    limited_to(limit, monkeypatch)
    store, draw = PackageStore(tmp_path / "cache"), random.Random(0)
    for turn in range(3 * PACKAGES):
        source = sources[turn % PACKAGES]
        whole = sorted(source.manifest.whole)
        fetch(store, source, frozenset(draw.sample(whole, draw.randrange(1, len(whole)))))
        assert kept.taken_bytes(store.directory) <= limit
        held = store.sources.pop(source.manifest.digest)  # the model is not in use any more
        held.close()  # type: ignore[attr-defined]
    assert 1 < len(list(store.directory.iterdir())) < PACKAGES


def test_a_package_in_use_gives_up_what_no_epoch_wants_and_no_more(
    tmp_path: Path, sources: list[WholeFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sources[0]
    whole = sorted(source.manifest.whole)
    half = len(whole) // 2
    limit = sum(map(source.manifest.nbytes_of, whole[: half + 4]))
    limited_to(limit, monkeypatch)
    store = PackageStore(tmp_path / "cache")
    fetch(store, source, frozenset(whole[:half]))
    fetch(store, source, frozenset(whole[half:]))
    assert kept.taken_bytes(store.directory) <= limit
    assert store.held()[source.manifest.digest] >= set(whole[half:])
    with pytest.raises(ModelError, match="TRISECT_PACKAGES_GB allows"):
        fetch(store, source, frozenset(whole))
    assert kept.taken_bytes(store.directory) <= limit
