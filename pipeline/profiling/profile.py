"""Profiles: measured seconds per block, kept on disk and shared by the nodes of one machine.

Knows no kernel: it asks an engine. A profile fits one model, engine, version, number of threads and kind of machine.
Whatever else is measured once for an engine on a machine (its speed) is kept here too, under the same lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field

from pipeline import folders, ranges
from pipeline.errors import ModelError
from pipeline.frames.input_blocks import has_input
from pipeline.graph import ModelGraph
from pipeline.ranges import Count, Name, Ratio, Seconds, Sum, Timestamp, Word
from pipeline.timing import cpu_quota

if TYPE_CHECKING:
    from pipeline.engines import Engine, Loaded

PROFILE_VERSION = 1

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Profile:
    """Median seconds per block by index, block 0 (the input) among them with 0.0.

    `spread` is the distance between the quartiles of each, `total_seconds` the median of whole runs without the
    profiler, which `seconds` is scaled to add up to; `unscaled_seconds` is what it added up to before (None: unknown).
    `ratios` are how many times each codec
    shrank each tensor, by tensor id. `measured_ts` is in seconds since 1970. Raises ModelError on nonsense.
    """

    model: Name
    digest: Name
    engine: Word
    engine_version: Word
    threads: Count
    hardware: Word
    seconds: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=ranges.MOST_BLOCKS)]
    spread: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=ranges.MOST_BLOCKS)]
    total_seconds: Sum
    measured_ts: Timestamp
    unscaled_seconds: Sum | None = None
    ratios: Annotated[
        Mapping[Word, Annotated[tuple[Ratio, ...], Field(max_length=10 * ranges.MOST_BLOCKS)]], Field(max_length=32)
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        times = (*self.seconds, *self.spread, self.total_seconds, self.unscaled_seconds or 0.0)
        if not self.seconds or len(self.seconds) != len(self.spread):
            raise ModelError(f"profile of {self.model!r}: {len(self.seconds)} times and {len(self.spread)} spreads")
        if not all(math.isfinite(value) and value >= 0 for value in times):
            raise ModelError(f"profile of {self.model!r}: a time is negative or not finite; measure again")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"version": PROFILE_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Profile:
        """Read a profile. Raises ModelError for anything that is not one."""
        ranges.require_version(value, PROFILE_VERSION, error=ModelError, what="profile")
        return ranges.read(cls, value, error=ModelError, what="a profile")


def hardware() -> str:
    """The hardware that decides speed, equal for equal machines: `<machine> <processor> x<cores>`, and a CPU quota."""
    quota = cpu_quota.cores()
    limited = f", {quota:g} of them" if quota is not None else ""
    return f"{platform.machine()} {_processor()} x{os.cpu_count() or 1}{limited}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    named = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return named.get("model name") or named.get("model") or named.get("hardware") or platform.processor() or "unknown"


def load_cached(graph: ModelGraph, engine: Engine) -> Profile | None:
    """The profile measured before on such a machine, or None. A file that is no such profile is logged and ignored."""
    profile = kept(_name(graph), engine, Profile.from_json)
    foreign = _foreign(profile, graph.digest, engine) if profile is not None else ""
    if foreign:
        path = _path(_name(graph), engine)
        _log.warning("profile %s ignored: it is of another model, engine or machine: %s", path, foreign)
        return None
    return profile


def cached(engine: Engine, model: Loaded) -> Profile | None:
    """The profile of this model that was measured before on such a machine, or None."""
    profile = load_cached(model.graph, engine)
    if profile is None or len(profile.seconds) != len(model.graph) or not profile.ratios:
        return None
    return replace(profile, model=model.graph.name)  # it may go by another name here


def kept(name: str, engine: Engine, read: Callable[[Any], T]) -> T | None:
    """The value kept under this name for such an engine on such a machine, or None; an unreadable file is logged."""
    path = _path(name, engine)
    try:
        return read(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, ModelError) as error:
        _log.warning("%s ignored: %s", path, error)
        return None


def keep(name: str, engine: Engine, value: Mapping[str, Any]) -> Path:
    """Keep plain JSON values for later: readers see the old file or the whole new one. Raises OSError."""
    path = _path(name, engine)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".new-", encoding="utf-8", delete=False) as new:
        json.dump(value, new)
    os.replace(new.name, path)
    return path


def keep_if_possible(name: str, engine: Engine, value: Mapping[str, Any]) -> None:
    """Keep plain JSON values if the cache can be written, else log a warning."""
    try:
        keep(name, engine, value)
    except OSError as error:
        _log.warning("not kept: %s; set XDG_CACHE_HOME to a directory that can be written", error)


def _name(graph: ModelGraph) -> str:
    """Networks are profiled with the input's blocks before them, and without; both have one digest."""
    return f"{graph.digest}-input" if has_input(graph) else graph.digest


def _foreign(profile: Profile, digest: str, engine: Engine) -> str:
    """Differences of the profile's model, engine and hardware from these, in words; empty if it fits."""
    pairs = (
        ("digest", profile.digest, digest),
        ("engine", profile.engine, engine.name),
        ("engine version", profile.engine_version, engine.version),
        ("threads", profile.threads, engine.threads),
        ("hardware", profile.hardware, hardware()),
    )
    return "; ".join(f"{name} {theirs}, here {ours}" for name, theirs, ours in pairs if theirs != ours)


def _path(name: str, engine: Engine) -> Path:
    key = json.dumps([engine.name, engine.version, engine.threads, hardware()])
    return folders.profiles() / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def measure(engine: Engine, model: Loaded, repeats: int = 10) -> Profile:
    """Profile a model now, on this machine, in at most `repeats` runs."""
    from pipeline.profiling.tensor_ratios import expected_ratios

    times = engine.profile(model, repeats)
    return Profile(
        model=model.graph.name,
        digest=model.graph.digest,
        engine=engine.name,
        engine_version=engine.version,
        threads=engine.threads,
        hardware=hardware(),
        seconds=times.seconds,
        spread=times.spread,
        total_seconds=times.total_seconds,
        measured_ts=time.time(),
        unscaled_seconds=times.unscaled_seconds,
        ratios=expected_ratios(engine, model),
    )


def measure_or_load(engine: Engine, model: Loaded) -> Profile:
    """The cached profile, else a new one. Of the nodes that start on one machine, one measures and the others wait.

    Measuring at the same time would give seconds that no node takes when it runs alone.
    """
    with alone():
        profile = cached(engine, model)
        if profile is None:
            profile = measure(engine, model)
            keep_if_possible(_name(model.graph), engine, profile.to_json())
        return profile


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the machine's lock for measuring; the kernel frees it when its holder dies. Without a lock file, go on."""
    with contextlib.ExitStack() as stack:
        try:
            directory = folders.profiles()
            directory.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(open(directory / "lock", "a", encoding="utf-8")), fcntl.LOCK_EX)
        except OSError as error:
            _log.warning("measuring without a lock: %s", error)
        yield
