"""What is wrong with a running pipeline, read from a snapshot: for scripts, which want one answer. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nodes.protocol.messages import LifeState

SERVING = frozenset({LifeState.READY.value, LifeState.DRAINING.value})


def faults(snapshot: Mapping[str, Any]) -> list[str]:
    """Sentences on what keeps a stream from running: the broker away, no plan, a node of its plan gone; [] if none."""
    broker = snapshot["broker"]
    if not broker["connected"]:
        return [f"no connection to the broker at {broker['address']}{': ' if broker['why'] else ''}{broker['why']}"]
    found = []
    for name, stream in snapshot["streams"].items():
        found += [f"stream {name}: {fault}" for fault in _of_stream(stream, snapshot["nodes"])]
    return found


def _of_stream(stream: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    plan = stream["active"] or stream["coming"]
    if plan is None:
        yield "no plan is published; are the planner and the device running?"
        return
    needed = [stage["node"] for stage in plan["stages"]]
    needed += [stream["device"]] if stream["device"] not in needed else []
    for node in needed:
        if node is None:
            continue
        state = nodes[node]["state"] if node in nodes else "absent"
        if state not in SERVING:
            yield f"{node}, which its plan needs, is {state}"
        elif nodes[node]["telemetry_stale"]:
            yield f"{node}, which its plan needs, has not reported for {nodes[node]['telemetry_age_seconds']:.0f} s"
