"""Feeds of the overview: a new one, and one of a running pipeline."""

from __future__ import annotations

import pytest

from broker import topics
from nodes.protocol.messages import LinkReport, StreamApplied
from tests.unit.nodes.watch.feed import CLOUD, DEVICE, EDGE, GRAPH, PLANNER, Feed, plan_of


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
def running() -> Feed:
    """Three nodes and a planner; epoch 3 runs."""
    feed = Feed()
    feed.send(topics.MODEL, GRAPH.to_json(), digest=GRAPH.digest)
    for node in (DEVICE, EDGE, CLOUD):
        feed.state(node)
        feed.info(node)
        feed.send(topics.LINK, LinkReport(node, "s1", 12.5e6, 45e6, 1.2e-3), node=node)
        feed.applied(node, StreamApplied(3, (3,), active=3 if node == DEVICE else None))
        feed.telemetry(node)
    feed.state(PLANNER)
    feed.plan(plan_of(3))
    return feed
