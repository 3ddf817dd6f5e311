"""What is foreign reaches neither terminal nor log as it came."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
from rich.table import Table

from nodes.cli.tables import plan_table
from nodes.display.screen import Screen
from nodes.display.text import LogFormatter, json_line, plain

HOSTILE = (
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "[red]markup[/red]",
    "[/unbalanced]",
    "[link=http://x]a[/link]",
    "a\r\nb\x08\x9b2J",
    "\u202eevil\u2066",
    ":boom:",
)


def _shown(renderable: Any) -> str:
    file = io.StringIO()
    Screen(file=file, width=200, force_terminal=True, color_system=None).print(renderable)
    return file.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_printed_as_text_whatever_it_says(text: str) -> None:
    table = Table(title=text, caption=text)
    table.add_column(text)
    table.add_row(text)
    for renderable in (text, table):
        shown = _shown(renderable)
        assert all(char.isprintable() or char == "\n" for char in shown)
        assert text.strip("\x1b") not in shown or text.isprintable()
    if text.isprintable():
        assert _shown(text) == f"{text}\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_plan_with_hostile_names_is_printed(text: str) -> None:
    stage = {"tier": "device", "node": text, "blocks": [[0, 2]], "first": text, "last": text}
    predicted = {"seconds": 0.1, "stages": {"device": 0.1}, "links": {}}
    plan = {"stream": text, "epoch": 1, "planner": text, "reason": text, "predicted": predicted, "stages": [stage]}
    shown = _shown(plan_table(plan))
    assert all(char.isprintable() or char == "\n" for char in shown)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_log_record_is_one_line_and_forges_none(text: str) -> None:
    formatter = LogFormatter("%(asctime)s node %(levelname)s %(message)s", "%H:%M:%S")
    record = logging.LogRecord(
        "x", logging.WARNING, "f", 1, "refused: %s", (f"{text}\n12:00:00 node ERROR forged",), None
    )
    line = formatter.format(record)
    assert line.isprintable()
    try:
        raise ValueError(f"{text}\n12:00:00 node ERROR forged")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    lines = formatter.format(record).split("\n")
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])


@pytest.mark.parametrize("text", HOSTILE)
def test_json_lines_keep_their_values_and_obey_nobody(text: str) -> None:
    line = json_line({"label": text, "word": "Käse"})
    assert line.isprintable()
    assert "Käse" in line
    assert json.loads(line) == {"label": text, "word": "Käse"}


def test_text_is_bounded() -> None:
    assert len(plain("x" * 1_000_000)) == 500


def test_a_plan_past_the_edge_shows_both_links() -> None:
    def stage(tier: str) -> dict[str, Any]:
        return {"tier": tier, "node": f"{tier}-1", "blocks": [[0, 2]], "first": "a", "last": "b"}

    link = {"nbytes": 1_000, "seconds": 0.05}
    predicted = {
        "seconds": 0.3,
        "stages": {"device": 0.1, "cloud": 0.1},
        "links": {"device_edge": link, "edge_cloud": link},
    }
    plan = {
        **{"stream": "s", "epoch": 1, "planner": "exact", "reason": "", "predicted": predicted},
        **{"tensors": [{"name": "t", "from": "device", "to": ["cloud"]}]},
    }
    shown = _shown(plan_table({**plan, "stages": [stage("device"), stage("cloud")]}))
    assert shown.index("→ edge") < shown.index("→ cloud") < shown.index("cloud-1")
    shown = _shown(plan_table({**plan, "stages": [stage("device"), stage("edge"), stage("cloud")]}))
    assert shown.index("→ edge") < shown.index("edge-1") < shown.index("→ cloud") < shown.index("cloud-1")
