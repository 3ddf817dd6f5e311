"""Packages in pieces: each byte named by the manifest, files that are filled in any order, and found again."""

import json
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pipeline.answers.task import Task
from pipeline.errors import ModelError
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.lite.package import Draft, Package, write
from pipeline.lite.program import Op
from pipeline.pieces.manifest import LEAST_PIECE_BYTES, PackageManifest, manifest_of, read_manifest, spans_of
from pipeline.pieces.partial import PartialPackage, WholeFile, WrongPiece

BLOCKS = 5
WEIGHTS = 20_000


def package_file(path: Path, *, blocks: int = BLOCKS, weights: int = WEIGHTS, seed: int = 0) -> Package:
    """A chain of dense blocks with weights of their own each, bytes that nothing shrinks."""
    draw = np.random.default_rng(seed)
    width = int(weights**0.5)
    tensors = tuple(Tensor(i, f"t{i}", (1, width), "float32") for i in range(blocks + 1))
    graph = ModelGraph(
        "chain",
        f"{seed:032x}",
        tensors,
        (
            Block(0, "input", "input", (), (), (0,)),
            *(Block(i, f"dense{i}", "Dense", (f"dense{i}",), (i - 1,), (i,), 0, 0) for i in range(1, blocks + 1)),
        ),
        (0,),
        (blocks,),
    )
    arrays = [draw.standard_normal((width, width)).astype(np.float32) for _ in range(blocks)]
    ops = ((), *((Op("matmul", (i - 1, -1), (i,), (i - 1,), {}),) for i in range(1, blocks + 1)))
    task = asdict(Task("values", names=("x", "y")))
    about = {"preprocess": "unit", "labels": [f"class {i}" for i in range(3)], "trisect": "1.2.3", "task": task}
    write(path, Draft(graph, ops, [partial(np.asarray, array) for array in arrays]), about)
    return Package(path)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return package_file(tmp_path / "chain.trisect")


@pytest.fixture
def manifest(package: Package) -> PackageManifest:
    return manifest_of(package, name="chain", piece_bytes=LEAST_PIECE_BYTES)


def test_a_manifest_says_what_each_block_reads(package: Package, manifest: PackageManifest) -> None:
    assert sum(map(manifest.nbytes_of, manifest.whole)) == manifest.size == package.path.stat().st_size
    assert manifest.needed(range(BLOCKS + 1)) == manifest.whole
    first, last = manifest.needed([1]), manifest.needed([BLOCKS])
    assert first & last == manifest.needed([])  # the header's
    assert len(first) < len(manifest.pieces) / 2
    assert (manifest.mode, manifest.labels) == ("unit", ("class 0", "class 1", "class 2"))
    assert manifest.task == Task("values", names=("x", "y"))


def test_labels_and_preprocessing_of_the_one_who_publishes_come_before_the_files(package: Package) -> None:
    other = manifest_of(package, name="chain", labels=["a", "b"], mode="tf", size=(20, 30))
    assert (other.labels, other.mode, other.height, other.width) == (("a", "b"), "tf", 20, 30)
    assert other.digest != manifest_of(package, name="chain").digest


def test_a_manifest_comes_back_from_its_json_under_the_same_digest(manifest: PackageManifest) -> None:
    assert read_manifest(json.loads(json.dumps(manifest.to_json()))).digest == manifest.digest


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"pieces": ["0" * 64]}, "pieces"),
        ({"pieces": ["x"]}, "pieces"),
        ({"size": -1}, "size"),
        ({"piece_bytes": 1}, "piece_bytes"),
        ({"blocks": [[[0, 10_000]]]}, "blocks"),
        ({"blocks": [[[3, 3]]]}, "blocks"),
        ({"mode": "sepia"}, "mode"),
        ({"task": {"kind": "guess"}}, "task.kind"),
        ({"task": {"kind": "detect", "most": 10**9}}, "task.most"),
        ({"task": {"kind": "detect", "head": "anchors"}}, "head: anchors goes with a section anchors"),
        ({"version": 9}, "version"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(manifest: PackageManifest, change: dict[str, object], word: str) -> None:
    with pytest.raises(ModelError, match=word):
        read_manifest({**json.loads(json.dumps(manifest.to_json())), **change})


def test_a_file_is_filled_in_any_order_and_read_as_far_as_it_is(
    tmp_path: Path, package: Package, manifest: PackageManifest
) -> None:
    source, partial = WholeFile(package.path, manifest), PartialPackage(tmp_path / "cache", manifest)
    assert not partial.held
    wanted = manifest.needed([2, 3])
    for piece in sorted(wanted, reverse=True):
        data = source.read(piece)
        assert data is not None
        assert partial.put(piece, data)
        assert not partial.put(piece, data)
    assert partial.held == wanted
    assert not partial.is_whole
    half = partial.open("chain.v1")
    assert half.graph.name == "chain.v1"
    for array in (1, 2):
        np.testing.assert_array_equal(half.array(array), package.array(array))
    with pytest.raises(ModelError, match="array 4"):
        half.array(4)
    assert partial.path.stat().st_blocks * 512 < manifest.size


def test_what_was_written_is_found_again_and_a_flipped_bit_is_not_taken_for_it(
    tmp_path: Path, package: Package, manifest: PackageManifest
) -> None:
    source, partial = WholeFile(package.path, manifest), PartialPackage(tmp_path / "cache", manifest)
    for piece in (0, 3, 4, 9):
        partial.put(piece, source.read(piece) or b"")
    partial.close()
    with partial.path.open("r+b") as file:
        file.seek(4 * LEAST_PIECE_BYTES + 77)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0x10]))
    again = PartialPackage(tmp_path / "cache", manifest)
    assert again.held == {0, 3, 9}


def test_a_piece_that_is_damaged_on_the_disk_is_not_read(
    tmp_path: Path, package: Package, manifest: PackageManifest
) -> None:
    source, partial = WholeFile(package.path, manifest), PartialPackage(tmp_path / "cache", manifest)
    partial.put(2, source.read(2) or b"")
    with partial.path.open("r+b") as file:
        file.seek(2 * LEAST_PIECE_BYTES)
        file.write(b"\xff\xff\xff\xff")
    assert partial.read(2) is None
    assert 2 not in partial.held


@pytest.mark.parametrize(
    ("piece", "data", "word"),
    [(0, b"short", "bytes expected"), (10_000, b"", "there are"), (1, bytes(LEAST_PIECE_BYTES), "SHA-256")],
)
def test_hostile_pieces_are_refused(
    tmp_path: Path, manifest: PackageManifest, piece: int, data: bytes, word: str
) -> None:
    partial = PartialPackage(tmp_path / "cache", manifest)
    with pytest.raises(WrongPiece, match=word):
        partial.put(piece, data)
    assert not partial.held


def test_room_is_given_back_piece_by_piece(tmp_path: Path, package: Package, manifest: PackageManifest) -> None:
    source, partial = WholeFile(package.path, manifest), PartialPackage(tmp_path / "cache", manifest)
    for piece in manifest.whole:
        partial.put(piece, source.read(piece) or b"")
    before = partial.path.stat().st_blocks
    freed = partial.forget(range(4, 12))
    assert freed == 8 * LEAST_PIECE_BYTES
    assert partial.path.stat().st_blocks * 512 <= before * 512 - freed + 4096
    assert partial.missing(manifest.whole) == set(range(4, 12))
    assert partial.path.stat().st_size == manifest.size


def test_spans_are_half_open_and_in_order() -> None:
    assert spans_of([5, 1, 2, 3, 9]) == ((1, 4), (5, 6), (9, 10))
