"""A running node sees how fast its way to the broker is and how its clock stands to the planner's, on a real broker."""

from __future__ import annotations

import time

from broker.server import Server
from broker.topics import Namespace
from nodes.config.sections import Config
from nodes.session.link_monitor import LinkWatch
from nodes.session.presence import Presence, wait_up
from tests.integration.conftest import PATIENCE_S

NAMES = Namespace("links")
AHEAD_S = 3600.0


def test_rates_round_trip_and_clock_are_known_soon_though_nothing_crosses(server: Server) -> None:
    config = Config.model_validate(
        {"pipeline": "links", "broker": {"port": server.port}, "nodes": {"edge-1": {"tier": "edge"}}}
    )
    planner = Presence(config, NAMES, config.planner.id, "planner")
    node = Presence(config, NAMES, next(iter(config.nodes)), "edge")
    node.clock._started_at -= AHEAD_S  # as on a machine whose clock is behind
    with planner, node:
        wait_up(planner.session)
        wait_up(node.session)
        watch = LinkWatch(config, NAMES, node)
        watch.start()
        wanted = {"link.up_bytes_per_s", "link.down_bytes_per_s", "link.round_trip_s"}
        give_up = time.monotonic() + PATIENCE_S
        while not (wanted <= watch.report().keys() and "clock_offset_seconds" in node.clock.report()):
            assert time.monotonic() < give_up, (watch.report(), node.clock.report())
            time.sleep(0.05)
        clock = node.clock.report()
        assert abs(clock["clock_offset_seconds"] - AHEAD_S) <= clock["clock_error_seconds"] + 0.1
        assert abs(node.clock.now() - planner.clock.now()) <= clock["clock_error_seconds"] + 0.1
        watch.stop()
