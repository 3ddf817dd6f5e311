"""Explanations of plans, as tables and sentences for people."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich.table import Table

from nodes.cli.tables import plan_table
from pipeline.cost import link_label
from pipeline.graph import ModelGraph
from pipeline.partition.explain import Alternative, Breakpoint, Explanation, kind_of
from pipeline.partition.priced_plan import PricedPlan
from pipeline.plan import NodeId, Plan, StreamId

_BITS_PER_BYTE = 8


def explanation(graph: ModelGraph, found: Explanation) -> Iterator[Table | str]:
    """The plan, the baselines beside it, and what follows from them."""
    best = found.best
    title = f"{graph.name}: {found.objective.phrase(best.value)}, judged by {found.objective}"
    yield plan_table(plan_of(graph, best).to_json(graph), title)
    if best.predicted.low is not None and best.predicted.high is not None:
        low, high = best.predicted.low * 1e3, best.predicted.high * 1e3
        yield f"Nine of ten frames are expected to take {low:.1f} to {high:.1f} ms, each with the pipeline to itself."
    yield found.sentence()
    if found.runner_up is not None:
        other = found.runner_up
        nodes = ", ".join(other.nodes.values()) + (" and tile workers" if other.tiling else "")
        yield f"Next best: {kind_of(graph, other.placement)} ({nodes}) with {found.objective.text(other.value)}."
    yield _alternatives(graph, found.alternatives, best, found)
    yield _break_even(graph, found.breakpoints, best)
    for price in found.shadow_prices:
        without = found.objective.text(price.value_without)
        yield f"Without the constraint that {price.constraint}, it would be {without}."


def plan_of(graph: ModelGraph, priced_plan: PricedPlan, planner: str = "exact") -> Plan:
    """The choice as a plan that nobody runs."""
    return Plan(
        stream=StreamId(graph.name),
        epoch=1,
        model=graph.name,
        digest=graph.digest,
        nodes={tier: NodeId(node) for tier, node in priced_plan.nodes.items()},
        placement=priced_plan.placement,
        predicted=priced_plan.predicted,
        planner=planner,
        reason="",
        created_ts=time.time(),
        tiles=priced_plan.tiling,
        codecs=priced_plan.codecs(graph),
    )


def _alternatives(
    graph: ModelGraph, alternatives: Sequence[Alternative], best: PricedPlan, found: Explanation
) -> Table:
    without = " without tiles" if best.tiling else ""
    table = Table(title=f"every planner{without}, with the same costs", title_justify="left")
    for heading in ("planner", "runs on"):
        table.add_column(heading)
    joules = [a.priced_plan.predicted.joules for a in alternatives if a.priced_plan is not None]
    for heading in (
        "ms a frame",
        "frames/s",
        "edge-cloud kB",
        *(["J a frame"] if any(joules) else []),
        "times the best",
    ):
        table.add_column(heading, justify="right")
    for alternative in alternatives:
        priced_plan = alternative.priced_plan or alternative.forbidden
        if priced_plan is None:
            table.add_row(alternative.planner, alternative.why_not, style="dim")
            continue
        predicted = priced_plan.predicted
        rate = f"{1 / predicted.period_s:.1f}" if predicted.period_s > 0 else ""
        ratio = f"{priced_plan.value / best.value:.3f}" if best.value > 0 else ""
        kind = kind_of(graph, priced_plan.placement)
        table.add_row(
            alternative.planner,
            kind if alternative.priced_plan else f"{kind}, forbidden ({alternative.why_not})",
            f"{predicted.seconds * 1e3:.1f}",
            rate,
            f"{predicted.backbone_nbytes / 1e3:,.0f}",
            *([f"{predicted.joules:.3g}"] if any(joules) else []),
            ratio,
            style=None if alternative.priced_plan else "dim",
        )
    return table


def _break_even(graph: ModelGraph, breakpoints: Sequence[Breakpoint], best: PricedPlan) -> str:
    kind = kind_of(graph, best.placement)
    if not breakpoints:
        return f"At any bandwidth within a factor of 1,000 it stays {kind}."
    parts = []
    for point in breakpoints:
        here = best.costs.link(point.lower).bandwidth_bytes_per_s
        way = "below" if point.bandwidth_bytes_per_s < here else "above"
        name = link_label(point.lower).replace("_", "-")
        parts.append(f"{point.kind} {way} {megabits(point.bandwidth_bytes_per_s)} {name} (now {megabits(here)})")
    return f"The decision turns from {kind} to " + ", to ".join(parts) + "."


def megabits(bytes_per_s: float) -> str:
    """A rate for people."""
    return f"{bytes_per_s * _BITS_PER_BYTE / 1e6:,.3g} Mbit/s"
