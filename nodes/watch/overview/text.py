"""Numbers, states and names as `trisect watch` writes them.

What came over the network goes through `nodes.display` first.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from nodes.display.text import plain

UNKNOWN = "-"
LONG_S = 10.0
STYLES = {
    "ready": "green",
    "running": "bold green",
    "preparing": "yellow",
    "init": "yellow",
    "draining": "yellow",
    "no_plan": "yellow",
    "stopped": "dim",
    "absent": "dim",
    "refused": "bold red",
    "interrupted": "bold red",
    "lost": "bold red",
}
"""Of nodes', plans' and streams' states."""


def milliseconds(seconds: float | None) -> str:
    """A duration; seconds from 10 s on."""
    if seconds is None:
        return UNKNOWN
    return f"{seconds:,.1f} s" if abs(seconds) >= LONG_S else f"{seconds * 1e3:,.1f} ms"


def nbytes(value: float | None) -> str:
    """A size in decimal units."""
    if value is None:
        return UNKNOWN
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= factor:
            return f"{value / factor:,.1f} {unit}"
    return f"{value:,.0f} B"


def number(value: float | None) -> str:
    """A count."""
    return UNKNOWN if value is None else f"{value:,}"


def state_text(state: str) -> Text:
    """A state, in its colour."""
    return Text(plain(state.replace("_", " ")), style=STYLES.get(state, ""))


def joined(parts: Iterable[Text | str]) -> Text:
    """One line of styled and of plain parts."""
    return Text.assemble(*(part if isinstance(part, Text) else Text(plain(part)) for part in parts))
