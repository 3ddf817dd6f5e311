"""What `trisect doctor` looks at without a network: this machine's memory, disk, processors, engines, certificate."""

from __future__ import annotations

import locale
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

from nodes.config.model_settings import source_of
from nodes.config.replay_section import REPLAY
from nodes.config.sections import Config, NodeSection
from nodes.doctor.findings import Finding, ok, warning, wrong
from pipeline import engines, folders
from pipeline.errors import TrisectError
from pipeline.models.host_memory import available_bytes, needed_bytes
from pipeline.plan import NodeId
from pipeline.timing import cpu_quota

GIB: Final = 1 << 30
MIB: Final = 1 << 20
LEAST_DISK: Final = GIB
LEAST_SHARED: Final = 64 * MIB
SHARED: Final = Path("/dev/shm")
_OTHERS_MAY_READ: Final = 0o077


def without_configuration() -> Iterator[Finding]:
    """What can be said of any machine."""
    yield ok("version", f"trisect {version('trisect')}, Python {sys.version.split()[0]}")
    yield _locale()
    yield from _folders()
    yield from _shared_memory()


def with_configuration(config: Config) -> Iterator[Finding]:
    """The same, and what this member of the pipeline needs."""
    yield from without_configuration()
    yield from _certificate(config)
    member = config.broker.credentials
    node = config.nodes.get(NodeId(member.name)) if member is not None else None
    if node is None or member is None:
        return
    yield _processors(node)
    yield _engine(config, NodeId(member.name))
    yield _memory(config, node)


def _locale() -> Finding:
    encoding = locale.getpreferredencoding(False)
    if encoding.lower().replace("-", "") == "utf8":
        return ok("locale", f"text is {encoding}")
    return warning("locale", f"text is {encoding}, so that names of other languages show wrong", "set LANG=C.UTF-8")


def _folders() -> Iterator[Finding]:
    for what, folder in (("cache", folders.cache()), ("state", folders.state())):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            variable = f"XDG_{what.upper()}_HOME"
            yield wrong(
                "disk", f"{folder} cannot be written", f"give this user the folder, or set {variable} to another"
            )
            continue
        free = shutil.disk_usage(there).free
        text = f"{free / GIB:.1f} GiB free for the {what} in {folder}"
        if free < LEAST_DISK:
            yield warning("disk", text, "free some: prepared models, profiles and journals go there")
        else:
            yield ok("disk", text)


def _shared_memory() -> Iterator[Finding]:
    if not SHARED.is_dir():
        yield warning("shared memory", f"{SHARED} is missing", "mount a tmpfs there; containers: give it a size")
        return
    free = shutil.disk_usage(SHARED).free
    text = f"{free / MIB:.0f} MiB free in {SHARED}"
    if free < LEAST_SHARED or not os.access(SHARED, os.W_OK):
        yield warning("shared memory", text, "give it at least 64 MiB (docker run --shm-size=64m), writable")
    else:
        yield ok("shared memory", text)


def _certificate(config: Config) -> Iterator[Finding]:
    member = config.broker.credentials
    if member is None:
        if config.broker.host not in {"127.0.0.1", "localhost", "::1"} and not (config.broker.tls or config.broker.ca):
            yield warning("certificate", "nothing is encrypted on the way to the broker", "enrol nodes: `trisect init`")
        return
    if (text := member.warning()) is not None:
        yield (wrong if member.seconds_left() <= 0 else warning)("certificate", text, f"trisect renew {member.name}")
    else:
        roles = ", ".join(member.roles)
        yield ok("certificate", f"of {member.name} ({roles}), good until {member.expires:%Y-%m-%d}")


def _processors(node: NodeSection) -> Finding:
    cores, quota = os.cpu_count() or 1, cpu_quota.cores()
    threads = node.threads or cores
    usable = min(cores, quota) if quota is not None else cores
    text = f"{cores} cores" + (f", a quota of {quota:.1f}" if quota is not None else "") + f", {threads} threads"
    if threads > usable + 0.5:
        return warning("processors", text, f"set threads to {max(1, int(usable))}: more only wait for each other")
    return ok("processors", text)


def _engine(config: Config, node: NodeId) -> Finding:
    wanted, there = config.engine_of(node), engines.installed()
    if wanted == "auto" and there:
        return ok("engine", f"auto, of {', '.join(there)}")
    if wanted == REPLAY:
        return warning("engine", "replay: computes nothing, answers mean nothing", "leave engine out to compute")
    if wanted in there:
        return ok("engine", wanted)
    return wrong("engine", f"{wanted} is not installed", f"pip install 'trisect[{wanted}]', or set engine")


def _memory(config: Config, node: NodeSection) -> Finding:
    free = available_bytes()
    used = {stream.model for stream in config.streams.values()}
    try:
        needed = sum(needed_bytes(source_of(name, config.models[name])) for name in used)
    except TrisectError as error:
        return wrong("memory", str(error), "correct the models of the configuration")
    text = f"{free / MIB:,.0f} MiB free; all of the models whole take {needed / MIB:,.0f} MiB"
    if needed > free and node.memory_mb is None:
        return warning("memory", text, "give the node's memory_mb, so that plans keep within it")
    return ok("memory", text)
