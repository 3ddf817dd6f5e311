"""Nodes in the overview: what they say of themselves, and how long that holds."""

from __future__ import annotations

from nodes.protocol.messages import LifeState
from tests.unit.nodes.watch.feed import CLOUD, DEVICE, EDGE, GRAPH, MODEL, PLANNER, TIERS, Feed


def test_nodes_are_shown_with_what_they_say_of_themselves(running: Feed) -> None:
    nodes = running.snapshot()["nodes"]
    assert list(nodes) == [DEVICE, EDGE, CLOUD, PLANNER]
    edge = nodes[EDGE]
    assert (edge["state"], edge["tier"], edge["session"], edge["host"]) == ("ready", "edge", "s1", "pi")
    assert (edge["engine"], edge["threads"], edge["models"]) == ("tensorflow", 1, {MODEL: GRAPH.digest})
    assert edge["link"] == {"up_bytes_per_s": 12.5e6, "down_bytes_per_s": 45e6, "round_trip_s": 1.2e-3}
    assert edge["telemetry"]["resident_bytes"] == 812_000_000


def test_a_running_nodes_link_is_shown_as_its_telemetry_sees_it(running: Feed) -> None:
    running.telemetry(EDGE, **{"link.up_bytes_per_s": 2e6, "link.round_trip_s": 0.03})
    seen = running.snapshot()["nodes"][EDGE]["link"]
    assert seen == {"up_bytes_per_s": 2e6, "down_bytes_per_s": 45e6, "round_trip_s": 0.03}
    assert "2/45 MB/s" in running.text()


def test_a_link_is_shown_with_the_way_that_its_sender_takes(running: Feed) -> None:
    def ways() -> list[bool]:
        return [link["direct"] for link in running.stream()["active"]["links"]]

    assert not any(ways())
    running.telemetry(DEVICE, **{f"direct.{EDGE}.stands": 1, f"direct.{CLOUD}.stands": 0})
    running.telemetry(EDGE, **{f"direct.{CLOUD}.stands": 0})
    assert ways() == [True, False]
    assert " direct: " in running.text()


def test_a_configured_node_that_never_came_is_absent(feed: Feed) -> None:
    assert {node: said["state"] for node, said in feed.snapshot()["nodes"].items()} == dict.fromkeys(TIERS, "absent")
    assert feed.stream()["state"] == "no_plan"
    assert "no plan yet" in feed.text()


def test_telemetry_grows_stale(running: Feed) -> None:
    running.now += 1.5
    assert not running.snapshot()["nodes"][EDGE]["telemetry_stale"]
    running.now += 10.5
    edge = running.snapshot()["nodes"][EDGE]
    assert edge["telemetry_stale"]
    assert edge["telemetry_age_seconds"] == 12.0
    assert "stale, 12 s ago" in running.text(80)


def test_a_lost_node_interrupts_the_streams_that_need_it(running: Feed) -> None:
    running.state(CLOUD, LifeState.LOST)
    assert running.snapshot()["nodes"][CLOUD]["state"] == "lost"
    assert running.stream()["state"] == "interrupted"
    assert "cloud-1 is lost" in running.text(80)


def test_a_stream_stops_with_its_device(running: Feed) -> None:
    running.state(DEVICE, LifeState.STOPPED)
    assert running.stream()["state"] == "stopped"


def test_the_will_of_an_old_session_says_nothing(running: Feed) -> None:
    running.state(CLOUD, LifeState.READY, session="s2")
    running.state(CLOUD, LifeState.LOST, session="s1")
    assert running.snapshot()["nodes"][CLOUD]["state"] == "ready"


def test_a_new_process_does_not_inherit_telemetry(running: Feed) -> None:
    running.state(DEVICE, LifeState.INIT, session="s2")
    assert running.snapshot()["nodes"][DEVICE]["telemetry"] is None
    assert running.stream()["counts"]["lost"] is None
    assert running.stream()["active_epoch"] is None
