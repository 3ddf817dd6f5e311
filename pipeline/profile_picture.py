"""A profile as a picture for people: a bar per block in log milliseconds, the bytes that it hands on as a line. SVG."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from xml.sax.saxutils import escape

from pipeline.graph import ModelGraph
from pipeline.profile import Profile

_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 72, 66, 44
_HEIGHT = 320
_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#9d755d", "#eeca3b", "#72b7b2", "#bab0ac")
_LINE = "#d62728"
_LEAST_MS = 1e-3
_LABEL_WIDTH = 28


def picture(graph: ModelGraph, profile: Profile) -> str:
    """The SVG document. A bar's and a point's title tell its block's name, time and bytes."""
    step = min(max(900 / len(graph), 3.0), 24.0)
    plot_width = max(step * len(graph), 420.0)
    milliseconds = [max(seconds * 1e3, _LEAST_MS) for seconds in profile.seconds]
    handed_on = [max(sum(graph.tensors[t].nbytes for t in block.outputs), 1) for block in graph.blocks]
    low, high = _decades(milliseconds)
    low_bytes, high_bytes = _decades(handed_on)
    colours = _colours(graph)
    parts = [_heading(graph, profile), _legend(colours)]
    parts += _axis(low, high, 0.0, plot_width, grid=True)
    parts += _axis(low_bytes, high_bytes, plot_width, plot_width, grid=False)
    points = []
    for block, taken_ms, nbytes in zip(graph.blocks, milliseconds, handed_on, strict=True):
        x, top = _LEFT + step * block.index, _y(taken_ms, low, high)
        what = f"{block.index} {block.name} ({block.kind}): {profile.seconds[block.index] * 1e3:.3f} ms, {nbytes:,} B"
        parts.append(
            f'<rect x="{x:.1f}" y="{top:.1f}" width="{step * 0.85:.2f}" height="{_TOP + _HEIGHT - top:.1f}" '
            f'fill="{colours.get(block.kind, _COLOURS[-1])}"><title>{escape(what)}</title></rect>'
        )
        points.append(f"{x + step * 0.425:.1f},{_y(nbytes, low_bytes, high_bytes):.1f}")
    parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{_LINE}" stroke-width="1.2"/>')
    parts += _below(len(graph), step, plot_width)
    width, height = _LEFT + plot_width + _RIGHT, _TOP + _HEIGHT + _BOTTOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'height="{height}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _heading(graph: ModelGraph, profile: Profile) -> str:
    where = f"{profile.engine} {profile.engine_version}, {profile.threads} threads, {profile.hardware}"
    text = f"{graph.name}: {profile.total_seconds * 1e3:.1f} ms in {len(graph)} blocks"
    return _text(_LEFT, 18, text, size=14) + _text(_LEFT, 34, where)


def _colours(graph: ModelGraph) -> dict[str, str]:
    """The most frequent kinds have one each; the rest share the last."""
    kinds = [kind for kind, _ in Counter(block.kind for block in graph.blocks[1:]).most_common(len(_COLOURS) - 1)]
    return dict(zip(kinds, _COLOURS, strict=False))


def _legend(colours: dict[str, str]) -> str:
    parts, x = [], float(_LEFT)
    for kind, colour in colours.items():
        parts.append(f'<rect x="{x:.0f}" y="43" width="10" height="10" fill="{colour}"/>' + _text(x + 14, 52, kind))
        x += 24 + 6.2 * len(kind)
    return "".join(parts)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _y(value: float, low: int, high: int) -> float:
    return _TOP + _HEIGHT * (1 - (math.log10(value) - low) / (high - low))


def _axis(low: int, high: int, at: float, width: float, *, grid: bool) -> list[str]:
    parts = []
    for decade in range(low, high + 1):
        y = _y(10.0**decade, low, high)
        if grid:
            parts.append(f'<line x1="{_LEFT}" x2="{_LEFT + width:.0f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            parts.append(_text(_LEFT - 6, y + 4, _milliseconds(decade), anchor="end"))
        else:
            parts.append(_text(_LEFT + at + 6, y + 4, _bytes(decade), fill=_LINE))
    return parts


def _milliseconds(decade: int) -> str:
    return f"{10.0**decade:g} ms"


def _bytes(decade: int) -> str:
    for power, name in ((9, "GB"), (6, "MB"), (3, "kB")):
        if decade >= power:
            return f"{10 ** (decade - power)} {name}"
    return f"{10**decade} B"


def _below(blocks: int, step: float, width: float) -> list[str]:
    every = next(n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if n * step >= _LABEL_WIDTH)
    base = _TOP + _HEIGHT
    parts = [_text(_LEFT + step * (i + 0.425), base + 15, str(i), anchor="middle") for i in range(0, blocks, every)]
    parts.append(_text(_LEFT + width / 2, base + 32, "block (bars: time; line: bytes it hands on)", anchor="middle"))
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 11, fill: str = "#222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{fill}">{escape(text)}</text>'
    )
