"""Bounds on image files that ask for more work than their size suggests, found in their bytes before decoding.

Neither libjpeg nor zlib can be stopped once they run, so what they will have to do is bounded beforehand.
"""

from __future__ import annotations

import struct

from pipeline.errors import FrameError

MAX_SCANS = 32
"""Of a progressive JPEG: each goes over the whole picture. Usual are 10; mozjpeg has at most 17."""
MAX_SEGMENTS = 2_000
"""Before the first scan, and in all of a PNG times ten: each costs Pillow a turn in Python."""
MAX_CHUNKS = 10 * MAX_SEGMENTS
_START_OF_SCAN = b"\xff\xda"
_PNG_HEADER = 8
_CHUNK_AROUND = 12
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length."""


def check_jpeg(payload: bytes) -> None:
    """Raise FrameError for a JPEG of too many segments or scans. What is broken is left to the reader."""
    at, found = 2, 0
    while at + 4 <= len(payload) and payload[at] == 0xFF and payload[at + 1] != _START_OF_SCAN[1]:  # noqa: PLR2004
        found += 1
        if found > MAX_SEGMENTS:
            raise FrameError(f"a JPEG frame of more than {MAX_SEGMENTS:,} segments before its first scan")
        at += 1 if payload[at + 1] == 0xFF else 2  # noqa: PLR2004  # a marker may be filled up with FF
        if payload[at - 1] not in {*_ALONE, 0xFF}:
            at += struct.unpack_from(">H", payload, at)[0]
    scans = payload.count(_START_OF_SCAN, at)  # in a scan's own bytes FF is always followed by 00 or a restart
    if scans > MAX_SCANS:
        raise FrameError(f"a JPEG frame of {scans:,} scans, more than the {MAX_SCANS} allowed; save it as baseline")


def check_png(payload: bytes) -> None:
    """Raise FrameError for a PNG of too many chunks. What is broken is left to the reader."""
    at = _PNG_HEADER
    for _ in range(MAX_CHUNKS):
        if at + _CHUNK_AROUND > len(payload):
            return
        at += _CHUNK_AROUND + struct.unpack_from(">I", payload, at)[0]
    raise FrameError(f"a PNG frame of more than {MAX_CHUNKS:,} chunks")
