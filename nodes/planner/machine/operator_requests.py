"""Operators' requests: to place a stream by hand, or to plan it for another objective."""

from __future__ import annotations

from nodes.config.plan_request import DEVICE_STAYS, PlanRequest
from nodes.planner.machine.allowance import MOST_IN_A_ROW
from nodes.planner.machine.events import (
    PlaceRequested,
    PlannerAction,
    PlanRequested,
    PublishPlan,
    Reply,
)
from nodes.planner.machine.inventory import Inventory
from nodes.planner.machine.lifecycle import decide
from nodes.planner.machine.manual_tiling import tiling_by_hand
from nodes.planner.machine.rules import may_only_blink
from nodes.planner.machine.solving import priced_plans_of, why_not
from nodes.planner.machine.stream import FORCED, PlannedStream, fits, stream_named
from pipeline.errors import PlanError, TrisectError
from pipeline.graph import ModelGraph
from pipeline.placement import split_at
from pipeline.plan import StreamId


def place_requested(inventory: Inventory, event: PlaceRequested, now: float, wall_ts: float) -> list[PlannerAction]:
    """Place the stream as it is asked, or hand it back; else the answer says why not."""
    try:
        stream = _to_change(inventory, event.stream, now)
        graph = inventory.registry.graph_of(stream.binding)
        forced = None if event.auto else split_at(graph, event.edge_from, event.cloud_from)
        tiles = tiling_by_hand(inventory.registry, stream.binding, graph, forced, event.tiles)
        if not priced_plans_of(inventory, stream, graph, forced):
            raise PlanError(f"stream {event.stream!r} cannot be placed so: {why_not(inventory, stream, forced)}")
    except TrisectError as error:
        return [Reply(event.request, {"ok": False, "error": str(error)})]
    before = stream.forced, stream.forced_tiles
    stream.forced, stream.forced_tiles = forced, tiles
    actions, undone = _force(inventory, event.stream, stream, graph, now, wall_ts)
    if not undone and forced is not None and stream.plan is not None and stream.plan.placement != forced:
        undone = f"{stream.binding.device} has refused this placement"
    if not undone and forced is None and stream.plan is not None and stream.plan.planner == FORCED:
        undone = "no plan of the planner's own can replace the one by hand"
    if undone:
        stream.forced, stream.forced_tiles = before
    return [*actions, _answer(event, stream, graph, undone)]


def plan_requested(inventory: Inventory, event: PlanRequested, now: float, wall_ts: float) -> list[PlannerAction]:
    """Take them if there is a plan for them; else all stays as it is, and the answer says what conflicts."""
    stream = inventory.streams.get(event.stream)
    before = stream.requested if stream else None
    try:
        stream = _to_change(inventory, event.stream, now)
        _check(inventory, stream, event.plan_request or PlanRequest())
        stream.requested = event.plan_request
        graph = inventory.registry.graph_of(stream.binding)
        if not priced_plans_of(inventory, stream, graph, stream.forced):
            raise PlanError(f"stream {event.stream!r} has no plan: {why_not(inventory, stream, stream.forced)}")
    except TrisectError as error:
        by_hand = stream is not None and stream.forced is not None
        if stream is not None:
            stream.requested = before
        hint = "; the stream is placed by hand: `trisect place --auto` hands it back" if by_hand else ""
        return [Reply(event.request, {"ok": False, "error": f"{error}{hint}"})]
    actions, undone = _force(inventory, event.stream, stream, graph, now, wall_ts)
    if not undone and stream.plan is not None and stream.plan.plan_request != stream.requested_as_written:
        undone = f"{stream.binding.device} has refused what would be planned for it"
    if undone:
        stream.requested = before
    return [*actions, _answer(event, stream, graph, undone)]


def _to_change(inventory: Inventory, name: StreamId, now: float) -> PlannedStream:
    """The stream. Raises PlanError where there is none, or where people have changed its plan too often."""
    stream = stream_named(inventory.streams, name)
    if wait_s := stream.by_people.wait_s(now):
        raise PlanError(
            f"stream {name!r} has been changed by hand {MOST_IN_A_ROW} times in a row; ask again in {wait_s:.0f} s"
        )
    return stream


def _check(inventory: Inventory, stream: PlannedStream, asked: PlanRequest) -> None:
    """Raise PlanError for a request that says nothing, or excludes what is always there."""
    if stream.binding.device in asked.constraints.exclude_nodes:
        raise PlanError(f"exclude_nodes: {stream.binding.device} {DEVICE_STAYS}")
    if asked.is_by_price and not inventory.static_costs.prices:
        raise PlanError("no node has a price_per_s in the planner's configuration, so all plans cost the same")
    if asked.is_by_energy and not inventory.static_costs.draws:
        raise PlanError(
            "no node has power_w or joules_per_mb in the planner's configuration, so no plan's energy is known"
        )


def _force(
    inventory: Inventory, name: StreamId, stream: PlannedStream, graph: ModelGraph, now: float, wall_ts: float
) -> tuple[list[PlannerAction], str]:
    """Decide at once, whatever the margin. Returns why nothing could be decided, too; empty when it was."""
    blinking = (
        [node for node in stream.plan.nodes.values() if may_only_blink(inventory, node, now)] if stream.plan else []
    )
    if blinking:
        return [], f"{', '.join(blinking)} was lost a moment ago, and may be back in another; ask again"
    stream.force = True
    actions = decide(inventory, name, stream, now, wall_ts)
    stream.force = False
    if any(isinstance(action, PublishPlan) for action in actions):
        stream.by_people.take(now)
    if stream.plan is None or not fits(stream.plan, graph):
        return actions, stream.last_logged or "there is no plan for it"
    return actions, ""


def _answer(
    event: PlaceRequested | PlanRequested, stream: PlannedStream, graph: ModelGraph, why_not: str
) -> PlannerAction:
    plan = stream.plan
    if why_not or plan is None:
        return Reply(event.request, {"ok": False, "error": f"stream {event.stream!r} stays as it is: {why_not}"})
    answer = {"ok": True, "epoch": plan.epoch, "device": plan.device, "plan": plan.to_json(graph)}
    return Reply(event.request, answer)
