"""The snapshot for people: tables that fit a terminal of 80 columns, and say more on a wider one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from nodes.display.text import plain
from nodes.watch.overview.flow import stream_panel
from nodes.watch.overview.text import UNKNOWN, joined, milliseconds, nbytes, state_text
from nodes.watch.overview.totals import totals_line

WIDE_COLUMNS = 96
LIVING = ("init", "ready", "draining")
"""States of nodes that will report, or report again."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the nodes' table; `wide` ones give way on a narrow terminal."""

    heading: str
    cell: Any
    right: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """A snapshot that draws itself in the width there is."""

    snapshot: Mapping[str, Any]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= WIDE_COLUMNS
        yield from _header(self.snapshot)
        yield _nodes_table(self.snapshot["nodes"], wide=wide)
        for name, node in self.snapshot["nodes"].items():
            if node["message"]:
                yield Text(plain(f"{name}: {node['message']}"), "yellow")
        if len(self.snapshot["streams"]) > 1:
            yield totals_line(self.snapshot["totals"])
        for name, stream in self.snapshot["streams"].items():
            yield stream_panel(name, stream, self.snapshot["models"])


def render(snapshot: Mapping[str, Any]) -> RenderableType:
    """The view to print for a snapshot of `Overview`."""
    return View(snapshot)


def _header(snapshot: Mapping[str, Any]) -> Iterable[RenderableType]:
    broker = snapshot["broker"]
    there = broker["connected"]
    said = Text("connected", "green") if there else Text("disconnected, trying again", "bold red")
    yield joined(
        [Text(f"trisect watch  {plain(snapshot['pipeline'])}", "bold"), f"  broker {broker['address']} ", said]
    )
    if broker["why"]:
        yield Text(plain(broker["why"]), "red")
    if broker["dropped_messages_total"]:
        yield Text(f"the broker has dropped {broker['dropped_messages_total']:,} messages since it started", "yellow")
    if bad := snapshot["last_bad_message"]:
        total, age_s = snapshot["bad_messages_total"], bad["age_seconds"]
        text = f"{total:,} unreadable message(s); the last, {age_s:.0f} s ago, on {bad['topic']}: {bad['error']}"
        yield Text(plain(text), "yellow")


def _engine(node: Mapping[str, Any]) -> Text:
    return Text(f"{plain(node['engine'])} x{node['threads']}" if node["engine"] else "")


def _link(node: Mapping[str, Any]) -> Text:
    link = node["link"]
    if link is None:
        return Text("")
    up, down = (
        f"{value / 1e6:,.0f}" if value else UNKNOWN for value in (link["up_bytes_per_s"], link["down_bytes_per_s"])
    )
    return Text(f"{up}/{down} MB/s {milliseconds(link['round_trip_s'])}")


def _measured(node: Mapping[str, Any], name: str) -> float | None:
    value: float | None = (node["telemetry"] or {}).get(name)
    return value


def _processor(node: Mapping[str, Any]) -> Text:
    share = _measured(node, "processor_share")
    return Text(UNKNOWN if share is None else f"{share:.0%}")


def _age(node: Mapping[str, Any]) -> Text:
    age_s = node["telemetry_age_seconds"]
    if age_s is None:  # a report is not retained: one that has gone may have sent thousands
        return Text("none yet" if node["state"] in LIVING else UNKNOWN, "dim")
    text = f"{age_s:.0f} s ago" if age_s >= 1 else "now"
    return Text(f"stale, {text}", "bold yellow") if node["telemetry_stale"] else Text(text)


_COLUMNS = (
    Column("tier", lambda node: Text(plain(node["tier"]))),
    Column("state", lambda node: state_text(node["state"])),
    Column("engine", _engine, wide=True),
    Column("cpu", _processor, right=True),
    Column("memory", lambda node: Text(nbytes(_measured(node, "resident_bytes"))), right=True, wide=True),
    Column("compute", lambda node: Text(milliseconds(_measured(node, "compute_seconds_p50"))), right=True),
    Column("link up/down, echo", _link, right=True),
    Column("report", _age, right=True),
)


def _nodes_table(nodes: Mapping[str, Mapping[str, Any]], *, wide: bool) -> Table:
    columns = [column for column in _COLUMNS if wide or not column.wide]
    table = Table(box=None, expand=True, header_style="dim", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("node", ratio=1, no_wrap=True)
    for column in columns:
        table.add_column(column.heading, justify="right" if column.right else "left", no_wrap=True)
    for name, node in nodes.items():
        table.add_row(Text(plain(name)), *(column.cell(node) for column in columns))
    return table
