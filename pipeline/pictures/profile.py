"""A profile as bars: each block's seconds in the colour of its kind, the bytes that it hands on as a mark."""

from __future__ import annotations

from collections import Counter

from pipeline.graph import ModelGraph
from pipeline.pictures.chart import LEFT, Bar, chart
from pipeline.pictures.svg import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    YELLOW,
    Key,
    bytes_text,
    counted,
    document,
    legend,
    seconds_text,
    text,
)
from pipeline.profiling.profile import Profile

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, YELLOW, SKY)


def picture(graph: ModelGraph, profile: Profile) -> str:
    """The SVG document. A bar's title has its block's name, kind, seconds and bytes."""
    colours = _colours(graph)
    bars = []
    for block, seconds in zip(graph.blocks, profile.seconds, strict=True):
        nbytes = sum(graph.tensors[t].nbytes for t in block.outputs if not graph.tensors[t].varies)
        title = f"{block.index} {block.name} ({block.kind}): {seconds_text(seconds)}, {bytes_text(nbytes)}"
        bars.append(Bar(seconds, colours.get(block.kind, GREY), block.name, title, index=block.index, nbytes=nbytes))
    drawn = chart(bars, 0.0, with_bytes=True)
    shown, below = legend(_keys(graph, colours), LEFT, 48, drawn.width - 2 * LEFT)
    parts = [*_heading(graph, profile), *shown]
    parts += [f'<g transform="translate(0 {below + 12:.1f})">', *drawn.parts, "</g>"]
    return document(drawn.width, below + 12 + drawn.height + 8, parts)


def _heading(graph: ModelGraph, profile: Profile) -> list[str]:
    where = f"{profile.engine} {profile.engine_version}, {counted(profile.threads, 'thread')}, {profile.hardware}"
    what = f"{graph.name}: {seconds_text(profile.total_seconds)} in {counted(len(graph), 'block')}"
    return [text(LEFT, 20, what, size=14), text(LEFT, 37, where)]


def _colours(graph: ModelGraph) -> dict[str, str]:
    """The most frequent kinds have one each; the rest are grey."""
    kinds = Counter(block.kind for block in graph.blocks[1:]).most_common(len(_COLOURS))
    return {kind: colour for (kind, _), colour in zip(kinds, _COLOURS, strict=False)}


def _keys(graph: ModelGraph, colours: dict[str, str]) -> list[Key]:
    keys = [Key(kind, colour) for kind, colour in colours.items()]
    if any(block.kind not in colours for block in graph.blocks[1:]):
        keys.append(Key("others", GREY))
    return [*keys, Key("bytes handed on (right)", INK, 1.8)]
