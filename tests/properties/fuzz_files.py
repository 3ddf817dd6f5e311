"""Tensor chunks, frames, journals, packages and .keras containers, changed a little: each is read or refused in words.

Every input follows from its kind and number alone, so a run goes on where it stopped, and what a death needs is one
number. A death is any error but the reader's own, and whatever takes more than a second.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import random
import shutil
import struct
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import xxhash
from PIL import Image

from nodes.tier.journal import Journal
from pipeline.codecs import NONE, candidates
from pipeline.errors import FrameError, ModelError, WireError
from pipeline.frames.decode import decode
from pipeline.graph import Tensor
from pipeline.lite.package import Package, write
from pipeline.models.container import check_container
from pipeline.reassembly import Assembler
from pipeline.wire import FrameKey, Hop, encode
from tests.unit.pipeline.lite.test_package import PREAMBLE, draft

SLOW_S = 1.0
MOST_EXAMPLES = 50
NASTY = (-1, 0, 1, 2**31, 2**53, 2**63, 2**64 - 1, True, None, 0.5, float("nan"), float("inf"), "", "x" * 300, "\ud800")


def _flipped(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        data[int(chance.random() * len(data))] = int(chance.random() * 256)


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[int(chance.random() * len(data)) :]


def _grown(data: bytearray, chance: random.Random) -> None:
    at = int(chance.random() * len(data))
    data[at:at] = chance.randbytes(1 + int(chance.random() * 8))


def _moved(data: bytearray, chance: random.Random) -> None:
    begin = int(chance.random() * len(data))
    part = data[begin : begin + 1 + int(chance.random() * 64)]
    at = int(chance.random() * len(data))
    data[at : at + len(part)] = part


def _number_set(data: bytearray, chance: random.Random) -> None:
    """Lengths and offsets are four or eight bytes, of either order."""
    value = chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 0x10000, 255))
    packed = struct.pack(chance.choice(("<I", ">I", "<Q", ">Q", "<H", ">H")[: 4 if value > 0xFFFF else 6]), value)
    at = int(chance.random() * len(data))
    data[at : at + len(packed)] = packed


_CHANGES = (_flipped, _flipped, _cut, _grown, _moved, _number_set)


def changed(sample: bytes, chance: random.Random) -> bytes:
    """The sample with one to three changes to its bytes."""
    data = bytearray(sample)
    for _ in range(1 + int(3 * chance.random() ** 2)):
        if data:
            chance.choice(_CHANGES)(data, chance)
    return bytes(data)


def changed_value(value: Any, chance: random.Random) -> Any:
    """Plain values with one of them changed, somewhere. The value itself stays."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        if chance.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: changed_value(value[key], chance)}
    if isinstance(value, list | tuple) and value and chance.random() < 0.9:
        at = chance.randrange(len(value))
        return [*value[:at], changed_value(value[at], chance), *value[at + 1 :]]
    return chance.choice((*NASTY, [], {}, [0] * 50, [[[[]]]], {"a": {"a": 1}}))


@dataclass
class Kind:
    """How to make the input of a number, and who reads it; `expected` is all that the reader may raise."""

    name: str
    make: Callable[[random.Random], bytes]
    read: Callable[[bytes], object]
    expected: tuple[type[Exception], ...]


def kinds(folder: Path) -> dict[str, Kind]:
    """All of them; `folder` (best in memory) is for those that are files."""
    made = (_chunks(), _frames(), _journals(folder), _packages(folder), _containers(folder))
    return {kind.name: kind for kind in made}


def _chunks() -> Kind:
    chance = np.random.default_rng(0)
    arrays = [chance.standard_normal(shape).astype(np.float32) for shape in ((1, 8), (1, 4, 4, 3), (1, 0), (1, 40))]
    hops = (Hop("edge-1", "edge", 1e9, 0.1, 0.2, 0.3, 0.4, 1e9),)
    picture = chance.integers(0, 3, (1, 24, 24, 3))
    arrays += [np.maximum(chance.standard_normal((1, 8, 8, 16)), 0).astype(np.float32)]
    arrays += [picture.astype(np.float32), picture.astype(np.uint8)]
    sent = [encode(FrameKey("cam", 3, 7, 1, 5), n, array, trace=hops, chunk_bytes=64) for n, array in enumerate(arrays)]
    coded = [
        encode(FrameKey("cam", 3, 7, 1, 5, tile), n, array, codec=codec, trace=hops)
        for n, array in enumerate(arrays)
        for tile, codec in enumerate(candidates(array.dtype.name, array.shape))
    ]
    samples = [chunk for one in (*sent, *(c for c in coded if c.codec != NONE)) for chunk in one]
    headers = [_header_of(sample) for sample in samples]
    tensors = [Tensor(n, "x", array.shape, array.dtype.name) for n, array in enumerate(arrays)]
    assembler = Assembler(lambda key, number: tensors[number] if number < len(tensors) else None, limit_bytes=1 << 16)

    def make(chance: random.Random) -> bytes:
        at = int(chance.random() * len(samples))
        if chance.random() < 0.5:
            return changed(samples[at], chance)
        header, data = headers[at]
        try:
            packed: bytes = msgpack.packb(changed_value(header, chance))
        except (OverflowError, ValueError):  # what msgpack has no room for cannot come as such
            return changed(samples[at], chance)
        return b"\x92" + packed + data

    return Kind("chunks", make, lambda payload: assembler.add("edge-1", payload), (WireError,))


def _header_of(sample: bytes) -> tuple[Any, bytes]:
    unpacker = msgpack.Unpacker()
    unpacker.feed(sample)
    unpacker.read_array_header()
    header = unpacker.unpack()
    return header, sample[unpacker.tell() :]


def _frames() -> Kind:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    picture = Image.fromarray(pixels)
    samples: list[bytes] = []
    for form, mode, options in (
        ("JPEG", "RGB", {"quality": 30}),
        ("JPEG", "L", {"progressive": True}),
        ("PNG", "RGB", {}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
    ):
        stream = io.BytesIO()
        picture.convert(mode).save(stream, form, **options)
        samples.append(stream.getvalue())
    for array in (pixels, pixels[..., 0], pixels.astype(np.float32)):
        stream = io.BytesIO()
        np.save(stream, array)
        held = {"dtype": array.dtype.str, "shape": array.shape, "data": array.tobytes()}
        samples += [stream.getvalue(), msgpack.packb(held)]
    return Kind("frames", lambda chance: changed(chance.choice(samples), chance), decode, (FrameError,))


def _journals(folder: Path) -> Kind:
    path = folder / "cam.journal"
    with Journal(path, "first") as journal:
        for sequence in range(1, 9):
            journal.entered(sequence, f"{sequence}.jpg", sequence, bytes(range(40)))
        for sequence in (1, 2, 5):
            journal.answered(sequence)
    files = {file.name: file.read_bytes() for file in folder.glob("cam.journal*") if file.stat().st_size}
    sample = files[path.name]

    def read(content: bytes) -> None:
        for file in folder.glob("cam.journal*"):
            file.unlink()
        path.write_bytes(content)
        with Journal(path, "second") as journal:
            journal.unfinished()

    return Kind("journals", lambda chance: changed(sample, chance), read, ())


def _packages(folder: Path) -> Kind:
    path = folder / "small.trisect"
    write(path, draft(), {"source": "small", "labels": ["a", "b"]})
    sample = path.read_bytes()
    magic, version, flags, begin, length, _ = PREAMBLE.unpack_from(sample)
    header = json.loads(sample[begin : begin + length])

    def make(chance: random.Random) -> bytes:
        if chance.random() < 0.3:
            return changed(sample, chance)
        text = json.dumps(changed_value(header, chance)).encode()
        preamble = PREAMBLE.pack(magic, version, flags, begin, len(text), xxhash.xxh3_64_intdigest(text))
        return preamble + sample[PREAMBLE.size : begin] + text

    def read(content: bytes) -> None:
        path.write_bytes(content)
        package = Package(path)
        blocks = range(len(package.graph))
        for index in {index for block in blocks for index in package.program.arrays_of(block)}:
            package.array(index)
        package.segment_bytes(blocks)

    return Kind("packages", make, read, (ModelError,))


def _containers(folder: Path) -> Kind:
    path, stream = folder / "small.keras", io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.12.0"}))
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": {"layers": []}}))
        archive.writestr("model.weights.h5", bytes(2_000))
    sample = stream.getvalue()

    def read(content: bytes) -> None:
        path.write_bytes(content)
        check_container(path)

    return Kind("containers", lambda chance: changed(sample, chance), read, (ModelError,))


@dataclass
class FileFuzz:
    """Counts of what was read, refused and died of, by kind."""

    kinds: Sequence[Kind]
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, int]] = field(default_factory=dict)

    def run(self, kind: Kind, count: int) -> None:
        """The next inputs of a kind."""
        first = self.done[kind.name]
        chance = random.Random()
        for number in itertools.islice(itertools.count(first), count):
            chance.seed(f"{kind.name} {number}")
            payload = kind.make(chance)
            began = time.perf_counter()
            try:
                kind.read(payload)
            except kind.expected:
                self.refused[kind.name] += 1
            except Exception as error:  # any other at all is what this looks for
                self._died(kind, number, f"{type(error).__name__}: {error!s:.100}")
            if time.perf_counter() - began > SLOW_S and not _took_no_processor(kind, payload):
                self._died(kind, number, "takes more than a second")
        self.done[kind.name] += count

    def _died(self, kind: Kind, number: int, why: str) -> None:
        self.deaths[f"{kind.name}: {why}"] += 1
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.setdefault(why, (kind.name, number))


def _took_no_processor(kind: Kind, payload: bytes) -> bool:
    """Whether it is quick by the processor's clock: on a machine that others use, the wall's says little."""
    began = time.thread_time()
    try:
        kind.read(payload)
    except Exception:
        logging.getLogger(__name__).debug("as before")
    return time.thread_time() - began < SLOW_S


def emptied(folder: Path) -> Path:
    """The folder, new and empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
