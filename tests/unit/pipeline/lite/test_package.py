"""Packages: what comes out is what was written, and a file that is not that is refused with its reason."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from pipeline.errors import ModelError
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.lite.package import FORMAT_VERSION, Array, Draft, Package, write
from pipeline.lite.program import Op

PREAMBLE = struct.Struct("<8sIIQQQ")
WEIGHTS = np.arange(32, dtype=np.float32).reshape(4, 8)
BIAS = np.array([1, -2, 3, -4], np.float32)


def network() -> ModelGraph:
    tensors = (
        Tensor(0, "image", (1, 8), "float32"),
        Tensor(1, "dense", (1, 4), "float32"),
        Tensor(2, "relu", (1, 4), "float32"),
    )
    blocks = (
        Block(0, "input", "input", (), (), (0,)),
        Block(1, "dense", "dense", ("dense",), (0,), (1,), 36, 32),
        Block(2, "relu", "relu", ("relu",), (1,), (2,), 0, 0),
    )
    return ModelGraph("small", "a" * 32, tensors, blocks, (0,), (2,))


def draft() -> Draft:
    dense, relu = Op("dense", (0,), (1,), (0, 1), {}), Op("relu", (1,), (2,), (), {})
    return Draft(network(), ((), (dense,), (relu,)), (lambda: WEIGHTS, lambda: BIAS))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "small.trisect"
    write(found, draft(), {"source": "small"})
    return found


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a package's header and put the right checksum to it: what another program might have written."""
    content = path.read_bytes()
    magic, version, flags, begin, length, _ = PREAMBLE.unpack_from(content)
    header = json.loads(content[begin : begin + length])
    change(header)
    text = json.dumps(header).encode()
    preamble = PREAMBLE.pack(magic, version, flags, begin, len(text), xxhash.xxh3_64_intdigest(text))
    path.write_bytes(preamble + content[PREAMBLE.size : begin] + text)


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_a_package_holds_what_was_written(path: Path) -> None:
    package = Package(path, digest="a" * 32)
    assert package.graph == network()
    assert package.program.blocks == draft().blocks
    assert np.array_equal(package.array(0), WEIGHTS)
    assert np.array_equal(package.array(1), BIAS)
    assert package.about["source"] == "small"
    assert package.nbytes == WEIGHTS.nbytes + BIAS.nbytes
    assert package.program.foreign == ()


def test_a_package_takes_the_name_that_a_configuration_gives_it(path: Path) -> None:
    package = Package(path, name="front-door")
    assert (package.graph.name, package.graph.digest) == ("front-door", "a" * 32)


def test_an_array_cannot_be_written_to(path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        Package(path).array(0)[0, 0] = 1.0


def test_arrays_are_aligned_for_vector_loads(path: Path) -> None:
    package = Package(path)
    assert all(package.array(index).ctypes.data % 64 == 0 for index in range(2))


def test_a_package_cut_short_anywhere_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"is no package|cut short|damaged"):
            Package(path)


def test_a_package_that_lost_its_last_byte_says_how_long_it_should_be(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ModelError, match=rf"cut short: {len(whole) - 1:,} bytes of {len(whole):,}; copy it again"):
        Package(path)


def test_a_header_that_asks_for_more_than_the_file_has_is_refused(path: Path) -> None:
    rewrite(path, lambda header: header["arrays"].__setitem__(0, [64, [1000, 1000], "float32", 0]))
    with pytest.raises(ModelError, match=r"cut short: .* bytes of at least 4,000,064"):
        Package(path)


def test_a_package_of_another_model_names_both_digests(path: Path) -> None:
    with pytest.raises(ModelError, match=f"holds model {'a' * 32}, {'b' * 32} was asked for; pack it again"):
        Package(path, digest="b" * 32)


def test_a_package_of_another_format_names_both_versions(path: Path) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, 8, FORMAT_VERSION + 1)
    path.write_bytes(content)
    with pytest.raises(
        ModelError, match=rf"has format {FORMAT_VERSION + 1}, this trisect reads {FORMAT_VERSION}; pack the model again"
    ):
        Package(path)


def test_a_block_without_operations_is_missed(path: Path) -> None:
    rewrite(path, lambda header: header["blocks"].pop())
    with pytest.raises(ModelError, match="operations for 2 blocks, it has 3; pack the model again"):
        Package(path)


def test_a_block_whose_operations_make_nothing_of_its_own_is_named(path: Path) -> None:
    rewrite(path, lambda header: header["blocks"][1].clear())
    with pytest.raises(ModelError, match=r"block 'dense' does not make tensors \[1\]"):
        Package(path)


def test_a_damaged_array_is_found_when_it_is_read_and_no_sooner(path: Path) -> None:
    flip(path, 64 + 5)
    package = Package(path)
    assert np.array_equal(package.array(1), BIAS)
    with pytest.raises(ModelError, match="array 0 is not as it was written; copy it again"):
        package.array(0)


def test_a_damaged_header_is_refused(path: Path) -> None:
    flip(path, path.stat().st_size - 2)
    with pytest.raises(ModelError, match="its header is not as it was written; copy it again"):
        Package(path)


def test_an_unknown_operation_is_named_with_its_block(path: Path) -> None:
    rewrite(path, lambda header: header["blocks"][2][0].__setitem__(0, "fourier"))
    with pytest.raises(ModelError, match="block 'relu': unknown operation 'fourier'; a newer trisect wrote it"):
        Package(path)


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (1, [7], r"dense reads values \[7\] before they are made"),
        (2, [], "dense makes nothing"),
        (3, [0, 2], r"reads arrays \(0, 2\), there are 2"),
        (3, [0, -1], r"reads arrays \(0, -1\), there are 2"),
        (4, [], "options must be a map"),
        (5, "x", "damaged: ValueError"),
    ],
)
def test_an_operation_that_cannot_be_is_refused(path: Path, place: int, value: object, reason: str) -> None:
    rewrite(path, lambda header: header["blocks"][1][0].__setitem__(place, value))
    with pytest.raises(ModelError, match=reason):
        Package(path)


@pytest.mark.parametrize(
    "array",
    [
        [64, [4, 8], "object", 0],
        [64, [4, -8], "float32", 0],
        [-64, [4, 8], "float32", 0],
        [64, [1] * 9, "float32", 0],
        [64, [4, 8], "float32"],
        "array",
    ],
)
def test_an_array_that_cannot_be_is_refused(path: Path, array: object) -> None:
    rewrite(path, lambda header: header["arrays"].__setitem__(0, array))
    with pytest.raises(ModelError, match="is damaged: ValueError"):
        Package(path)


@pytest.mark.parametrize("key", ["graph", "blocks", "arrays", "about"])
def test_a_header_without_a_part_is_refused(path: Path, key: str) -> None:
    rewrite(path, lambda header: header.pop(key))
    with pytest.raises(ModelError, match=f"is damaged: KeyError: '{key}'"):
        Package(path)


def test_a_header_of_a_gigabyte_is_not_read(path: Path) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into("<Q", content, 24, 1 << 30)
    path.write_bytes(content)
    with pytest.raises(ModelError, match="a header of 1,073,741,824 bytes"):
        Package(path)


def test_another_file_is_no_package_and_a_missing_one_says_so(tmp_path: Path) -> None:
    other = tmp_path / "photo.trisect"
    other.write_bytes(b"\xff\xd8\xff" + bytes(100))
    with pytest.raises(ModelError, match=r"is no package; `trisect pack MODEL -o FILE` writes one"):
        Package(other)
    with pytest.raises(ModelError, match="No such file or directory"):
        Package(tmp_path / "none.trisect")


def test_a_package_that_could_not_be_written_leaves_the_one_before(path: Path) -> None:
    def fails() -> Array:
        raise ModelError("weights ran out")

    before = path.read_bytes()
    with pytest.raises(ModelError, match="weights ran out"):
        write(path, Draft(network(), draft().blocks, (fails,)), {})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
