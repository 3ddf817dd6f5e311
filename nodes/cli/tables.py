"""A plan as a table for people, from the JSON on its topic alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from pipeline.codecs import CODECS
from pipeline.cost import link_label
from pipeline.placement import Tier

NAMED = 2
"""So many tensors of a cut are told by name."""


def plan_table(plan: Mapping[str, Any], title: str | None = None) -> Table:
    """Stages and what crosses between them, in the order in which a frame goes."""
    predicted = plan["predicted"]
    running = f"stream {plan['stream']}, epoch {plan['epoch']} ({plan['planner']}): "
    table = Table(
        title=title or f"{running}{frame_seconds(predicted)} a frame predicted",
        caption=plan["reason"],
        title_justify="left",
        caption_justify="left",
    )
    for heading in ("tier", "node", "blocks", "from", "to"):
        table.add_column(heading)
    table.add_column("predicted", justify="right")
    tiers = [stage["tier"] for stage in plan["stages"]]
    for stage, following in zip(plan["stages"], [*tiers[1:], None], strict=True):
        blocks = sum(end - start for start, end in stage["blocks"])
        row = (stage["tier"], stage["node"], str(blocks), stage["first"], stage["last"])
        table.add_row(*row, f"{predicted['stages'].get(stage['tier'], 0.0) * 1e3:.1f} ms")
        if plan.get("tiles") is not None and stage["tier"] == Tier.EDGE.label:
            for tiles in tile_rows(plan["tiles"], predicted.get("tiles")):
                table.add_row(*tiles, style="dim")
        for name, link in predicted["links"].items():
            if _is_between(name, stage["tier"], following):
                table.add_row(f"  → {name.partition('_')[2]}", "", *_cut(plan, name, link), style="dim")
    if plan.get("results"):
        table.add_row("  ↩ answer", "", *_back(plan, predicted["links"]), "", style="dim")
    if frame_overhead_s := predicted.get("frame_overhead_seconds"):
        table.add_row("overhead", "", "", "", "", f"{frame_overhead_s * 1e3:.1f} ms", style="dim")
    for cores in predicted.get("cores", ()):
        sharing = ", ".join((*cores["tiers"], *cores["workers"]))
        table.add_row("shared", "", f"{cores['cores']:g} cores", sharing, "", f"{cores['busy_seconds'] * 1e3:.1f} ms")
    return table


def frame_seconds(predicted: Mapping[str, Any]) -> str:
    """A frame's predicted seconds, with the interval in which nine of ten frames are expected where it is known."""
    low, high = predicted.get("low"), predicted.get("high")
    interval = f" ({low * 1e3:.1f} to {high * 1e3:.1f})" if low is not None and high is not None else ""
    return f"{predicted['seconds'] * 1e3:.1f} ms{interval}"


def _ratio(link: Mapping[str, Any], of: str = "") -> str:
    """How many times fewer bytes a link's tensors (or `of` the `result_`) are sent in, where codecs save any."""
    sent, uncoded = link[f"{of}nbytes"], link.get(f"{of}uncoded_nbytes", 0)
    return f", {uncoded / sent:.2g}x fewer" if 0 < sent < uncoded else ""


def _is_between(link: str, tier: str, following: str | None) -> bool:
    """True when a frame passes this link from one stage to the next; tiers without a stage are passed through."""
    order = [one.label for one in Tier]
    at = order.index(link.partition("_")[0])
    return order.index(tier) <= at < (len(order) if following is None else order.index(following))


def tile_rows(tiles: Mapping[str, Any], priced: Mapping[str, Any] | None) -> Iterator[tuple[str, ...]]:
    """A row for the stack and, where they are priced, one for each tile."""
    grid = f"{len(tiles['rows'])}x{len(tiles['columns'])}"
    took = f"{priced['seconds'] * 1e3:.1f} ms" if priced else ""
    yield "  tiles", ", ".join(dict.fromkeys(tiles["workers"])), grid, tiles["from"], tiles["to"], took
    sizes = [f"{rows}x{columns}" for rows in tiles["rows"] for columns in tiles["columns"]]
    codecs = {way: {one["codec"] for one in tiles["codecs"] if one["way"] == way} for way in ("there", "back")}
    by = {way: f" ({', '.join(sorted(names))})" if names else "" for way, names in codecs.items()}
    for size, tile in zip(sizes, priced["tiles"] if priced else (), strict=False):
        there, back = (f"{tile[key] / 1e3:,.0f} kB" for key in ("nbytes", "result_nbytes"))
        named = f"{there} there{by['there']}", f"{back} back{by['back']}"
        ways = named if tile["nbytes"] else ("", "")
        seconds = tile["transfer_seconds"] + tile["compute_seconds"]
        yield "", f"  {tile['worker']}", size, *ways, f"{seconds * 1e3:.1f} ms"


def _cut(plan: Mapping[str, Any], name: str, link: Mapping[str, Any]) -> tuple[str, str, str, str]:
    order = ["device", "edge", "cloud"]
    lower = order.index(name.partition("_")[0])
    passing = [
        t for t in plan["tensors"] if order.index(t["from"]) <= lower < max(order.index(tier) for tier in t["to"])
    ]
    return (*_named(passing), f"{link['nbytes'] / 1e3:,.0f} kB" + _ratio(link), f"{link['seconds'] * 1e3:.1f} ms")


def _back(plan: Mapping[str, Any], links: Mapping[str, Any]) -> tuple[str, str, str]:
    """The outputs on their way to the device; their seconds are in those of the links."""
    link = links[link_label(Tier.DEVICE)]
    return (*_named(plan["results"]), f"{link['result_nbytes'] / 1e3:,.0f} kB" + _ratio(link, "result_"))


def _named(tensors: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """How many tensors there are, and the names and codecs of some."""
    names = [t["name"] + (f" ({codec})" if (codec := t.get("codec")) in CODECS else "") for t in tensors]
    more = len(names) - NAMED
    shown = ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''}", shown
