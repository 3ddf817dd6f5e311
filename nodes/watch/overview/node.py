"""One node as `trisect watch` sees it: what it can do, its link, and its newest telemetry with its age. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from nodes.protocol import versions
from nodes.protocol.messages import LinkReport, MessageError, NodeInfo, NodeState, parse_json
from nodes.protocol.reports import stream_metric
from pipeline.plan import StreamId

ABSENT = "absent"
"""The state of a node that the configuration has and that the broker has never heard of."""
MAX_NUMBER = 1e18
COUNTS = (
    "frames_in_total",
    "replayed_total",
    "results_total",
    "error_results_total",
    "in_flight",
    "backlog",
    "resubmitted_total",
    "duplicates_ignored_total",
    "dropped_at_source_total",
    "plan_changes_total",
)
"""Of what a device's telemetry says of each of its streams."""


@dataclass(slots=True)
class NodeRecord:
    """A node's messages besides its state. `telemetry_at` is when its newest telemetry came."""

    info: NodeInfo | None = None
    link: LinkReport | None = None
    telemetry: dict[str, float] = field(default_factory=dict)
    telemetry_at: float | None = None

    def learn_telemetry(self, payload: bytes, now: float) -> None:
        """Take what in it is a number. Raises MessageError when nothing is."""
        numbers = {name: value for name, value in parse_json(payload).items() if _is_number(value)}
        if not numbers:
            raise MessageError("telemetry without a number in it")
        self.telemetry, self.telemetry_at = numbers, now

    def started_anew(self) -> None:
        """Another process has the id now, and counts from zero."""
        self.telemetry, self.telemetry_at = {}, None

    def age_s(self, now: float) -> float | None:
        """Age of the telemetry in seconds, None if there never was any."""
        return None if self.telemetry_at is None else round(now - self.telemetry_at, 3)

    def is_stale(self, now: float, stale_after_s: float) -> bool:
        """True when the telemetry is too old to be believed; False if there never was any."""
        return self.telemetry_at is not None and now - self.telemetry_at > stale_after_s

    def json(self, state: NodeState | None, tier: str, now: float, stale_after_s: float) -> dict[str, Any]:
        """All of it, as plain JSON values."""
        info = self.info
        return {
            "tier": tier,
            "state": state.state.value if state else ABSENT,
            "message": (state.message if state else "") or self._other_version(),
            "session": state.session if state else None,
            "births": state.births if state else 0,
            "host": state.host if state else "",
            "pid": state.pid if state else None,
            "version": info.version if info else None,
            "engine": info.engine if info else None,
            "engine_version": info.engine_version if info else None,
            "threads": info.threads if info else None,
            "hardware": info.hardware if info else None,
            "models": dict(info.models) if info else {},
            "link": _link_json(self.link, self.telemetry) if self.link else None,
            "telemetry": self.telemetry or None,
            "telemetry_age_seconds": self.age_s(now),
            "telemetry_stale": self.is_stale(now, stale_after_s),
        }

    def _other_version(self) -> str:
        """Why the planner leaves it out, if it is of another version than this program."""
        return (self.info and versions.refusal(self.info.version, version("trisect"))) or ""

    def counts_json(self, stream: StreamId, now: float, stale_after_s: float) -> dict[str, Any]:
        """A stream's counters at its device. `lost` is 0 as long as every frame is accounted for.

        The device's core takes them all at one instant, between two events, so that they fit each other exactly.
        """
        counts: dict[str, int | None] = dict.fromkeys((*COUNTS, "lost"))
        if self.telemetry:
            # a counter that never counted is not in the report
            known = {name: int(self.telemetry.get(stream_metric(stream, name), 0)) for name in COUNTS}
            entered = known["frames_in_total"] + known["replayed_total"]
            closed = known["results_total"] + known["error_results_total"]
            counts = {**known, "lost": entered - closed - known["in_flight"]}
        return {**counts, "age_seconds": self.age_s(now), "stale": self.is_stale(now, stale_after_s)}


def _is_number(value: Any) -> bool:
    # json reads NaN and whole numbers of any size; neither can be reckoned with
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def _link_json(link: LinkReport, telemetry: Mapping[str, float]) -> dict[str, float | None]:
    """A running node's observed link, in place of its first measurement."""
    first = {
        "up_bytes_per_s": link.up_bytes_per_s,
        "down_bytes_per_s": link.down_bytes_per_s,
        "round_trip_s": link.round_trip_s,
    }
    numbers = {name: telemetry.get(f"link.{name}", value) for name, value in first.items()}
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}
