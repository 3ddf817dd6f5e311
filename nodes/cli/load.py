"""`trisect bench load` and `trisect bench report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nodes.cli.options import DEFAULT_CONFIG, ConfigOption, output_file

if TYPE_CHECKING:
    from nodes.load.generator import Level

_MOST_CONCURRENCY = 1_000


def load(
    stream: Annotated[
        str | None, typer.Argument(metavar="STREAM", help="The stream; may be left out if there is one.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    concurrency: Annotated[
        str, typer.Option(help="Frames in flight at once; several levels with commas: 1,2,4 or 1:8 or 1:16:2.")
    ] = "1",
    rate_hz: Annotated[
        str | None, typer.Option(help="Frames a second in place of --concurrency; several with commas.")
    ] = None,
    poisson: Annotated[bool, typer.Option("--poisson", help="With --rate-hz: at random (Poisson) times.")] = False,
    frames: Annotated[list[Path] | None, typer.Option(help="Images, or folders of them; the demo's photos.")] = None,
    warm_up_s: Annotated[float, typer.Option(min=0.0, help="Seconds before anything is measured.")] = 3.0,
    window_s: Annotated[float, typer.Option(min=0.1, help="Seconds of one window.")] = 5.0,
    windows: Annotated[int, typer.Option(min=3, max=1_000, help="Windows at most; three that agree are enough.")] = 10,
    stable: Annotated[float, typer.Option(min=0.001, max=1.0, help="The share by which windows may differ.")] = 0.1,
    answer_s: Annotated[float, typer.Option(min=1.0, help="Give up after this many seconds without an answer.")] = 60.0,
    name: Annotated[str, typer.Option(help="The run's name in reports.")] = "",
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the report to this file.", callback=output_file)
    ] = None,
    csv_path: Annotated[
        Path | None, typer.Option("--csv", help="Write a CSV line for each level to this file.", callback=output_file)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write an HTML page with plots to this file.", callback=output_file)
    ] = None,
    against: Annotated[Path | None, typer.Option(help="With --html: an earlier run's JSON to compare with.")] = None,
) -> None:
    """Put a running stream under load: throughput, latencies and a frame's parts, next to what its plan predicts.

    Measures windows until three in a row agree in throughput and latency. Latency is the client's: at a given rate it
    counts from when a frame was due.
    """
    from nodes.cli import sample_images
    from nodes.client import requests
    from nodes.config.loader import load_config
    from nodes.display.screen import Screen
    from nodes.load import report as reports
    from nodes.load.generator import Patience
    from nodes.load.run import frames_of, run

    levels = levels_of(concurrency, rate_hz, is_poisson=poisson)
    if against is not None and html is None:
        raise typer.BadParameter("--against goes with --html")
    earlier = [reports.read_report(against)] if against is not None else []
    settings = load_config(config)
    key = requests.require_stream(settings, stream)
    images = frames_of(frames) if frames else sample_images.frames(16)
    console = Screen()
    found = run(
        settings,
        key,
        levels,
        images,
        Patience(warm_up_s, window_s, windows, stable, answer_s),
        name=name,
        frames_from=", ".join(map(str, frames)) if frames else "the demo's photos",
        console=console,
    )
    console.print(reports.table(found))
    console.print(reports.parts_table(found["levels"][-1]))
    if json_path is not None:
        reports.write(json.dumps(found, indent=1) + "\n", json_path)
    if csv_path is not None:
        reports.write(reports.csv_text(found), csv_path)
    if html is not None:
        reports.write_page([*earlier, found], html)


def report(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="A report written by `trisect bench load --json`.")],
    second: Annotated[Path | None, typer.Argument(metavar="LATER", help="An earlier report to compare with.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.", callback=output_file)] = Path(
        "load.html"
    ),
) -> None:
    """Make a page of one load test, or of two next to each other."""
    from nodes.load import report as reports

    reports.write_page([reports.read_report(path) for path in (first, second) if path is not None], output)
    print(output)


def levels_of(concurrency: str, rate_hz: str | None, *, is_poisson: bool) -> list[Level]:
    """The levels that options ask for. Raises BadParameter, which says what is allowed."""
    from nodes.load.generator import Level

    if rate_hz is not None:
        return [Level(rate_hz=rate, is_poisson=is_poisson) for rate in _rates(rate_hz)]
    if is_poisson:
        raise typer.BadParameter("--poisson goes with --rate-hz")
    return [Level(concurrency=number) for number in _numbers(concurrency)]


def _rates(written: str) -> list[float]:
    try:
        rates = [float(part) for part in written.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0 < rate <= 1e6 for rate in rates):  # noqa: PLR2004  # above what any broker takes
        raise typer.BadParameter(f"{written!r:.80}: frames a second above 0, several with commas: 5,10,20")
    return rates


def _numbers(written: str) -> list[int]:
    """`1,2,4`, `1:4` (both ends) or `1:16:5`, as perf_analyzer has ranges."""
    try:
        found = [
            number
            for part in written.split(",")
            for first, last, step in [_range(part)]
            for number in range(first, last + 1, step)
        ]
    except ValueError:
        found = []
    if not found or not all(1 <= number <= _MOST_CONCURRENCY for number in found):
        raise typer.BadParameter(
            f"{written!r:.80}: whole numbers from 1 to {_MOST_CONCURRENCY:,}, as 4, or 1,2,4, or 1:8, or 1:16:5"
        )
    return found


def _range(part: str) -> tuple[int, int, int]:
    first, *rest = (int(number) for number in part.split(":"))
    last, *more = rest or [first]
    (step,) = more or [1]
    if step < 1:
        raise ValueError(part)
    return first, min(last, _MOST_CONCURRENCY + first), step
