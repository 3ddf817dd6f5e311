"""All streams together: what they give, what is open, what went wrong. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.text import Text

from nodes.watch.overview.known import RUNNING
from nodes.watch.overview.text import UNKNOWN, joined, number
from pipeline.plan import StreamId

COUNTS: Final = ("frames_in_total", "results_total", "error_results_total", "in_flight", "backlog", "lost")


def totals(streams: Mapping[StreamId, Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over the streams of a snapshot, of those whose device has reported; None where none has."""
    rates = [rate for stream in streams.values() if (rate := stream["frames_per_second"]) is not None]
    counted = {name: [v for stream in streams.values() if (v := stream["counts"][name]) is not None] for name in COUNTS}
    return {
        "streams": len(streams),
        "running": sum(stream["state"] == RUNNING for stream in streams.values()),
        "frames_per_second": round(sum(rates), 2) if rates else None,
        **{name: sum(values) if values else None for name, values in counted.items()},
    }


def totals_line(found: Mapping[str, Any]) -> Text:
    """One line for people, for more than one stream."""
    rate = found["frames_per_second"]
    alarms = [
        Text(f"{name} {number(value)}  ", "bold red" if value else "")
        for name, value in (("errors", found["error_results_total"]), ("lost", found["lost"]))
    ]
    return joined(
        [
            Text(f"{found['streams']:,} streams, {found['running']:,} running: ", "bold"),
            f"{rate:,.1f} frames/s  " if rate is not None else f"{UNKNOWN} frames/s  ",
            f"in {number(found['frames_in_total'])}  results {number(found['results_total'])}  ",
            *alarms,
            f"in flight {number(found['in_flight'])}  waiting {number(found['backlog'])}",
        ]
    )
