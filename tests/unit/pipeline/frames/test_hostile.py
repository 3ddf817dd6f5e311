"""Frames made to cost much: what each takes of time and memory is bounded by its pixels, or it is refused."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import msgpack
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import FrameError
from pipeline.frames.bounds import MAX_CHUNKS, MAX_SCANS, MAX_SEGMENTS
from pipeline.frames.decode import decode
from pipeline.frames.inputs import to_inputs
from tests.unit.pipeline.frames.test_inputs import AS_IT_IS, TWO

_SECONDS = 1.0
"""More than any refusal takes, on a machine that others use too."""


def _jpeg(side: int = 64, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)).save(
        stream, "JPEG", **options
    )
    return stream.getvalue()


def _many_scans(count: int) -> bytes:
    """A progressive picture that says its last scan again and again, with nothing in it."""
    picture = _jpeg(progressive=True)
    last = picture.rindex(b"\xff\xda")
    length = struct.unpack_from(">H", picture, last + 2)[0]
    empty = picture[last : last + 2 + length] + b"\x00"
    return picture[:-2] + empty * count + picture[-2:]


def _png(header: bytes, data: bytes, more: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _plain_png(side: int, depth: int, colour: int, bits: int) -> bytes:
    return _png(
        struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0), _zeros(side * (1 + (side * bits + 7) // 8))
    )


def _zeros(count: int) -> bytes:
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(count >> 20)]
    return b"".join([*parts, packer.compress(bytes(count % (1 << 20))), packer.flush()])


def _nested(kind: bytes, depth: int) -> bytes:
    return kind * depth + b"\x01"


def _map(shape: bytes, dtype: bytes = b"\xa2f4", data: bytes = b"\xc4\x01x") -> bytes:
    return b"\x83\xa5dtype" + dtype + b"\xa5shape" + shape + b"\xa4data" + data


EMPTY_CHUNK = struct.pack(">I", 0) + b"teXt" + struct.pack(">I", zlib.crc32(b"teXt"))
HOSTILE = {
    "a thousand empty scans": (_many_scans(1_000), f"more than the {MAX_SCANS} allowed"),
    "segments without end": (b"\xff\xd8" + b"\xff\xe5\x00\x02" * 1_000_000, f"more than {MAX_SEGMENTS:,} segments"),
    "chunks without end": (
        _png(struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0), b"", EMPTY_CHUNK * 500_000),
        f"more than {MAX_CHUNKS:,} chunks",
    ),
    "a shape of a hundred thousand sizes": (_map(msgpack.packb([2**63] * 100_000)), "a shape of 100,000 sizes"),
    "sizes beyond any memory": (_map(msgpack.packb([2**63] * 30)), "30 dimensions"),
    "a dtype of 300,000 fields": (_map(b"\x91\x01", msgpack.packb("f4," * 300_000)), "a dtype of 900,005 bytes"),
    "maps as a shape": (_map(_nested(b"\x81\x01", 8_000_000)), "broken msgpack"),
    "a wide map as a shape": (_map(msgpack.packb({i: i for i in range(500_000)})), "broken msgpack"),
    "maps as sizes": (_map(b"\xdc\x00\x20" + msgpack.packb([{}] * 400_000) * 32), "a size that is no integer"),
    "a map of a million keys": (msgpack.packb({f"{i}": i for i in range(1_000_000)}), "more than the 64 allowed"),
    "a map as a key": (
        b"\x81" + msgpack.packb({i: i for i in range(100_000)}) + b"\x01",
        "a key that is no short text",
    ),
    "a key of megabytes": (msgpack.packb({"k" * 4_000_000: 1}), "a key that is no short text"),
    "a long key": (msgpack.packb({"k" * 60_000: 1}), "a key of 60,003 bytes"),
    "data that are maps": (_map(b"\x91\x01", data=msgpack.packb([{}] * 4_000_000)), "data that are no bytes"),
    "a file of 400 million pixels": (_plain_png(20_000, 1, 0, 1), "than the 24,000,000 allowed"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_frame_that_would_cost_much_is_refused_at_once(kind: str) -> None:
    payload, reason = HOSTILE[kind]
    began = time.perf_counter()
    with pytest.raises(FrameError, match=reason) as found:
        decode(payload)
    assert time.perf_counter() - began < _SECONDS
    assert len(str(found.value)) < 1_000


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if "shape" in kind or "map" in kind])
def test_neither_does_it_cost_much_as_one_of_several_inputs(kind: str) -> None:
    part = HOSTILE[kind][0]
    frame = b"\x82\xa4left" + part + b"\xa5right" + part
    began = time.perf_counter()
    with pytest.raises(FrameError):
        to_inputs(frame, TWO, AS_IT_IS)
    assert time.perf_counter() - began < _SECONDS


def test_a_progressive_picture_as_cameras_save_it_is_read() -> None:
    assert decode(_jpeg(progressive=True)).shape == (64, 64, 3)


_MEASURED = """
import sys, time
from pipeline.frames.decode import decode
payload = open(sys.argv[1], "rb").read()
decode(open(sys.argv[2], "rb").read())
def peak():  # not getrusage, which begins with the parent's
    return 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])

before = peak()
began = time.process_time()
array = decode(payload)
print(peak() - before, time.process_time() - began, *array.shape)
"""
SIDE = 4_800
"""23 million pixels: as many as a stream takes unless it says otherwise."""
LARGEST = {
    "grey of 16 bits": (16, 0, 16),
    "rgba": (8, 6, 32),
    "one bit": (1, 0, 1),
    "rgb": (8, 2, 24),
    "grey and alpha": (8, 4, 16),
    "rgb of 16 bits": (16, 2, 48),
}


@pytest.mark.parametrize("kind", LARGEST)
def test_the_largest_picture_takes_four_times_its_pixels_at_most(kind: str, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(_plain_png(SIDE, *LARGEST[kind]))
    (tmp_path / "small.png").write_bytes(_plain_png(8, *LARGEST[kind]))
    command = [sys.executable, "-c", _MEASURED, str(tmp_path / "large.png"), str(tmp_path / "small.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown, seconds, *shape = done.stdout.split()
    assert shape == [str(SIDE), str(SIDE), "3"]
    assert int(grown) < 4 * 3 * SIDE * SIDE * 1.05
    assert float(seconds) < 3 * _SECONDS
    print(kind, int(grown) / (SIDE * SIDE), seconds)


def test_what_a_picture_says_of_itself_is_neither_printed_nor_remembered(tmp_path: Path) -> None:
    """Pillow warns of odd EXIF fields in words that hold their numbers: each is another warning to Python."""
    picture, paths = _jpeg(), []
    for number in range(1, 40):
        field = struct.pack(">HHII", number, 4, 0xFFFFFFFF, 1_000 + number)
        exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + field + struct.pack(">HHII", 0x0112, 4, 1, 6)
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(picture[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + picture[2:])
        paths.append(str(path))
    code = (
        "import sys; from pathlib import Path; from pipeline.frames.decode import decode\n"
        "for name in sys.argv[1:]: decode(Path(name).read_bytes())\n"
        "from PIL import TiffImagePlugin as plugin; print(len(getattr(plugin, '__warningregistry__', {})))"
    )
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert (done.stderr, int(done.stdout) <= 1) == ("", True)
