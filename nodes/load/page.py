"""A load test as a page: one run, or two next to each other, with plots. One file, no script."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from pipeline.pictures.svg import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    Key,
    LogAxis,
    document,
    legend,
    line,
    rect,
    seconds_text,
    text,
)

_COLOURS: Final = (BLUE, ORANGE)
_PARTS: Final = {
    "frame overhead": GREY,
    "queue": RED,
    "compute": GREEN,
    "link": PURPLE,
}
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640.0, 300.0, 64.0, 16.0, 34.0, 40.0
_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff }
table { border-collapse: collapse; margin: .8rem 0 }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } th { font-weight: 600 }
h2 { margin-top: 2rem } svg { max-width: 100%; height: auto }
.note { color: #666 } .worse { color: #8C2F1B } .better { color: #1c7a55 }
"""
_ONE, _SUBSTANTIAL = 1, 0.03


def page(runs: Sequence[Mapping[str, Any]]) -> str:
    """The page of one run's report, or of two: the second against the first."""
    title = " against ".join(_name(run) for run in reversed(runs))
    parts = [f"<h1>Load test: {_escaped(title)}</h1>", *(_about(run) for run in runs)]
    parts += ["<h2>Levels</h2>", _levels(runs), _throughput_plot(runs), "<h2>Latency at the client</h2>"]
    parts += [_latency_plot(runs), "<h2>A frame's parts</h2>"]
    parts += [_breakdown(run, level) for run in runs for level in run["levels"]]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_escaped(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _name(run: Mapping[str, Any]) -> str:
    return str(run.get("name") or run.get("stream") or "run")


def _escaped(value: Any) -> str:
    return html.escape(f"{value!s:.200}")


def _about(run: Mapping[str, Any]) -> str:
    keys = ("stream", "model", "planner", "created", "version", "host", "frames_from")
    said = "; ".join(f"{key.replace('_', ' ')} {run[key]}" for key in keys if run.get(key))
    return f'<p class="note">{_escaped(_name(run))}: {_escaped(said)}</p>'


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _seconds(value: float | None) -> str:
    return "-" if value is None else _escaped(seconds_text(value))


def _levels(runs: Sequence[Mapping[str, Any]]) -> str:
    headings = (
        "load",
        "frames/s",
        "device says",
        "mean",
        "p50",
        "p90",
        "p95",
        "p99",
        "in the device, p50",
        "errors",
        "",
    )
    tables = []
    earlier = {level["label"]: level for level in runs[0]["levels"]} if len(runs) > _ONE else {}
    for number, run in enumerate(runs):
        rows = [_level_row(level, earlier.get(level["label"]) if number else None) for level in run["levels"]]
        tables.append(f"<h3>{_escaped(_name(run))}</h3>" + _table(headings, rows))
    return "".join(tables)


def _level_row(level: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[str]:
    client, device = level["client_seconds"], level["device_seconds"]
    said = level["device"]["frames_per_second"]
    rate = f"{level['frames_per_second']:,.1f}"
    cells = [_seconds(client.get(name)) for name in ("mean", "p50", "p90", "p95", "p99")]
    if before is not None:
        rate += _change(level["frames_per_second"], before["frames_per_second"], more_is_better=True)
        cells[0] += _change(client.get("mean"), before["client_seconds"].get("mean"), more_is_better=False)
    stable = "" if level["is_stable"] else '<span class="worse">not stable</span>'
    device_rate = "-" if said is None else f"{said:,.1f}"
    return [
        _escaped(level["label"]),
        rate,
        device_rate,
        *cells,
        _seconds(device.get("p50")),
        f"{level['errors']:,}",
        stable,
    ]


def _change(now: float | None, before: float | None, *, more_is_better: bool) -> str:
    if not now or not before:
        return ""
    share = now / before - 1
    if abs(share) < _SUBSTANTIAL:
        return f' <span class="note">({share:+.1%})</span>'
    kind = "better" if (share > 0) is more_is_better else "worse"
    return f' <span class="{kind}">({share:+.1%})</span>'


def _throughput_plot(runs: Sequence[Mapping[str, Any]]) -> str:
    """Mean latency over throughput, a point for each level."""
    points = [
        [(level["frames_per_second"], level["client_seconds"].get("mean"), level["label"]) for level in run["levels"]]
        for run in runs
    ]
    found = [(x, y) for run in points for x, y, _ in run if y and x > 0]
    if not found:
        return ""
    most_x = max(x for x, _ in found) * 1.08
    axis = LogAxis.around((y for _, y in found), _HEIGHT - _BOTTOM, _TOP, least=1e-4)
    parts = [*_frame(axis), *_x_axis(most_x, "frames a second")]
    for run, colour in zip(points, _COLOURS, strict=False):
        places = [(_x(x, most_x), axis.at(y), label) for x, y, label in run if y and x > 0]
        parts += [line(*a[:2], *b[:2], colour, 2) for a, b in pairwise(places)]
        for x, y, label in places:
            parts += [rect(x - 3, y - 3, 6, 6, colour, title=label), text(x + 6, y - 5, label, size=9, fill=FAINT)]
    parts += _legend(runs)
    return document(_WIDTH, _HEIGHT, parts)


def _latency_plot(runs: Sequence[Mapping[str, Any]]) -> str:
    """Each run's last level: the share of frames (across) that took at most so long (up)."""
    curves = [run["levels"][-1]["client_latencies"] for run in runs if run["levels"]]
    values = [value for curve in curves for value in curve if value > 0]
    if not values:
        return '<p class="note">no frames</p>'
    axis = LogAxis.around(values, _HEIGHT - _BOTTOM, _TOP, least=1e-4)
    parts = [*_frame(axis), *_x_axis(100.0, "percent of the frames, at the last level")]
    for curve, colour in zip(curves, _COLOURS, strict=False):
        places = [(_x(100 * i / max(1, len(curve) - 1), 100.0), axis.at(value)) for i, value in enumerate(curve)]
        parts += [line(*a, *b, colour, 2) for a, b in pairwise(places)]
    parts += _legend(runs)
    return document(_WIDTH, _HEIGHT, parts)


def _x(value: float, most: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * value / most


def _frame(axis: LogAxis) -> list[str]:
    parts = []
    for value in axis.ticks():
        y = axis.at(value)
        parts += [
            line(_LEFT, y, _WIDTH - _RIGHT, y),
            text(_LEFT - 6, y + 4, seconds_text(value), anchor="end", size=10),
        ]
    return parts


def _x_axis(most: float, label: str) -> list[str]:
    step = 10 ** math.floor(math.log10(most)) if most > 0 else 1.0
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if most / s <= 8)  # noqa: PLR2004  # labels that fit
    parts = [text((_LEFT + _WIDTH) / 2, _HEIGHT - 6, label, anchor="middle", fill=FAINT)]
    for number in range(int(most / step) + 1):
        x = _x(number * step, most)
        parts += [
            line(x, _TOP, x, _HEIGHT - _BOTTOM),
            text(x, _HEIGHT - _BOTTOM + 15, f"{number * step:g}", anchor="middle", size=10),
        ]
    return parts


def _legend(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = [Key(_name(run), colour, stroke_width=3) for run, colour in zip(runs, _COLOURS, strict=False)]
    return legend(keys, _LEFT, 6, _WIDTH - _LEFT)[0]


def _breakdown(run: Mapping[str, Any], level: Mapping[str, Any]) -> str:
    """Stages and links of one level, medians next to the plan's prediction."""
    found = level["breakdown"]
    if not found["stages"]:
        return ""
    frame = found["frame"]
    rows = [["frame overhead", _seconds(frame["overhead_seconds"].get("p50")), "", ""]]
    parts = [("frame overhead", frame["overhead_seconds"].get("p50") or 0.0)]
    for stage in found["stages"]:
        computed, waited = stage["compute_seconds"].get("p50"), stage["queue_seconds"].get("p50")
        name = _escaped(f"{stage['tier']} {stage['node']}")
        rows.append([name, _seconds(computed), _seconds(stage["predicted_compute_seconds"]), _seconds(waited)])
        parts += [("queue", waited or 0.0), ("compute", computed or 0.0)]
    for link in found["links"]:
        name = _escaped(f"link {link['link'].replace('_', ' to ', 1)}")
        rows.append([name, _seconds(link["seconds"].get("p50")), _seconds(link["predicted_seconds"]), ""])
        parts.append(("link", link["seconds"].get("p50") or 0.0))
    whole = frame["measured_seconds"].get("p50")
    rows.append(["<b>frame</b>", _seconds(whole), _seconds(frame["predicted_latency_seconds"]), ""])
    period = frame["predicted_period_seconds"]
    limit = f" The plan predicts {1 / period:,.1f} frames/s at full load." if period else ""
    several = f" {found['epochs']} epochs ran meanwhile." if found["epochs"] > _ONE else ""
    head = f"<h3>{_escaped(_name(run))}, {_escaped(level['label'])}</h3>"
    note = (
        f'<p class="note">Medians of epoch {_escaped(found["epoch"])}.{limit}{several} A way back is in the links.</p>'
    )
    return head + _bar(parts) + _table(("part", "measured", "predicted", "waited before"), rows) + note


def _bar(parts: Sequence[tuple[str, float]]) -> str:
    total = sum(max(0.0, seconds) for _, seconds in parts)
    if total <= 0:
        return ""
    x, made = 0.0, []
    for name, seconds in parts:
        width = _WIDTH * max(0.0, seconds) / total
        made.append(rect(x, 24, width, 22, _PARTS[name], title=f"{name} {seconds_text(max(0.0, seconds))}"))
        x += width
    keys = [Key(name, colour) for name, colour in _PARTS.items()]
    return document(_WIDTH, 50, [*legend(keys, 0, 4, _WIDTH)[0], *made])
