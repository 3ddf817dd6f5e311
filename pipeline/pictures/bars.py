"""A placement as bars: each block's seconds on its tier, the transfers between the stages. Scission's picture."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.cost import Costs, Prediction, link_label, predict
from pipeline.graph import ModelGraph
from pipeline.pictures.chart import LEFT, Bar, chart
from pipeline.pictures.svg import Key, document, hatching, legend, seconds_text, text
from pipeline.pictures.tiers import COLOURS, heading, link_text, tier_text
from pipeline.placement import Placement, Tier, check

_HATCH = {Tier.DEVICE: "device-edge", Tier.EDGE: "edge-cloud"}


def placement_bars(graph: ModelGraph, placement: Placement, costs: Costs) -> str:
    """The SVG document: blocks by tier and then index, in log milliseconds; a bar's title has its name, kind, seconds
    and bytes.

    Raises PlanError when the placement does not fit the graph or uses a tier that `costs` has no node for.
    """
    check(graph, placement)
    prediction = predict(graph, placement, costs)
    keys = [Key(tier_text(tier, placement, prediction), COLOURS[tier]) for tier in Tier]
    keys += [
        Key(link_text(label, prediction.links[label]), f"url(#{hatch})", outlined=True)
        for lower, hatch in _HATCH.items()
        if (label := link_label(lower)) in prediction.links
    ]
    bars = [bar for tier in Tier for bar in _stage(graph, placement, costs, prediction, tier)]
    drawn = chart(bars, 0.0, with_bytes=False)
    shown, below = legend(keys, LEFT, 30, drawn.width - LEFT)
    parts = [hatching(hatch, rising=lower == Tier.DEVICE) for lower, hatch in _HATCH.items()]
    parts += [text(LEFT, 20, heading(graph, prediction), size=14), *shown]
    parts += [f'<g transform="translate(0 {below + 22:.1f})">', *drawn.parts, "</g>"]
    return document(drawn.width, below + 22 + drawn.height + 8, parts)


def _stage(graph: ModelGraph, placement: Placement, costs: Costs, prediction: Prediction, tier: Tier) -> Iterator[Bar]:
    """The blocks of a tier, after the transfer that leads to it."""
    if tier > Tier.DEVICE and (label := link_label(Tier(tier - 1))) in prediction.links:
        cost = prediction.links[label]
        name = label.replace("_", " → ")
        hatch = _HATCH[Tier(tier - 1)]
        yield Bar(cost.seconds, f"url(#{hatch})", name, link_text(label, cost), short=f"→ {tier.label}")
    for block in graph.blocks:
        if placement[block.index] == tier:
            seconds = costs.seconds[tier][block.index]
            title = f"{block.index} {block.name} ({block.kind}) on the {tier.label}: {seconds_text(seconds)}"
            yield Bar(seconds, COLOURS[tier], block.name, title, index=block.index)
