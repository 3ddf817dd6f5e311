"""A stream of the snapshot for people: its counts, and a frame's way, predicted beside measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from nodes.display.text import plain
from nodes.watch.overview.text import UNKNOWN, joined, milliseconds, nbytes, number, state_text
from nodes.watch.overview.tiles import tile_rows
from pipeline.codecs import NONE
from pipeline.placement import Tier

NAMES_SHOWN = 2
DIGEST_SHOWN = 12


def stream_panel(name: str, stream: Mapping[str, Any], models: Mapping[str, Any]) -> Panel:
    """The panel of one stream of a snapshot, for people."""
    shown = stream["active"] or stream["coming"]
    parts: list[RenderableType] = [*_stream_lines(stream, models)]
    if shown is not None:
        parts += [Rule(style="dim"), _reason(shown), *_flow(shown, stream)]
    if stream["active"] is not None and stream["coming"] is not None:
        parts += [Rule(style="dim"), _coming(stream["coming"])]
    title = joined([Text(f"stream {plain(name)} ", "bold"), state_text(stream["state"])])
    return Panel(Group(*parts), title=title, title_align="left", border_style="dim", padding=(0, 1))


def _stream_lines(stream: Mapping[str, Any], models: Mapping[str, Any]) -> Iterable[Text]:
    yield Text(plain(_model_line(stream, models)), "dim")
    rate = stream["frames_per_second"]
    counts = stream["counts"]
    yield joined(
        [
            Text(f"{rate:.1f} frames/s" if rate is not None else f"{UNKNOWN} frames/s", "bold"),
            f"  in {number(counts['frames_in_total'])}  results {number(counts['results_total'])}  ",
            _alarm("errors", counts["error_results_total"]),
            f"  in flight {number(counts['in_flight'])}  ",
            _alarm("lost", counts["lost"]),
        ]
    )
    yield Text(
        f"submitted again {number(counts['resubmitted_total'])}  "
        f"duplicates ignored {number(counts['duplicates_ignored_total'])}  "
        f"dropped at source {number(counts['dropped_at_source_total'])}  "
        f"after a restart {number(counts['replayed_total'])}",
        "dim",
    )
    if counts["stale"]:
        yield Text(f"these counts are {counts['age_seconds']:.0f} s old", "yellow")
    for problem in stream["problems"]:
        yield Text(plain(problem), "red")
    if error := stream["last_error"]:
        text = f"the last error, {error['age_seconds']:.0f} s ago, frame {error['sequence']}: {error['error']}"
        yield Text(plain(text), "red")
    if stream["coming"] is None and stream["active_epoch"] is None:
        yield Text("no plan yet; the planner's log says what it waits for", "yellow")


def _model_line(stream: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    model = models.get(stream["digest"])
    text = f"{stream['model'] or 'model not known'} {(stream['digest'] or '')[:DIGEST_SHOWN]}".rstrip()
    if model is not None:
        text += (
            f": {model['blocks']:,} blocks, {model['macs'] / 1e9:.2f} GMAC, {model['parameters'] / 1e6:.1f} M weights"
        )
    return f"{text}; device {stream['device'] or UNKNOWN}"


def _alarm(name: str, value: int | None) -> Text:
    return Text(f"{name} {number(value)}", "bold red" if value else "")


def _reason(plan: Mapping[str, Any]) -> Text:
    state = state_text(plan["state"]) if "state" in plan else Text("active", "green")
    return joined([Text(f"epoch {plan['epoch']} ", "bold"), f"({plan['planner']}) ", state, f": {plan['reason']}"])


def _flow(plan: Mapping[str, Any], stream: Mapping[str, Any]) -> Iterable[RenderableType]:
    """A frame's way, predicted beside measured."""
    if "nodes" in plan:
        yield _readiness(plan)
    if plan["problem"]:
        yield Text(plain(plan["problem"]), "yellow")
    table = Table(box=None, expand=True, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True, ratio=1)
    for heading in ("predicted", "measured", "waited"):
        table.add_column(heading, justify="right", no_wrap=True)
    links = {link["from"]: link for link in plan["links"]}
    for stage in plan["stages"]:
        _add(table, _stage_row(stage))
        if plan["tiles"] is not None and stage["tier"] == Tier.EDGE.label:
            for row in tile_rows(plan["tiles"]):
                _add(table, row, "dim")
        if link := links.get(stage["tier"]):
            _add(table, _link_row(link), "cyan")
    if plan["links"]:
        _add(table, ("  ↩ answer", _answer(plan), "", milliseconds(plan["return_measured_seconds_p50"])), "cyan")
        both = (milliseconds(plan[f"links_{name}"]) for name in ("predicted_seconds", "measured_seconds_p50"))
        _add(table, ("all links", "there and back", *both), "cyan")
    both = (milliseconds(plan[f"frame_overhead_{name}"]) for name in ("predicted_seconds", "measured_seconds_p50"))
    _add(table, ("frame overhead", "read and answered by the device", *both), "dim")
    whole = milliseconds(plan["predicted_seconds"]), milliseconds(plan["measured_seconds_p50"])
    _add(table, ("frame", _sample(plan, stream), *whole), "bold")
    if within := _interval(plan):  # in a row of its own: in the column it would leave no room for names of blocks
        _add(table, ("  nine of ten", f"expected within {within}", ""), "dim")
    yield table


def _interval(plan: Mapping[str, Any]) -> str:
    """The interval in which nine of ten frames are expected, empty where it is not known."""
    low, high = plan["predicted_low_seconds"], plan["predicted_high_seconds"]
    return f"{milliseconds(low)} to {milliseconds(high)}" if low is not None and high is not None else ""


def _predicted(plan: Mapping[str, Any]) -> str:
    within = _interval(plan)
    return milliseconds(plan["predicted_seconds"]) + (f" ({within})" if within else "")


def _add(table: Table, cells: Iterable[str], style: str = "") -> None:
    table.add_row(*map(Text, cells), style=style)


def _stage_row(stage: Mapping[str, Any]) -> tuple[str, ...]:
    span = ""
    if stage["first"] is not None:
        span = f": {stage['first']}" + (f" … {stage['last']}" if stage["blocks"] > 1 else "")
    return (
        plain(f"{stage['tier']} {stage['node']}"),
        plain(_blocks(stage) + span),
        milliseconds(stage["predicted_seconds"]),
        milliseconds(stage["measured_seconds_p50"]),
        milliseconds(stage["waited_seconds_p50"]),
    )


def _blocks(stage: Mapping[str, Any]) -> str:
    return f"{stage['blocks']:,} block{'s' if stage['blocks'] > 1 else ''}"


def _link_row(link: Mapping[str, Any]) -> tuple[str, ...]:
    names = link["tensors"]
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return (
        f"  ↓ {link['to']}",
        plain(f"{nbytes(link['nbytes'])}{_how(link)}: {', '.join(names[:NAMES_SHOWN])}{more}"),
        milliseconds(link["predicted_seconds"]),
        milliseconds(link["measured_seconds_p50"]),
    )


def _how(link: Mapping[str, Any]) -> str:
    """Words on a link's bytes: if they go directly, by which codecs, and how many times fewer than the tensors have."""
    direct = " direct" if link["direct"] else ""
    return direct + (f" ({link['ratio']:.2g}x fewer, {', '.join(link['codecs'])})" if link["codecs"] else "")


def _answer(plan: Mapping[str, Any]) -> str:
    first = plan["links"][0]
    codecs = sorted({result["codec"] for result in plan["results"] if result["codec"] != NONE})
    how = f" ({first['result_ratio']:.2g}x fewer, {', '.join(codecs)})" if codecs else ""
    return f"{nbytes(first['result_nbytes'])}{how} in the links above"


def _sample(plan: Mapping[str, Any], stream: Mapping[str, Any]) -> str:
    if plan["epoch"] != stream["active_epoch"] or not stream["measured_results"]:
        return ""
    return f"median of {stream['measured_results']}, p95 {milliseconds(stream['seconds_p95'])}"


def _readiness(plan: Mapping[str, Any]) -> Text:
    parts: list[Text | str] = []
    for node, state in plan["nodes"].items():
        parts += [f"{node} ", state_text(state), "  "]
    text = joined(parts)
    for node, reason in plan["refused"].items():
        text.append(plain(f"\n{node} refuses: {reason}"), "red")
    return text


def _coming(plan: Mapping[str, Any]) -> RenderableType:
    """A plan that is not active yet, while another one runs."""
    way = " → ".join(f"{stage['node']} {_blocks(stage)}" for stage in plan["stages"])
    line = Text(plain(f"{way}; predicted {_predicted(plan)} a frame"))
    return Group(_reason(plan), _readiness(plan), line)
