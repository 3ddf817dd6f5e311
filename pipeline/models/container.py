"""Checks of a model file before Keras reads it: sizes that unpack to bounded memory.

A .keras file is a ZIP archive: its configuration is text that Keras reads at once, however much it unpacks to.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from pipeline.errors import ModelError

MAX_CONFIGURATION_BYTES = 64 << 20
"""The largest of keras.applications' (NASNetLarge) has 1.2 MB."""
MAX_MEMBERS = 10_000


def check_container(path: Path) -> None:
    """Raise ModelError when a .keras file's text would unpack to more than is sensible.

    ZIP readers stop at the size that the directory declares, so what it says is what can be unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # of another format, or broken: Keras says what it misses
    if len(members) > MAX_MEMBERS:
        raise ModelError(f"{path} has {len(members):,} files in it, more than the {MAX_MEMBERS:,} allowed")
    for member in members:
        if not member.filename.endswith(".h5") and member.file_size > MAX_CONFIGURATION_BYTES:
            raise ModelError(
                f"{path}: {member.filename[:80]!r} in it unpacks to {member.file_size:,} bytes, more than the "
                f"{MAX_CONFIGURATION_BYTES:,} allowed"
            )
