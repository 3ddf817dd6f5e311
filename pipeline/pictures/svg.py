"""Elements of all pictures: text and its width, shapes with tooltips, legends, log axes, units. Strings only.

Knows no model. Every text that comes from outside goes through `escaped`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from pipeline.graph import Tensor

INK, FAINT, GRID = "#222", "#777", "#ddd"
GREEN, BLUE, ORANGE = "#2CA87A", "#004488", "#E69F00"
SKY, YELLOW, PURPLE, RED = "#BFE4F5", "#F4EE80", "#A88BD0", "#8C2F1B"
"""Told apart with any colour vision: no two nearer than 28 in CIELAB to eyes that lack one of the three cones, as
Machado, Oliveira and Fernandes (2009) simulate them.
"""
GREY = "#bbbbbb"

LINE = 17.0
"""From one line of text to the next."""
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NARROW, _WIDE = frozenset(" !'(),.:;I[]fijlrt|/"), frozenset("%@MWmw→+")
_SWATCH = 11
_FEW = 1e2
_ROUNDS_UP = 0.9995
"""From this part of it, three digits round up to the next unit."""
_LEAST_SECONDS = 1e-6


def escaped(text: str) -> str:
    """Escape text for XML, between tags or in an attribute; characters that XML cannot have become U+FFFD."""
    return escape(_NOT_XML.sub("\ufffd", text), {'"': "&quot;"})


def text_width(text: str, size: float = 11) -> float:
    """Width of a text in pixels, an estimate from above: that of DejaVu Sans, which is wider than most."""
    per_mille = (
        380 if c in _NARROW else 900 if c in _WIDE else 1000 if c > "\u02ff" else 690 if c.isupper() else 620
        for c in text
    )
    return size * sum(per_mille) / 1000


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and an ellipsis: `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def text(
    x: float,
    y: float,
    content: str,
    *,
    anchor: str = "start",
    size: float = 11,
    fill: str = INK,
    bold: bool = False,
    turned: float = 0.0,
) -> str:
    """A line of text whose baseline begins, has its middle or ends at (x, y); `turned` about it in degrees."""
    more = (' font-weight="bold"' if bold else "") + (f' transform="rotate({turned:g} {x:.1f} {y:.1f})"' * bool(turned))
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}" fill="{fill}"{more}>'
        f"{escaped(content)}</text>"
    )


def rect(x: float, y: float, width: float, height: float, fill: str, *, title: str = "", more: str = "") -> str:
    """A rectangle, with a tooltip if there is a title; `more` are further attributes, as XML."""
    shape = (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.1f}" height="{height:.2f}" fill="{fill}"{more and " " + more}'
    )
    return f"{shape}><title>{escaped(title)}</title></rect>" if title else f"{shape}/>"


def line(x1: float, y1: float, x2: float, y2: float, stroke: str = GRID, width: float = 1.0) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" stroke-width="{width:g}"/>'


def document(width: float, height: float, parts: Iterable[str]) -> str:
    """The SVG document on white."""
    wide, high = math.ceil(width), math.ceil(height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" '
        'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(part for part in parts if part)
        + "\n</svg>\n"
    )


def hatching(name: str, *, rising: bool) -> str:
    """A pattern of slanted lines, used as `url(#name)`."""
    slope = "M-2,2 L2,-2 M0,8 L8,0 M6,10 L10,6" if rising else "M-2,6 L2,10 M0,0 L8,8 M6,-2 L10,2"
    return (
        f'<defs><pattern id="{name}" patternUnits="userSpaceOnUse" width="8" height="8"><rect width="8" height="8" '
        f'fill="white"/><path d="{slope}" stroke="#444" stroke-width="1.6"/></pattern></defs>'
    )


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend: a box of this fill, or a line when `stroke_width` is above 0."""

    text: str
    fill: str
    stroke_width: float = 0.0
    outlined: bool = False


def legend(keys: Sequence[Key], x: float, y: float, width: float) -> tuple[list[str], float]:
    """The keys from (x, y) downwards, as many on a line as fit; and the y below them."""
    parts, at = [], x
    for key in keys:
        needed = _SWATCH + 5 + text_width(key.text) + 18
        if at > x and at + needed - 18 > x + width:
            at, y = x, y + LINE
        parts += [_swatch(key, at, y), text(at + _SWATCH + 5, y + 10, key.text)]
        at += needed
    return parts, y + LINE if keys else y


def _swatch(key: Key, x: float, y: float) -> str:
    if key.stroke_width:
        return line(x, y + 6, x + _SWATCH, y + 6, key.fill, key.stroke_width)
    return rect(x, y + 0.5, _SWATCH, _SWATCH, key.fill, more='stroke="#444"' if key.outlined else "")


@dataclass(frozen=True, slots=True)
class LogAxis:
    """Values from `low` to `high` laid out evenly by logarithm from pixel `start` to pixel `end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float, *, least: float) -> LogAxis:
        """Make an axis from a decade below to a 1, 2 or 5 above all finite values; those below `least` count as
        `least`.
        """
        held = [max(value, least) for value in values if math.isfinite(value)] or [least]
        low = 10.0 ** math.floor(math.log10(min(held)))
        decade = 10.0 ** math.floor(math.log10(max(held)))
        high = next(step * decade for step in (1, 2, 5, 10, 20) if step * decade >= max(held))
        return cls(low, max(high, 10 * low), start, end)

    def at(self, value: float) -> float:
        """The pixel of a value; one beyond an end stands at that end."""
        value = min(max(value, self.low), self.high)
        return self.start + (self.end - self.start) * math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        """The decades within; when these are few, also their doubles and fives."""
        few = self.high / self.low < _FEW
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        every = (step * 10.0**decade for decade in range(first, last + 1) for step in ((1, 2, 5) if few else (1,)))
        return [value for value in every if self.low * 0.999 <= value <= self.high * 1.001]


def bytes_text(nbytes: float) -> str:
    """`588 B`, `803 kB`, `3.21 MB`: three digits, a kB of 1,000 bytes."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if nbytes >= _ROUNDS_UP * factor:
            return f"{three_digits(nbytes / factor)} {unit}"
    return f"{nbytes:.0f} B"


def size_text(tensor: Tensor) -> str:
    """A tensor's bytes, or that a frame has its own."""
    return "as it came" if tensor.varies else bytes_text(tensor.nbytes)


def seconds_text(seconds: float) -> str:
    """`0 ms`, `<0.001 ms`, `12.3 ms`, `1.25 s`: three digits."""
    if 0 < seconds < _LEAST_SECONDS:
        return "<0.001 ms"
    return f"{three_digits(seconds * 1e3)} ms" if seconds < _ROUNDS_UP else f"{three_digits(seconds)} s"


def three_digits(value: float) -> str:
    """`0.0125`, `1.25`, `125`, `1,250`."""
    return f"{value:.3g}" if value < 1e3 * _ROUNDS_UP else f"{value:,.0f}"


def counted(number: int, noun: str) -> str:
    """`1 block`, `2 blocks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
