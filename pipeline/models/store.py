"""The store of packages on a machine, each written once: by what was packed, in the cache folder, which is bounded.

A package is made in a process of its own, so that who asks for it never loads TensorFlow. Knows no network.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline import folders
from pipeline.errors import ModelError, NoKernel
from pipeline.lite.package import FORMAT_VERSION, SUFFIX, Package
from pipeline.models import kept
from pipeline.models.source import ModelSource

_log = logging.getLogger(__name__)

_MAKES = ("models", "prepare", "lite")
"""The rooms whose code decides what is in a package."""
_SERVE = "from pipeline.models.pack import serve; serve()"
_ITS_OWN = {"TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": "0"}
"""An engine of this process has asked for frozen weights. Who packs calls Keras eagerly, where layers of one shape
share a kernel: with AVX-512 the second one would have the first one's weights.
"""


def path_of(source: ModelSource) -> Path:
    """Path of a source's package, whether it exists yet or not. Raises ModelError for a file that is not there."""
    named = [FORMAT_VERSION, _code(), _version("keras"), _identity(source.source), _identity(source.weights)]
    named += [source.input_size, [_identity_of_package(package) for package in source.imports]]
    key = hashlib.sha256(json.dumps(named).encode()).hexdigest()[:24]
    return folders.packages() / f"{Path(source.source).stem}-{key}{SUFFIX}"


def load(source: ModelSource) -> Package:
    """The package that a source is, or the one made of it here before; else a new one, which takes seconds.

    One that was made here stays on the disk while it is in use; others may have to go for it (`kept.prune`). Raises
    ConfigError for a limit that is none, and ModelError, for a source that has to be packed also where TensorFlow is
    not installed.
    """
    if source.is_package:
        return Package(Path(source.source).expanduser(), name=source.name)
    path = path_of(source)
    package = kept.opened(path, source.name)
    while package is None:
        most_bytes = kept.limit_bytes()
        with _alone(path):
            if not path.exists():
                make(source, path)
            package = kept.opened(path, source.name)  # not there: another process needed its room in this very moment
        kept.prune(path.parent, most_bytes)
    return package


def make(source: ModelSource, path: Path, carried: Mapping[str, Any] | None = None) -> None:
    """Pack a source, in another process; see `pack.pack`. Raises ModelError."""
    if find_spec("tensorflow") is None:
        raise ModelError(
            f"model {source.name!r}: {source.source} has to be packed first, and TensorFlow, which that takes, is not "
            f"installed here; on a machine that has it: `trisect pack {source.source} -o {Path(source.source).stem}"
            f"{SUFFIX}`, then give that file as source"
        )
    _log.info("packing %s, once: %s", source.name, path)
    # the other process runs in another folder
    files = {"source": _absolute(source.source), "weights": _absolute(source.weights)}
    before = os.environ.get("PYTHONPATH")
    asked = json.dumps({"source": asdict(source) | files, "path": str(path.absolute()), "carried": carried})
    done = subprocess.run(
        [sys.executable, "-c", _SERVE],
        input=asked,
        capture_output=True,
        text=True,
        check=False,
        cwd=_root(),
        env={**os.environ, **_ITS_OWN, "PYTHONPATH": os.pathsep.join(filter(None, [before, os.getcwd()]))},
    )
    answer = done.stdout.strip().rpartition("\n")[2]
    try:
        said = json.loads(answer)
        error = said["error"]
    except (ValueError, KeyError, TypeError):
        last = done.stderr.strip().rpartition("\n")[2][:300]
        raise ModelError(f"model {source.name!r} was not packed: exit code {done.returncode}: {last}") from None
    if error:
        raise (NoKernel if said.get("kind") == NoKernel.__name__ else ModelError)(error)


def _root() -> Path:
    return Path(__file__).resolve().parents[2]


def _is_file(text: str) -> bool:
    return text.endswith((".keras", ".h5", ".hdf5")) or "/" in text


def _absolute(text: str) -> str:
    return str(Path(text).expanduser().resolve()) if _is_file(text) else text


def _identity(text: str) -> str:
    """A name as it is; a file by its place, size and time of change."""
    if not _is_file(text):
        return text
    path = Path(_absolute(text))
    try:
        found = path.stat()
    except OSError:
        raise ModelError(f"no model file at {path}") from None
    return f"{path} {found.st_size} {found.st_mtime_ns}"


def _identity_of_package(package: str) -> list[str]:
    """Its name, and that of its first file as `_identity` has it: other code makes other layers."""
    try:
        sys.path.append(os.getcwd())
        found = find_spec(package)
    except (ImportError, ValueError):
        found = None
    finally:
        sys.path.pop()
    return [package, _identity(found.origin) if found is not None and found.has_location and found.origin else ""]


@cache
def _code() -> str:
    """Hash of the code that makes packages: a package of other code is not used."""
    found = hashlib.sha256()
    for room in _MAKES:
        for file in sorted((_root() / "pipeline" / room).rglob("*.py")):
            found.update(file.read_bytes())
    return found.hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the package's lock: one node of a machine packs, the others wait. Raises ModelError."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("a", encoding="utf-8")
    except OSError as error:
        raise ModelError(f"package {path} cannot be written: {error.strerror or error}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    path.with_suffix(".lock").unlink(missing_ok=True)
