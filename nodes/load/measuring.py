"""What a load test measures: windows of answered frames, when they are stable, and what they say together. Pure.

After perf_analyzer (Triton): a measurement is stable when the last windows' throughput and latency all lie within a
share of their mean.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

STABLE_WINDOWS: Final = 3
PERCENTILES: Final = (50, 90, 95, 99)
DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Sample:
    """One answered frame: when it was to be sent and when its answer came, on one clock; the device's result."""

    due_at: float
    done_at: float
    result: Mapping[str, Any]

    @property
    def client_seconds(self) -> float:
        """Seconds from when the frame was to be sent to its answer here."""
        return self.done_at - self.due_at

    @property
    def ok(self) -> bool:
        """True for a frame that was computed."""
        return bool(self.result.get("ok"))


@dataclass(frozen=True, slots=True)
class Window:
    """The frames that were answered between two moments."""

    began_at: float
    ended_at: float
    samples: tuple[Sample, ...]

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.ended_at - self.began_at

    @property
    def frames_per_second(self) -> float:
        """Answered frames a second, those that failed left out."""
        return sum(sample.ok for sample in self.samples) / self.seconds

    @property
    def latency_seconds(self) -> float:
        """Mean seconds at the client; infinite without a frame."""
        return statistics.fmean(found) if (found := [s.client_seconds for s in self.samples if s.ok]) else math.inf


def is_stable(windows: Sequence[Window], share: float) -> bool:
    """True when the last windows' throughput and latency lie within `share` of their means."""
    last = windows[-STABLE_WINDOWS:]
    if len(last) < STABLE_WINDOWS or not all(window.samples for window in last):
        return False
    rates, latencies = [window.frames_per_second for window in last], [window.latency_seconds for window in last]
    return _within(rates, share) and _within(latencies, share)


def _within(values: Sequence[float], share: float) -> bool:
    mean = statistics.fmean(values)
    return math.isfinite(mean) and all(abs(value - mean) <= share * mean for value in values)


def together(windows: Sequence[Window]) -> Window:
    """Several windows, one after the other, as one."""
    return Window(windows[0].began_at, windows[-1].ended_at, tuple(s for window in windows for s in window.samples))


def summary(window: Window) -> dict[str, Any]:
    """Throughput, percentiles and errors as plain JSON values; seconds by the client's clock and by the device's."""
    computed = [sample for sample in window.samples if sample.ok]
    return {
        "seconds": _rounded(window.seconds),
        "frames": len(computed),
        "errors": len(window.samples) - len(computed),
        "frames_per_second": _rounded(window.frames_per_second),
        "client_seconds": spread([sample.client_seconds for sample in computed]),
        "device_seconds": spread([_number(sample.result.get("seconds")) for sample in computed]),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, percentiles (nearest rank), least and most; empty without values."""
    if not values:
        return {}
    ordered = sorted(values)
    ranks = {f"p{percent}": ordered[math.ceil(percent / 100 * len(ordered)) - 1] for percent in PERCENTILES}
    found = {"mean": statistics.fmean(ordered), "min": ordered[0], **ranks, "max": ordered[-1]}
    return {name: _rounded(value) for name, value in found.items()}


def breakdown(window: Window, plans: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """A frame's parts, measured next to the plan's prediction: of the frames of one epoch, the one with the most.

    `plans` are their JSON by epoch.
    """
    by_epoch: dict[int, list[Sample]] = defaultdict(list)
    for sample in window.samples:
        if sample.ok:
            by_epoch[int(_number(sample.result.get("epoch")))].append(sample)
    if not by_epoch:
        return {"epoch": None, "epochs": 0, "stages": [], "links": [], "frame": _frame([], None)}
    epoch, samples = max(by_epoch.items(), key=lambda found: len(found[1]))
    plan = plans.get(epoch, {})
    predicted = plan.get("predicted")
    results = [sample.result for sample in samples]
    return {
        "epoch": epoch,
        "epochs": len(by_epoch),
        "planner": plan.get("planner"),
        "stages": _stages(results, _mapping(predicted, "stages")),
        "links": _links(results, _mapping(predicted, "links")),
        "frame": _frame(results, predicted),
    }


def _frame(results: Sequence[Mapping[str, Any]], predicted: Any) -> dict[str, Any]:
    return {
        "measured_seconds": spread([_number(result.get("seconds")) for result in results]),
        "overhead_seconds": spread([_overhead(result) for result in results]),
        "predicted_latency_seconds": _finite(predicted, "seconds"),
        "predicted_period_seconds": _finite(predicted, "period_seconds"),
    }


_STAGE_PARTS: Final = ("decode_seconds", "queue_seconds", "compute_seconds", "encode_seconds")


def _stages(results: Iterable[Mapping[str, Any]], predicted: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for result in results:
        for part in result.get("path", ()):
            parts = found.setdefault((str(part["tier"]), str(part["node"])), {name: [] for name in _STAGE_PARTS})
            for name in _STAGE_PARTS:
                parts[name].append(_number(part.get(name)))
    return [
        {
            "tier": tier,
            "node": node,
            **{name: spread(values) for name, values in parts.items()},
            "predicted_compute_seconds": _finite(predicted, tier),
        }
        for (tier, node), parts in found.items()
    ]


def _links(results: Iterable[Mapping[str, Any]], predicted: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: dict[str, list[float]] = defaultdict(list)
    for result in results:
        for name, seconds in result.get("links", {}).items():
            found[str(name)].append(_number(seconds))
    return [
        {"link": name, "seconds": spread(values), "predicted_seconds": _predicted_link(name, predicted)}
        for name, values in found.items()
    ]


def _predicted_link(name: str, predicted: Mapping[str, Any]) -> float | None:
    """A tier that is left out is passed through: device to cloud is both links. The way back is in all of them."""
    parts = {"device_cloud": ("device_edge", "edge_cloud")}.get(name, (name,))
    costs = [predicted.get(part) for part in parts]
    seconds = [_finite(cost, "seconds") for cost in costs if isinstance(cost, Mapping)]
    known = [value for value in seconds if value is not None]
    return _rounded(sum(known)) if len(known) == len(parts) else None


def _overhead(result: Mapping[str, Any]) -> float:
    """Seconds in which the device read the frame and answered it: all that is in no other part."""
    at_nodes = sum(_number(p.get(n)) for p in result.get("path", ()) for n in ("queue_seconds", "compute_seconds"))
    ways = sum(_number(seconds) for seconds in result.get("links", {}).values())
    return max(0.0, _number(result.get("seconds")) - at_nodes - ways)


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _finite(value: Any, name: str) -> float | None:
    found = value.get(name) if isinstance(value, Mapping) else None
    return _rounded(found) if isinstance(found, int | float) and math.isfinite(found) else None


def _number(value: Any) -> float:
    is_usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    return float(value) if is_usable else 0.0


def _rounded(value: float) -> float:
    return round(float(value), DIGITS)
