"""One stream as `trisect watch` sees it: its plans, and what its results measured, epoch by epoch. Pure."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from nodes.protocol.messages import MessageError, TensorRatio, TileSeconds
from nodes.watch.overview.tiles import tiles_json
from pipeline.codecs import CODECS
from pipeline.errors import PlanError
from pipeline.graph import ModelGraph
from pipeline.placement import Crossing, Tier
from pipeline.plan import Plan

RESULTS_KEPT = 64
EPOCHS_KEPT = 4
RATE_WINDOW_S = 5.0
RATE_AT_LEAST_S = 0.2
HIGH_PERCENTILE = 0.95
DIGITS = 6

# Bounded, so that a sum or a mean of them is finite too. A link's may be below 0 where two clocks differ.
Seconds = Annotated[float, Field(allow_inf_nan=False, ge=-1e9, le=1e9)]


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """One node's part in a frame."""

    tier: str
    compute_seconds: Seconds
    decode_seconds: Seconds = 0.0
    queue_seconds: Seconds = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """The times in a result message; see nodes.tier.result_json for the whole of it."""

    sequence: int
    epoch: int
    seconds: Seconds
    ok: bool
    error: str = ""
    path: tuple[StageSeconds, ...] = ()
    links: Mapping[str, Seconds] = field(default_factory=dict)


_ADAPTER = TypeAdapter(Result)


def read_result(payload: bytes) -> Result:
    """Read a result message. Raises MessageError."""
    try:
        return _ADAPTER.validate_json(payload)
    except ValidationError as error:
        first = error.errors()[0]
        raise MessageError(f"not a result: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


@dataclass(slots=True)
class StreamRecord:
    """The latest plans and results of one stream, by epoch. `newest` is the epoch of the plan that is published."""

    newest: int | None = None
    plans: dict[int, Plan] = field(default_factory=dict)
    results: dict[int, deque[Result]] = field(default_factory=dict)
    results_total: int = 0
    errors_total: int = 0
    last_error: tuple[Result, float] | None = None
    _arrivals: deque[float] = field(default_factory=deque)
    _parts: dict[int, dict[str, Any]] = field(default_factory=dict)
    _tiles: dict[tuple[int, int, str], TileSeconds] = field(default_factory=dict)
    _ratios: dict[tuple[int, str], TensorRatio] = field(default_factory=dict)

    @property
    def newest_plan(self) -> Plan | None:
        """The plan that the plan topic holds now."""
        return None if self.newest is None else self.plans.get(self.newest)

    def learn_plan(self, plan: Plan) -> None:
        """A plan was published."""
        self.newest = plan.epoch
        self.plans.pop(plan.epoch, None)
        self._parts.pop(plan.epoch, None)
        self.plans[plan.epoch] = plan
        _keep_newest(self.plans)

    def learn_result(self, result: Result, now: float) -> None:
        """A frame was closed."""
        self._arrivals.append(now)
        self._forget_arrivals(now)
        if not result.ok:
            self.errors_total += 1
            self.last_error = (result, now)
            return
        self.results_total += 1
        # in the order of use, so that the epoch which runs is never the one that gives way
        kept = self.results.pop(result.epoch, None)
        self.results[result.epoch] = deque(maxlen=RESULTS_KEPT) if kept is None else kept
        self.results[result.epoch].append(result)
        _keep_newest(self.results)

    def learn_tile(self, took: TileSeconds) -> None:
        """A coordinator has had a tile back, of a plan that is known."""
        plan = self.plans.get(took.epoch)
        if plan is not None and plan.tiles is not None and took.tile <= len(plan.tiles) and took.worker in plan.members:
            self._tiles[took.epoch, took.tile, took.worker] = took
            self._tiles = {key: value for key, value in self._tiles.items() if key[0] in self.plans}

    def learn_ratio(self, seen: TensorRatio) -> None:
        """A node has coded a tensor, or tried to."""
        if seen.codec in CODECS and any(seen.codec in _codecs_of(plan) for plan in self.plans.values()):
            self._ratios[seen.tensor, seen.codec] = seen

    def _with_ratio(self, tensor: Mapping[str, Any]) -> dict[str, Any]:
        """A tensor that crosses or comes back, with how many times smaller its codec makes it, and frames' deviation
        from that.
        """
        seen = self._ratios.get((tensor["tensor"], tensor["codec"]))
        return {**tensor, "ratio": seen.ratio if seen else None, "ratio_deviation": seen.deviation if seen else None}

    def rate_hz(self, now: float, since: float | None) -> float | None:
        """Results a second over the last seconds; None before there was time to tell."""
        self._forget_arrivals(now)
        window_s = min(RATE_WINDOW_S, now - since) if since is not None else 0.0
        return round(len(self._arrivals) / window_s, 2) if window_s >= RATE_AT_LEAST_S else None

    def _forget_arrivals(self, now: float) -> None:
        while self._arrivals and self._arrivals[0] <= now - RATE_WINDOW_S:
            self._arrivals.popleft()

    def seen_json(self, active: int | None, now: float) -> dict[str, Any]:
        """Statistics of the watched results; seconds are of the newest results of the active epoch."""
        results = self.results.get(active, ()) if active is not None else ()
        seconds = sorted(result.seconds for result in results)
        return {
            "measured_results": len(seconds),
            "seconds_p50": _median(seconds),
            "seconds_p95": round(seconds[math.ceil(HIGH_PERCENTILE * len(seconds)) - 1], DIGITS) if seconds else None,
            "results_watched_total": self.results_total,
            "error_results_watched_total": self.errors_total,
            "last_error": self.last_error and _error_json(*self.last_error, now),
        }

    def describe(self, plan: Plan, graph: ModelGraph | None) -> dict[str, Any]:
        """A plan with its predicted seconds beside those that this epoch's results measured (None: none yet)."""
        parts = self._parts.get(plan.epoch)
        if parts is None or (graph is not None and not parts["named"]):
            parts = self._parts[plan.epoch] = _parts(plan, graph)
            self._parts = {epoch: kept for epoch, kept in self._parts.items() if epoch in self.plans}
        results = self.results.get(plan.epoch, ())
        stages = [{**stage, **_measured_stage(stage["tier"], results)} for stage in parts["stages"]]
        links = [
            {**link, "measured_seconds_p50": _median([r.links[key] for r in results if key in r.links])}
            for link in parts["links"]
            for key in [f"{link['from']}_{link['to']}"]
        ]
        tiles = {key[1:]: took for key, took in self._tiles.items() if key[0] == plan.epoch}
        return {
            "epoch": plan.epoch,
            "planner": plan.planner,
            "reason": plan.reason,
            "created_ts": plan.created_ts,
            "problem": parts["problem"],
            "stages": stages,
            "tiles": tiles_json(plan.tiles, graph if parts["named"] else None, tiles) if plan.tiles else None,
            "tensors": [self._with_ratio(tensor) for tensor in parts["tensors"]],
            "results": [self._with_ratio(tensor) for tensor in parts["results"]],
            "links": links,
            "return_measured_seconds_p50": _median([r.links["return"] for r in results if "return" in r.links]),
            "links_predicted_seconds": parts["links_predicted_seconds"],
            # there and back again: what two nodes' clocks differ by cancels out in this sum
            "links_measured_seconds_p50": _median([sum(r.links.values()) for r in results if "return" in r.links]),
            "frame_overhead_predicted_seconds": _finite(plan.predicted.frame_overhead_seconds),
            "frame_overhead_measured_seconds_p50": _median([_frame_overhead_seconds(result) for result in results]),
            "predicted_seconds": _finite(plan.predicted.seconds),
            "predicted_low_seconds": _finite(plan.predicted.low),
            "predicted_high_seconds": _finite(plan.predicted.high),
            "measured_seconds_p50": _median([r.seconds for r in results]),
        }


def _frame_overhead_seconds(result: Result) -> float:
    """Seconds in which the device read the frame and answered it: all that is in no other part."""
    at_nodes = sum(part.queue_seconds + part.compute_seconds for part in result.path)
    return result.seconds - at_nodes - sum(result.links.values())


def _measured_stage(tier: str, results: Sequence[Result] | deque[Result]) -> dict[str, Any]:
    parts = [part for result in results for part in result.path if part.tier == tier]
    return {
        "measured_seconds_p50": _median([part.compute_seconds for part in parts]),
        "waited_seconds_p50": _median([part.queue_seconds for part in parts]),
        "decoded_seconds_p50": _median([part.decode_seconds for part in parts]),
    }


def _parts(plan: Plan, graph: ModelGraph | None) -> dict[str, Any]:
    """The parts of a plan that do not change. Names and tensors come from the manifest, and are left out without it."""
    problem = "" if graph is not None else "the model's manifest is not on the broker: no names, no tensors"
    if graph is not None:
        try:
            plan.check(graph)
        except PlanError as error:
            graph, problem = None, str(error)
    crossings = plan.crossings(graph) if graph is not None else ()
    links = _links(plan, graph, crossings)
    return {
        "named": graph is not None,
        "problem": problem,
        "stages": _stages(plan, graph),
        "tensors": plan.sent_json(graph, crossings) if graph is not None else [],
        "results": plan.sent_json(graph, plan.returning(graph)) if graph is not None else [],
        "links": links,
        "links_predicted_seconds": _finite(sum(cost.seconds for cost in plan.predicted.links.values())),
    }


def _stages(plan: Plan, graph: ModelGraph | None) -> list[dict[str, Any]]:
    stages = []
    for tier in sorted(set(plan.placement)):
        blocks = [index for index, placed in enumerate(plan.placement) if placed is tier]
        first, last = (graph.blocks[blocks[0]].name, graph.blocks[blocks[-1]].name) if graph else (None, None)
        stages.append(
            {
                "tier": tier.label,
                "node": plan.nodes[tier],
                "blocks": len(blocks),
                "first": first,
                "last": last,
                "macs": sum(graph.blocks[index].macs for index in blocks) if graph else None,
                "predicted_seconds": _finite(plan.predicted.stages.get(tier.label)),
            }
        )
    return stages


def _links(plan: Plan, graph: ModelGraph | None, crossings: Sequence[Crossing]) -> list[dict[str, Any]]:
    """From each tier that the plan uses to the next one that it uses; a tier that is left out is passed through."""
    links = []
    for lower, upper in pairwise(sorted(set(plan.placement))):
        costs = [
            cost
            for tier in (Tier.DEVICE, Tier.EDGE)
            if lower <= tier < upper and (cost := plan.predicted.links.get(f"{tier.label}_{Tier(tier + 1).label}"))
        ]
        passing = [crossing.tensor for crossing in crossings if crossing.crosses(lower)]
        links.append(
            {
                "from": lower.label,
                "to": upper.label,
                "tensors": [graph.tensors[tensor].name for tensor in passing] if graph else [],
                "nbytes": costs[0].nbytes if costs else None,
                "result_nbytes": costs[0].result_nbytes if costs else None,
                "ratio": round(costs[0].ratio, DIGITS) if costs else None,
                "result_ratio": round(costs[0].result_ratio, DIGITS) if costs else None,
                "codecs": sorted({codec for t, codec in plan.codecs.tensors.items() if t in passing}),
                "predicted_seconds": _finite(sum(cost.seconds for cost in costs)) if costs else None,
            }
        )
    return links


def _error_json(result: Result, at: float, now: float) -> dict[str, Any]:
    return {"sequence": result.sequence, "error": result.error, "age_seconds": round(now - at, 3)}


def _keep_newest(table: dict[int, Any]) -> None:
    while len(table) > EPOCHS_KEPT:
        del table[next(iter(table))]


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), DIGITS) if values else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _codecs_of(plan: Plan) -> set[str]:
    return {*plan.codecs.names, *(one.codec for one in (plan.tiles.codecs if plan.tiles else ()))}
