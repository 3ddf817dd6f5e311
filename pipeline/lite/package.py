"""A network in one file: manifest, operations by block, and their constants, each found by its offset and checked.

    0   magic, format version, then where the header is, its bytes and their XXH3 (little endian)
    64  the arrays, each aligned to 64 bytes
    …   the header: JSON

A file is written once, beside its place, and then moved there. Readers map it: only what a segment reads is resident.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from pipeline.errors import ModelError
from pipeline.graph import DTYPES, ModelGraph
from pipeline.lite.program import Op, Program, op_from_json

Array = npt.NDArray[Any]

SUFFIX = ".trisect"
SPACIOUS = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None
"""A folder for large files that nobody keeps: /tmp may be in memory."""
FORMAT_VERSION = 1
_MAGIC = b"TRISECT\0"
_PREAMBLE = struct.Struct("<8sIIQQQ")
_ALIGNMENT = 64
_HEADER_LIMIT_BYTES = 1 << 26
_RANK_LIMIT = 8
_ACTIVATIONS_HELD = 4
_SEGMENT_BYTES = 2_000_000
"""Measured: an interpreter without weights."""


class Stored(NamedTuple):
    """An array in the file: its place, dtype and shape, and the XXH3 of its bytes."""

    offset: int
    shape: tuple[int, ...]
    dtype: str
    checksum: int

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Draft:
    """A network on its way into a package: `arrays` are made one after the other, so that memory holds one copy."""

    graph: ModelGraph
    blocks: tuple[tuple[Op, ...], ...]
    arrays: Sequence[Callable[[], Array]]


class Package:
    """An open package; `about` says where the network came from. Raises ModelError for a file that is none."""

    def __init__(self, path: Path, *, name: str | None = None, digest: str | None = None) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                header = _header(path, file)
                self._held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ModelError(f"package {path}: {error.strerror or error}", file=path) from error
        try:
            self._arrays = tuple(_stored(value) for value in header["arrays"])
            graph = ModelGraph.from_json(header["graph"])
            blocks = tuple(tuple(map(op_from_json, ops)) for ops in header["blocks"])
            self.about: Mapping[str, Any] = dict(header["about"])
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
            raise ModelError(
                f"package {path} is damaged: {type(error).__name__}: {str(error)[:200]}", file=path
            ) from error
        if digest is not None and graph.digest != digest:
            raise ModelError(
                f"package {path} holds model {graph.digest}, {digest} was asked for; pack it again", file=path
            )
        if short := [one for one in self._arrays if one.offset + one.nbytes > len(self._held)]:
            ends = max(one.offset + one.nbytes for one in short)
            raise ModelError(
                f"package {path} is cut short: {len(self._held):,} bytes of at least {ends:,}; copy it again", file=path
            )
        try:
            self.program = Program(graph if name is None else replace(graph, name=name), blocks, len(self._arrays))
        except ModelError as error:
            raise ModelError(f"package {path}: {error}; pack the model again", file=path) from error
        self._known: set[int] = set()

    @property
    def graph(self) -> ModelGraph:
        """The manifest."""
        return self.program.graph

    @property
    def package(self) -> Package:
        """Itself: what an engine that runs packages asks of any loaded model."""
        return self

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all constants."""
        return sum(one.nbytes for one in self._arrays)

    def extents(self, block: int) -> list[tuple[int, int]]:
        """Where a block's constants are in the file: first byte and end of each."""
        held = (self._arrays[i] for i in self.program.arrays_of(block))
        return [(one.offset, one.offset + one.nbytes) for one in held]

    def header_extents(self, size: int) -> list[tuple[int, int]]:
        """Where all is that has to be read before an array can be: the file has `size` bytes."""
        begin = _PREAMBLE.unpack(self._held[: _PREAMBLE.size])[3]
        return [(0, _PREAMBLE.size), (begin, size)]

    def segment_bytes(self, blocks: Sequence[int]) -> int:
        """Bytes of memory that one more segment of these blocks takes: XNNPACK's copy of weights, and activations.

        Two of the largest activations live at a time, and as much again goes in and comes out of the interpreter.
        """
        held = {i for block in blocks for i in self.program.arrays_of(block)}
        made = [self.graph.tensors[t].nbytes for b in blocks for t in self.graph.blocks[b].outputs]
        return sum(self._arrays[i].nbytes for i in held) + _ACTIVATIONS_HELD * max(made, default=0) + _SEGMENT_BYTES

    def array(self, index: int) -> Array:
        """A constant, read-only, where it is in the file. Raises ModelError when its bytes are not those written."""
        one = self._arrays[index]
        data = memoryview(self._held)[one.offset : one.offset + one.nbytes]
        if index not in self._known:
            if xxhash.xxh3_64_intdigest(data) != one.checksum:
                raise ModelError(
                    f"package {self.path} is damaged: array {index} is not as it was written; copy it again",
                    file=self.path,
                )
            self._known.add(index)
        return np.frombuffer(data, one.dtype).reshape(one.shape)

    def forget_pages(self) -> None:
        """Weights that were read come out of this process's memory; what is read again comes back by itself."""
        with contextlib.suppress(AttributeError, OSError):  # not Linux: the system drops them when it needs the memory
            self._held.madvise(mmap.MADV_DONTNEED)


def write(path: Path, draft: Draft, about: Mapping[str, Any]) -> None:
    """Write a package. Raises ModelError when it cannot be written; then nothing is at `path` that was not before."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            try:
                _write(file, draft, about)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).chmod(0o644)
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise ModelError(f"package {path} cannot be written: {error.strerror or error}", file=path) from error


def _write(file: IO[bytes], draft: Draft, about: Mapping[str, Any]) -> None:
    file.write(b"\0" * _ALIGNMENT)
    stored = []
    for make in draft.arrays:
        array = np.ascontiguousarray(make())
        data = array.reshape(-1).view(np.uint8).data
        stored.append([file.tell(), array.shape, array.dtype.name, xxhash.xxh3_64_intdigest(data)])
        file.write(data)
        file.write(b"\0" * (-file.tell() % _ALIGNMENT))
    blocks = [[op.to_json() for op in ops] for ops in draft.blocks]
    header = {"graph": draft.graph.to_json(), "blocks": blocks, "arrays": stored, "about": about}
    text = json.dumps(header, separators=(",", ":")).encode()
    begin = file.tell()
    file.write(text)
    file.seek(0)
    file.write(_PREAMBLE.pack(_MAGIC, FORMAT_VERSION, 0, begin, len(text), xxhash.xxh3_64_intdigest(text)))


def _header(path: Path, file: IO[bytes]) -> Mapping[str, Any]:
    size = os.fstat(file.fileno()).st_size
    preamble = file.read(_PREAMBLE.size)
    if len(preamble) < _PREAMBLE.size or not preamble.startswith(_MAGIC):
        raise ModelError(f"{path} is no package; `trisect pack MODEL -o FILE` writes one", file=path)
    _, version, _, begin, length, checksum = _PREAMBLE.unpack(preamble)
    if version != FORMAT_VERSION:
        raise ModelError(
            f"package {path} has format {version}, this trisect reads {FORMAT_VERSION}; pack the model again with it",
            file=path,
        )
    if length > _HEADER_LIMIT_BYTES:
        raise ModelError(
            f"package {path}: a header of {length:,} bytes, at most {_HEADER_LIMIT_BYTES:,} are read", file=path
        )
    if begin + length > size:
        raise ModelError(f"package {path} is cut short: {size:,} bytes of {begin + length:,}; copy it again", file=path)
    file.seek(begin)
    text = file.read(length)
    if xxhash.xxh3_64_intdigest(text) != checksum:
        raise ModelError(f"package {path} is damaged: its header is not as it was written; copy it again", file=path)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"package {path} is damaged: {str(error)[:200]}", file=path) from error
    if not isinstance(header, dict):
        raise ModelError(f"package {path} is damaged: its header is no map", file=path)
    return header


def _stored(value: Sequence[Any]) -> Stored:
    offset, shape, dtype, checksum = value
    sizes = tuple(int(size) for size in shape)
    if dtype not in DTYPES or int(offset) < 0 or len(sizes) > _RANK_LIMIT or min(sizes, default=0) < 0:
        raise ValueError(f"array of {str(dtype)[:20]}{sizes[:_RANK_LIMIT]} at {offset}")
    return Stored(int(offset), sizes, str(dtype), int(checksum))
