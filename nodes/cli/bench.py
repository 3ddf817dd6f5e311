"""`trisect bench engines`: the engines installed here side by side, on the same prepared models and frames.

Imports TensorFlow when it runs.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from nodes.display.screen import wide_screen
from pipeline.errors import TrisectError
from pipeline.models import lookup
from pipeline.models.source import ModelSource, named

if TYPE_CHECKING:
    from pipeline.engines import Array, Engine, Segment
    from pipeline.prepare.model import PreparedModel

_MOST_ROUNDS, _LEAST_ROUNDS = 30, 5
_SECONDS_PER_MODEL = 10.0


def run(
    models: Sequence[str],
    *,
    threads: int | None,
    weights: str | None,
    json_path: Path | None,
    input_size: str = "",
    imports: Sequence[str] = (),
) -> int:
    """Measure and print; the exit code. A model that an engine cannot run is reported, and the others go on.

    Raises UnknownModel for a name that is none, before anything is measured.
    """
    sources = [named(name, weights, input_size, imports) for name in dict.fromkeys(models)]
    for source in sources:
        if not source.is_file:
            lookup(source.source)
    from pipeline import engines

    found = [engines.create(name, threads or os.cpu_count() or 1) for name in engines.installed()]
    console = wide_screen()
    rows: list[dict[str, Any]] = []
    for source in sources:
        try:
            rows += measure(source, found)
        except TrisectError as error:
            rows.append({"model": source.name, "error": str(error)})
    console.print(_table(rows, found))
    for row in rows:
        if "error" in row:
            console.print(f"{row['model']}: {row['error']}", style="red", markup=False)
    missing = [name for name in engines.NAMES if name not in engines.installed()]
    if missing:
        console.print(
            f"not installed: {', '.join(f'{name} (pip install trisect[{name}])' for name in missing)}", markup=False
        )
    if json_path is not None:
        json_path.write_text(json.dumps(rows, indent=2) + "\n")
    return int(any("error" in row for row in rows))


def measure(source: ModelSource, found: Sequence[Engine]) -> list[dict[str, Any]]:
    """One row per engine. Raises UnknownModel, ModelError."""
    from pipeline.models.load import load

    began = time.perf_counter()
    model = load(source)
    load_seconds = time.perf_counter() - began
    segments: dict[str, Segment] = {}
    rows = []
    for engine in found:
        row: dict[str, Any] = {"model": source.name, "engine": engine.name, "version": engine.version}
        row |= {"threads": engine.threads, "load_seconds": load_seconds}
        try:
            row |= _compile(engine, model, segments)
        except TrisectError as error:
            row["error"] = f"{engine.name}: {error}"
        rows.append(row)
    seconds, answers = _interleaved(model, segments)
    fastest = min((statistics.median(values) for values in seconds.values()), default=0.0)
    for row in rows:
        if (name := row["engine"]) in seconds:
            median = statistics.median(seconds[name])
            row |= {"seconds": median, "over_fastest": median / fastest, "rounds": len(seconds[name])}
            row["relative_error"] = _relative_error(answers[name], answers[found[0].name])
    return rows


def _compile(engine: Engine, model: PreparedModel, segments: dict[str, Segment]) -> dict[str, float]:
    """Seconds of the first segment (an engine may convert the model then) and of the next, here the same again."""
    from pipeline import engines

    took = []
    for _ in range(2):
        began = time.perf_counter()
        segments[engine.name] = engines.unsplit(engine, model)
        took.append(time.perf_counter() - began)
    return {"first_compile_seconds": took[0], "compile_seconds": took[1]}


def _interleaved(
    model: PreparedModel, segments: dict[str, Segment]
) -> tuple[dict[str, list[float]], dict[str, dict[int, Array]]]:
    from pipeline.engines.checks import noise

    frame = {i: noise(model.graph.tensors[i]) for i in model.graph.inputs}
    answers = {name: segment.run(frame) for name, segment in segments.items()}
    seconds: dict[str, list[float]] = {name: [] for name in segments}
    began = time.perf_counter()
    for number in range(_MOST_ROUNDS):
        if number >= _LEAST_ROUNDS and time.perf_counter() - began > _SECONDS_PER_MODEL:
            break
        for name, segment in segments.items():
            start = time.perf_counter()
            segment.run(frame)
            seconds[name].append(time.perf_counter() - start)
    return seconds, answers


def _relative_error(answer: dict[int, Array], reference: dict[int, Array]) -> float:
    """The largest difference, by the largest value of that output."""
    worst = 0.0
    for tensor, expected in reference.items():
        difference = np.abs(answer[tensor].astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)
        worst = max(worst, float(difference) / max(float(np.abs(expected).max(initial=0.0)), 1e-30))
    return worst


def _table(rows: Sequence[dict[str, Any]], found: Sequence[Engine]) -> Table:
    versions = ", ".join(f"{engine.name} {engine.version}" for engine in found)
    table = Table(title=f"{versions}; {found[0].threads} threads")
    for column in ("model", "engine"):
        table.add_column(column)
    for column in ("load s", "first compile s", "compile s", "unsplit ms", "to fastest", "error to tensorflow"):
        table.add_column(column, justify="right")
    for row in rows:
        if "seconds" in row:
            table.add_row(
                row["model"],
                row["engine"],
                f"{row['load_seconds']:.1f}",
                f"{row['first_compile_seconds']:.2f}",
                f"{row['compile_seconds']:.2f}",
                f"{row['seconds'] * 1e3:.1f}",
                f"{row['over_fastest']:.2f}",
                f"{row['relative_error']:.1e}",
            )
    return table
