"""Pipelines over a bridge and over a broker with small limits, as in benchmarks/brokers.py, with fewer frames."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import brokers
from broker.settings import Protocol
from tests.effort import in_longer_runs

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


# A bridge that speaks MQTT 5 is cut in test_bridge.py, too, between the brokers of an enrolled pipeline.
@pytest.mark.parametrize("protocol", ["mqttv311", pytest.param("mqttv50", marks=in_longer_runs)])
def test_a_pipeline_over_two_brokers_survives_the_cut_of_their_bridge(tmp_path: Path, protocol: Protocol) -> None:
    report = brokers.run_bridge(protocol, 24, tmp_path, cut_s=3.0)
    assert brokers.holds(report), report


def test_chunks_follow_a_broker_that_comes_back_with_smaller_packets(tmp_path: Path) -> None:
    report = brokers.run_limits(24, tmp_path)
    assert brokers.holds(report), report
