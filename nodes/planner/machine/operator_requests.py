"""What a person asks of the planner: to place a stream by hand, or to plan it for something else."""

from __future__ import annotations

from typing import Any

from nodes.planner.machine.events import (
    PlaceRequested,
    PlannerAction,
    Reply,
    WishesRequested,
)
from nodes.planner.machine.inventory import Inventory
from nodes.planner.machine.lifecycle import decide
from nodes.planner.machine.manual_tiling import tiling_by_hand
from nodes.planner.machine.solving import choices_of, why_not
from nodes.planner.machine.stream import PlannedStream
from pipeline.errors import PlanError, TrisectError
from pipeline.graph import ModelGraph
from pipeline.placement import split_at
from pipeline.plan import StreamId


def place_requested(inventory: Inventory, event: PlaceRequested, now: float, wall_ts: float) -> list[PlannerAction]:
    """Place the stream as it is asked, or hand it back; else the answer says why not."""
    try:
        stream = _stream(inventory, event.stream)
        graph = inventory.roster.graph_of(stream.served)
        forced = None if event.auto else split_at(graph, event.edge_from, event.cloud_from)
        tiles = tiling_by_hand(inventory.roster, stream.served, graph, forced, event.tiles)
        if not choices_of(inventory, stream, graph, forced)[1]:
            raise PlanError(f"stream {event.stream!r} cannot be placed so: {why_not(inventory, stream, forced)}")
    except TrisectError as error:
        return [Reply(event.ticket, {"ok": False, "error": str(error)})]
    stream.forced, stream.forced_tiles = forced, tiles
    return _hurry(inventory, event.stream, stream, graph, event.ticket, now, wall_ts)


def wishes_requested(inventory: Inventory, event: WishesRequested, now: float, wall_ts: float) -> list[PlannerAction]:
    """Take them if there is a plan for them; else all stays as it is, and the answer says what conflicts."""
    stream = inventory.streams.get(event.stream)
    before = stream.asked if stream else None
    try:
        stream = _stream(inventory, event.stream)
        stream.asked = event.wishes
        graph = inventory.roster.graph_of(stream.served)
        if not choices_of(inventory, stream, graph, stream.forced)[1]:
            raise PlanError(f"stream {event.stream!r} has no plan: {why_not(inventory, stream, stream.forced)}")
    except TrisectError as error:
        by_hand = stream is not None and stream.forced is not None
        if stream is not None:
            stream.asked = before
        hint = "; the stream is placed by hand: `trisect place --auto` hands it back" if by_hand else ""
        return [Reply(event.ticket, {"ok": False, "error": f"{error}{hint}"})]
    return _hurry(inventory, event.stream, stream, graph, event.ticket, now, wall_ts)


def _stream(inventory: Inventory, name: StreamId) -> PlannedStream:
    stream = inventory.streams.get(name)
    if stream is None:
        raise PlanError(f"unknown stream {name!r}; known: {', '.join(sorted(inventory.streams)) or 'none'}")
    return stream


def _hurry(
    inventory: Inventory,
    name: StreamId,
    stream: PlannedStream,
    graph: ModelGraph,
    ticket: Any,
    now: float,
    wall_ts: float,
) -> list[PlannerAction]:
    """Decide at once, whatever the margin, and answer with the plan."""
    stream.hurry = True
    actions = decide(inventory, name, stream, now, wall_ts)
    stream.hurry = False
    plan = stream.plan
    assert plan is not None
    answer = {"ok": True, "epoch": plan.epoch, "device": plan.device, "plan": plan.to_json(graph)}
    return [*actions, Reply(ticket, answer)]
