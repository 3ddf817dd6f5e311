"""One load test from begin to end: levels one after the other, told as they go, and the reports."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from nodes.client.client import Client
from nodes.client.frames import frame_bytes
from nodes.config.sections import Config
from nodes.load import report as reports
from nodes.load.generator import Level, LoadTest, Patience
from nodes.load.measuring import Window
from nodes.load.observed import Observed
from nodes.watch.overview.text import milliseconds
from pipeline.errors import ConfigError
from pipeline.plan import StreamId

MOST_FRAMES = 10_000
MOST_BYTES = 1 << 30


def frames_of(files: Sequence[Path]) -> list[bytes]:
    """The frames to send again and again.

    Raises ConfigError for a file that cannot be read, or none, or too many, FrameError for one that is too large.
    """
    found, total = [], 0
    for path in files:
        paths = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
        for one in paths:
            found.append(frame_bytes(one))
            total += len(found[-1])
            if len(found) > MOST_FRAMES or total > MOST_BYTES:
                raise ConfigError(
                    f"{path}: more than {MOST_FRAMES:,} frames or {MOST_BYTES >> 20:,} MiB; a few are enough, "
                    "they are sent again and again"
                )
    if not found:
        raise ConfigError(
            f"no frames in {', '.join(map(str, files))}; give images, or leave it out for the demo's photos"
        )
    return found


def run(
    config: Config,
    stream: StreamId,
    levels: Sequence[Level],
    frames: Sequence[bytes],
    patience: Patience,
    *,
    name: str,
    frames_from: str,
    console: Console,
) -> dict[str, Any]:
    """Measure all levels; returns the report. Raises NotAnswered, BrokerError, and what the client raises."""
    measured: list[dict[str, Any]] = []
    with Client(config, stream, timeout_s=patience.answer_s) as client, Observed(config, stream) as observed:
        for level in levels:
            console.print(f"{level.label}:", style="dim")
            test = LoadTest(client, observed, frames, patience)
            measured.append(test.run(level, lambda window: _tell(console, window)))
        plan = observed.plan or {}
    return {
        "version": reports.VERSION,
        "name": name,
        "stream": stream,
        "model": config.streams[stream].model,
        "planner": str(plan.get("planner", "")),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "trisect": version("trisect"),
        "host": platform.node(),
        "frames_from": frames_from,
        "patience": {
            "warm_up_seconds": patience.warm_up_s,
            "window_seconds": patience.window_s,
            "most_windows": patience.most_windows,
            "stable_share": patience.stable_share,
        },
        "levels": measured,
    }


def _tell(console: Console, window: Window) -> None:
    seconds = milliseconds(window.latency_seconds) if window.samples else "-"
    console.print(f"  {window.frames_per_second:,.1f} frames/s, mean {seconds}", style="dim")
