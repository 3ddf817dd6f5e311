"""`trisect profile`: measure models on this machine; a JSON file and a picture each, a table for all.

Imports TensorFlow when it runs.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nodes.display.screen import wide_screen
from pipeline.engines.pictured import PicturedEngine, pictured
from pipeline.errors import ConfigError, TrisectError
from pipeline.frames.decode import Preprocess
from pipeline.graph import ModelGraph
from pipeline.models import PAPERS, lookup, mode_of
from pipeline.models.source import ModelSource, named
from pipeline.profiling.profile import Profile

if TYPE_CHECKING:
    from pipeline.engines import Engine
    from pipeline.estimator import Speed


def run(
    models: Sequence[str],
    *,
    directory: Path,
    engine: str,
    threads: int | None,
    repeats: int,
    weights: str | None,
    input_size: str = "",
    imports: Sequence[str] = (),
) -> int:
    """Profile each model; the exit code. A model that fails is reported and the others go on. Raises UnknownModel."""
    chosen = dict.fromkeys(PAPERS if "all" in models else models)
    sources = [_known(named(name, weights, input_size, imports)) for name in chosen]
    if repeats < 1:
        raise ConfigError(f"repeats must be at least 1, not {repeats}")
    directory.mkdir(parents=True, exist_ok=True)
    from pipeline import engines
    from pipeline.profiling.calibration import calibrate

    machine = engines.create(engine, threads or os.cpu_count() or 1)
    speed = calibrate(machine)
    console = wide_screen()
    reports, failed = [], []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(sources))
        for source in sources:
            progress.update(task, description=source.name)
            try:
                reports.append(profile_one(machine, speed, source, repeats, directory))
            except TrisectError as error:
                failed.append(f"error: {source.name}: {error}")
            progress.advance(task)
    if reports:
        console.print(_table(reports))
        console.print(f"{len(reports)} JSON files and pictures in {directory}")
    for line in failed:
        console.print(line, style="red", markup=False, soft_wrap=True)
    return 1 if failed else 0


def _known(source: ModelSource) -> ModelSource:
    """The source, if it is a file or of the zoo. Raises UnknownModel."""
    if not source.is_file:
        lookup(source.source)
    return source


def profile_one(engine: Engine, speed: Speed, source: ModelSource, repeats: int, directory: Path) -> dict[str, Any]:
    """Load, measure and write `<name>.json` and `<name>.svg`; the report. Raises ModelError."""
    from pipeline.models.load import load
    from pipeline.pictures.profile import picture
    from pipeline.profiling import codec_speeds, profile
    from pipeline.profiling.input_seconds import with_measured_input

    gc.collect()
    reset_peak_memory()
    began = time.perf_counter()
    network = load(source)
    model = with_measured_input(pictured(network, Preprocess(mode=mode_of(source) or "none")))
    loaded = time.perf_counter()
    measured = profile.measure(PicturedEngine(engine), model, repeats)
    ended = time.perf_counter()
    report = describe(measured, model.graph) | {
        "load_seconds": loaded - began,
        "profile_seconds": ended - loaded,
        "weight_bytes": model.nbytes,
        "peak_memory_bytes": peak_memory_bytes(),
        "speed": speed.to_json(),
        "codecs": {name: known.to_json() for name, known in codec_speeds.measured_or_kept(engine).items()},
    }
    (directory / f"{source.name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (directory / f"{source.name}.svg").write_text(picture(model.graph, measured), encoding="utf-8")
    return report


def describe(profile: Profile, graph: ModelGraph) -> dict[str, Any]:
    """The profile and the model's manifest, in which each block has its seconds and each tensor its bytes."""
    manifest = graph.to_json()
    for block, seconds, spread in zip(manifest["blocks"], profile.seconds, profile.spread, strict=True):
        block |= {"seconds": seconds, "spread_seconds": spread}
    for value, tensor in zip(manifest["tensors"], graph.tensors, strict=True):
        value["nbytes"] = tensor.nbytes
    return {"profile": profile.to_json(), "graph": manifest}


def reset_peak_memory() -> None:
    """Let Linux forget this process's highest resident memory; elsewhere the peak is of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_bytes() -> int:
    """The highest resident memory since the last reset, TensorFlow's own included."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _table(reports: Sequence[dict[str, Any]]) -> Table:
    first = reports[0]["profile"]
    title = f"{first['engine']} {first['engine_version']}, {first['threads']} threads, {first['hardware']}"
    table = Table(title=title, title_justify="left")
    table.add_column("model")
    for name in ("blocks", "GMACs", "whole ms", "blocks / whole", "slowest block", "ms", "peak MB", "profiled in s"):
        table.add_column(name, justify="left" if name == "slowest block" else "right")
    for report in reports:
        profile, blocks = report["profile"], report["graph"]["blocks"]
        slowest = max(blocks, key=lambda block: block["seconds"])
        unscaled = profile["unscaled_seconds"]
        table.add_row(
            profile["model"],
            str(len(blocks)),
            f"{sum(block['macs'] for block in blocks) / 1e9:.2f}",
            f"{profile['total_seconds'] * 1e3:.1f}",
            f"{unscaled / profile['total_seconds']:.2f}" if unscaled else "",
            slowest["name"],
            f"{slowest['seconds'] * 1e3:.2f}",
            f"{report['peak_memory_bytes'] / 1e6:.0f}",
            f"{report['profile_seconds']:.1f}",
        )
    return table
