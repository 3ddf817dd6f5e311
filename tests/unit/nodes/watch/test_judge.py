"""One answer about a pipeline: which snapshots are well, and what is said of those that are not."""

from __future__ import annotations

from typing import Any

from nodes.watch.overview.judge import faults


def snapshot(**states: str) -> dict[str, Any]:
    nodes = {
        name.replace("_", "-"): {"state": state, "telemetry_stale": False, "telemetry_age_seconds": 0.5}
        for name, state in states.items()
    }
    plan = {"stages": [{"node": "device-1"}, {"node": "edge-1"}]}
    return {
        "broker": {"address": "h:1", "connected": True, "why": ""},
        "nodes": nodes,
        "streams": {"camera": {"device": "device-1", "active": plan, "coming": None}},
    }


def test_all_is_well_when_the_nodes_of_each_plan_serve() -> None:
    assert faults(snapshot(device_1="ready", edge_1="draining", cloud_1="lost")) == []


def test_a_node_of_the_plan_that_is_gone_is_named() -> None:
    assert faults(snapshot(device_1="ready", edge_1="lost")) == ["stream camera: edge-1, which its plan needs, is lost"]
    assert "edge-1, which its plan needs, is absent" in faults(snapshot(device_1="ready"))[0]


def test_a_node_that_is_silent_is_named() -> None:
    seen = snapshot(device_1="ready", edge_1="ready")
    seen["nodes"]["edge-1"] |= {"telemetry_stale": True, "telemetry_age_seconds": 20.0}
    assert faults(seen) == ["stream camera: edge-1, which its plan needs, has not reported for 20 s"]


def test_a_stream_without_a_plan_and_a_broker_that_is_away_are_faults() -> None:
    seen = snapshot(device_1="ready")
    seen["streams"]["camera"]["active"] = None
    assert "no plan is published" in faults(seen)[0]
    seen["broker"] |= {"connected": False, "why": "the line broke"}
    assert faults(seen) == ["no connection to the broker at h:1: the line broke"]
