"""Sequence numbers that stay unique in a stream over restarts of its device."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from nodes.tier.durable_file import sync_folder, write_whole
from nodes.tier.machine.stream import SEQUENCES_A_START

_log = logging.getLogger(__name__)

_HIGHEST = 1 << 53
"""Beyond, JSON's readers round."""
RESERVED = SEQUENCES_A_START
"""Numbers set aside for each start: a restart skips what is left of them, and never has to write while frames flow."""


def reserve(path: Path) -> int:
    """The first number of this start; 1 at the very first.

    Where `path` cannot be read or written (a full disk, a folder that is read-only, a damaged file), the clock's: above
    all earlier ones of a device whose clock goes on, and in the log.
    """
    try:
        first = _kept(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        write_whole(new, f"{first + RESERVED}\n".encode("ascii"))
        new.replace(path)
        sync_folder(path.parent)
    except (OSError, ValueError) as error:
        first = int(time.time()) * RESERVED
        _log.warning("%s: %s; frames are numbered by the clock, from %d on", path, error, first)
    return first


def _kept(path: Path) -> int:
    """Raises ValueError for what is no sequence number, OSError."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return 1
    if not (text.isdigit() and len(text) <= len(str(_HIGHEST)) and int(text) <= _HIGHEST):
        raise ValueError("it holds no sequence number")
    return max(1, int(text))
