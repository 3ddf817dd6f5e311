"""Styles and legend texts of tiers and links, the same in every picture of a placement."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pipeline.cost import LinkCost, Prediction
from pipeline.graph import ModelGraph
from pipeline.pictures.svg import BLUE, GREEN, ORANGE, bytes_text, counted, seconds_text
from pipeline.placement import Placement, Tier

COLOURS: Mapping[Tier, str] = MappingProxyType({Tier.DEVICE: GREEN, Tier.EDGE: BLUE, Tier.CLOUD: ORANGE})
"""A colour for each tier, those of docs/pipeline.svg as far as they differ in any colour vision."""
ON_COLOURS: Mapping[Tier, str] = MappingProxyType({Tier.DEVICE: "black", Tier.EDGE: "white", Tier.CLOUD: "black"})
"""The text colour with most contrast on each."""


def heading(graph: ModelGraph, prediction: Prediction) -> str:
    """The title of a placement's picture."""
    return f"{graph.name}: {seconds_text(prediction.seconds)} a frame in {counted(len(graph), 'block')}"


def tier_text(tier: Tier, placement: Placement, prediction: Prediction) -> str:
    """Legend text of a tier: the number of its blocks and its node's seconds."""
    blocks = placement.count(tier)
    if not blocks:
        return f"{tier.label}: no block"
    return f"{tier.label}: {counted(blocks, 'block')}, {seconds_text(prediction.stages[tier.label])}"


def link_name(label: str) -> str:
    """`device → edge` of the link that a prediction calls `device_edge`."""
    return label.replace("_", " → ")


def link_text(label: str, cost: LinkCost) -> str:
    """Legend text of a link: bytes up and back, and its seconds."""
    back = f" and {bytes_text(cost.result_nbytes)} back" if cost.result_nbytes else ""
    return f"{link_name(label)}: {bytes_text(cost.nbytes)}{back}, {seconds_text(cost.seconds)}"
