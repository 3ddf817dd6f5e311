"""Sequence numbers that stay unique in a stream over restarts of its device."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from nodes.tier.machine.stream import SEQUENCES_A_START

_log = logging.getLogger(__name__)

RESERVED = SEQUENCES_A_START
"""Numbers set aside for each start: a restart skips what is left of them, and never has to write while frames flow."""


def reserve(path: Path) -> int:
    """The first number of this start; 1 at the very first. Raises OSError when `path` cannot be written."""
    try:
        first = int(path.read_text())
    except FileNotFoundError:
        first = 1
    except ValueError:
        raise OSError(f"{path} holds no sequence number; delete it to count from 1 again") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(f"{first + RESERVED}\n")
    with new.open() as file:
        os.fsync(file.fileno())
    new.replace(path)
    return first
