"""Reports of load tests: JSON that is read again for a comparison, CSV, a table, a page."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from rich.table import Table

from nodes.load.page import page
from nodes.watch.overview.text import milliseconds
from pipeline import ranges
from pipeline.errors import ConfigError, TrisectError
from pipeline.files import read_bounded

VERSION: Final = 1
_MOST_BYTES: Final = 64 << 20
_PERCENTILES: Final = ("mean", "p50", "p90", "p95", "p99")
_Seconds = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
_Spread = Annotated[dict[str, _Seconds], Field(max_length=16)]
_Text = Annotated[str, Field(max_length=1_000)]


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Device(_Read):
    frames_per_second: _Seconds | None = None
    seconds: _Seconds | None = None


class _Stage(_Read):
    tier: _Text
    node: _Text
    decode_seconds: _Spread = {}
    queue_seconds: _Spread
    compute_seconds: _Spread
    encode_seconds: _Spread = {}
    predicted_compute_seconds: _Seconds | None = None


class _Link(_Read):
    link: _Text
    seconds: _Spread
    predicted_seconds: _Seconds | None = None


class _Frame(_Read):
    measured_seconds: _Spread = {}
    overhead_seconds: _Spread = {}
    predicted_latency_seconds: _Seconds | None = None
    predicted_period_seconds: _Seconds | None = None


class _Breakdown(_Read):
    epoch: int | None
    epochs: int
    stages: Annotated[list[_Stage], Field(max_length=64)]
    links: Annotated[list[_Link], Field(max_length=64)]
    frame: _Frame


class _Level(_Read):
    label: _Text
    concurrency: int | None = None
    rate_hz: _Seconds | None = None
    is_stable: bool
    seconds: _Seconds
    frames: int
    errors: int
    frames_per_second: _Seconds
    client_seconds: _Spread
    device_seconds: _Spread
    device: _Device
    breakdown: _Breakdown
    client_latencies: Annotated[list[_Seconds], Field(max_length=10_000)]


class _Report(_Read):
    version: int
    name: _Text = ""
    stream: _Text
    model: _Text = ""
    planner: _Text = ""
    created: _Text = ""
    trisect: _Text = ""
    host: _Text = ""
    frames_from: _Text = ""
    levels: Annotated[list[_Level], Field(max_length=1_000)]


def read_report(path: Path) -> dict[str, Any]:
    """Read a report that `trisect bench load --json` has written. Raises ConfigError."""
    try:
        value = json.loads(read_bounded(path, _MOST_BYTES))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", file=path) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error!s:.200}", file=path) from error
    try:
        ranges.require_version(value, VERSION, error=TrisectError, what="report of a load test")
        return ranges.read(_Report, value, error=TrisectError, what="a report of a load test").model_dump()
    except TrisectError as error:
        raise ConfigError(f"{path}: {error}", file=path) from error


def write(text: str, path: Path) -> None:
    """Write a file. Raises ConfigError."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", file=path) from error


def write_page(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the page of one run, or of two. Raises ConfigError."""
    write(page(runs), path)


def csv_text(report: Mapping[str, Any]) -> str:
    """A line for each level; seconds as they are."""
    made = io.StringIO()
    writer = csv.writer(made, lineterminator="\n")
    columns = [f"{where}_seconds_{name}" for where in ("client", "device") for name in _PERCENTILES]
    first = ["concurrency", "rate_hz", "frames", "errors", "is_stable", "frames_per_second", "device_frames_per_second"]
    writer.writerow([*first, *columns])
    for level in report["levels"]:
        spreads = [level[f"{where}_seconds"].get(name, "") for where in ("client", "device") for name in _PERCENTILES]
        known = [level[name] for name in first[:-1]]
        writer.writerow(["" if v is None else v for v in (*known, level["device"]["frames_per_second"], *spreads)])
    return made.getvalue()


def table(report: Mapping[str, Any]) -> Table:
    """Levels for a terminal."""
    made = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column("load")
    for heading in ("frames/s", "mean", "p50", "p95", "p99", "in the device", "predicted", "errors", ""):
        made.add_column(heading, justify="right")
    for level in report["levels"]:
        client = level["client_seconds"]
        predicted = level["breakdown"]["frame"].get("predicted_latency_seconds")
        made.add_row(
            level["label"],
            f"{level['frames_per_second']:,.1f}",
            *(milliseconds(client.get(name)) for name in ("mean", "p50", "p95", "p99")),
            milliseconds(level["device_seconds"].get("p50")),
            milliseconds(predicted),
            f"{level['errors']:,}",
            "" if level["is_stable"] else "not stable",
        )
    return made


def parts_table(level: Mapping[str, Any]) -> Table:
    """A frame's parts at one level for a terminal, medians next to the plan's prediction."""
    found = level["breakdown"]
    made = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(f"a frame, {level['label']}")
    for heading in ("measured", "predicted", "waited"):
        made.add_column(heading, justify="right")
    for stage in found["stages"]:
        made.add_row(
            f"{stage['tier']} {stage['node']}",
            milliseconds(stage["compute_seconds"].get("p50")),
            milliseconds(stage["predicted_compute_seconds"]),
            milliseconds(stage["queue_seconds"].get("p50")),
        )
    for link in found["links"]:
        name = f"  {link['link'].replace('_', ' to ', 1)}"
        made.add_row(name, milliseconds(link["seconds"].get("p50")), milliseconds(link["predicted_seconds"]), "")
    frame = found["frame"]
    made.add_row("frame overhead", milliseconds(frame["overhead_seconds"].get("p50")), "", "")
    whole = frame["measured_seconds"].get("p50")
    made.add_row("frame, median", milliseconds(whole), milliseconds(frame["predicted_latency_seconds"]), "")
    period = frame["predicted_period_seconds"]
    if period and math.isfinite(period):
        rate = level["frames_per_second"]
        made.add_row("period at full load", milliseconds(1 / rate) if rate else "-", milliseconds(period), "")
    return made
