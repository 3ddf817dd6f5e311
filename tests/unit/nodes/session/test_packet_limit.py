"""Brokers that take more than trisect reads."""

from __future__ import annotations

import pytest

from broker.settings import ServerSettings
from broker.topics import LARGEST_PACKET
from nodes.session.packet_limit import takes_larger_frames


@pytest.mark.parametrize("limit", [None, LARGEST_PACKET + 1, 268_435_455], ids=["none", "above", "RabbitMQ"])
def test_a_broker_that_takes_more_than_any_process_reads_is_said_with_the_way_out(limit: int | None) -> None:
    said = takes_larger_frames(limit)
    assert said is not None
    assert "67,108,864 bytes" in said
    assert f"max_packet_size {LARGEST_PACKET}" in said


def test_a_broker_with_a_limit_that_is_low_enough_refuses_what_nobody_reads() -> None:
    assert takes_larger_frames(LARGEST_PACKET) is None
    assert takes_larger_frames(ServerSettings().max_packet_bytes) is None
