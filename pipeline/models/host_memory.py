"""Checks that a model fits into memory, before the kernel would kill the process.

From a model's shipped facts, or its file, and from this machine alone.

Counted is what the process grows by until it has run the whole model as one segment, as each node does when it takes
its profile: weights, those they are folded from, oneDNN's reordered copies of convolutions' kernels (each segment holds
them once more, and that which is being reordered twice), two of the largest activations, and what Keras and TensorFlow
keep per block. Not counted are TensorFlow itself (it is there when this is asked) and the copies of further segments.

For VGG-16, ResNet-50 and MobileNetV2 this is 3 to 10 % below what was measured with the TensorFlow engine. Of a file
only weights and what they are folded into are counted: a model is refused when these alone are too much.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from pipeline.errors import ModelError
from pipeline.models.container import MAX_CONFIGURATION_BYTES
from pipeline.models.facts import shipped
from pipeline.models.source import ModelSource

if TYPE_CHECKING:
    from pipeline.engines.base import Loaded

_CGROUP = Path("/sys/fs/cgroup")
_ADDRESSES_BYTES = 128 << 20
"""What threads reserve of an address space (glibc's arenas, 64 MB each) without using it."""
_MEGABYTE = 1_000_000


class TooLarge(ModelError):
    """More memory would be needed than there is; `needed` and `available` are bytes."""

    def __init__(self, what: str, needed: int, available: int, hint: str) -> None:
        there = f"{available / _MEGABYTE:,.0f} MB are available"
        text = f"{what} about {needed / _MEGABYTE:,.0f} MB of memory, {there}"
        super().__init__(text, size=needed, limit=available, hint=hint)


def check_fits(source: ModelSource) -> None:
    """Raise TooLarge when loading and running would take more bytes than are available."""
    remedy = "use a smaller model, or a machine with more memory"
    require(needed_bytes(source), f"to load and run model {source.name!r} takes", remedy)


def check_room(model: Loaded, blocks: Sequence[int], times: int = 1) -> None:
    """Raise TooLarge when one more segment of a loaded model, these blocks in order, would take more than there is.

    With `times`, when that many would.
    """
    if not blocks:  # as before a stack of tiles that the stage begins with
        return
    over = f", {times} times over," if times > 1 else ""
    first = model.graph.blocks[blocks[0]].name
    what = f"{len(blocks)} blocks of model {model.graph.name!r} from {first!r} on{over} take"
    remedy = "free some, or give the node's memory_mb, so that plans keep within it"
    require(times * model.segment_bytes(blocks), what, remedy)


def require(needed: int, what: str, remedy: str) -> None:
    """Raise TooLarge when `needed` bytes, for `what`, are more than are available."""
    if needed > (available := available_bytes()):
        raise TooLarge(what, needed, available, remedy)


def needed_bytes(source: ModelSource) -> int:
    """Peak bytes of loading and running; 0 where they are not known without loading."""
    if not source.is_file:
        return shipped()[source.source].memory_bytes if source.source in shipped() else 0
    path = Path(source.source).expanduser()
    try:
        if source.is_package:
            return path.stat().st_size
        if not zipfile.is_zipfile(path):  # Keras's older format is the weights and little else
            return path.stat().st_size if path.suffix in {".h5", ".hdf5"} else 0
        with zipfile.ZipFile(path) as archive:
            weights = sum(entry.file_size for entry in archive.infolist() if entry.filename.endswith(".h5"))
            with archive.open("config.json") as text:
                copies = 2 if b'"BatchNormalization"' in text.read(MAX_CONFIGURATION_BYTES) else 1  # folding makes new
    except (OSError, KeyError, zipfile.BadZipFile):
        return 0
    return weights * copies


def available_bytes() -> int:
    """Memory that could be had without swapping, also within a container or a limit of the process (`ulimit -v`)."""
    free = min(int(psutil.virtual_memory().available), _free_addresses_bytes())
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text()) - _cached_files()
    except (OSError, ValueError):  # no container, or no limit ("max")
        return free
    return max(0, min(free, limit - used))


def _free_addresses_bytes() -> int:
    try:
        import resource
    except ImportError:  # not a Unix
        return sys.maxsize
    if (limit := resource.getrlimit(resource.RLIMIT_AS)[0]) == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(0, limit - int(psutil.Process().memory_info().vms) - _ADDRESSES_BYTES)


def _cached_files() -> int:
    """Counted as used, but given back on demand."""
    lines = (_CGROUP / "memory.stat").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("file ")), 0)
