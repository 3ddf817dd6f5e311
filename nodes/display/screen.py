"""The console that all commands print to: text is text, never markup, and no character of it moves a cursor."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from nodes.display.text import plain_lines

PLAIN_WIDTH = 120
"""Of a table in a file: rich would take 80."""


class Screen(Console):
    """A rich console without markup, which prints what is not printable as U+FFFD."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **options})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable; only rich's own control segments reach the terminal as they are."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain_lines(segment.text), segment.style)


def wide_screen(**options: Any) -> Screen:
    """A screen as wide as the terminal, or as a table in a file should be."""
    return Screen(width=None if sys.stdout.isatty() else PLAIN_WIDTH, **options)
