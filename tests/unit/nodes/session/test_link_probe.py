"""What a node's first measurement makes of its link."""

from __future__ import annotations

from nodes.session.link_probe import LARGE_BYTES, LEAST_S, OWN_SHARE, own_seconds


def test_a_node_beside_its_broker_is_not_credited_with_a_rate_that_chance_made() -> None:
    for took_s in (5e-4, 1e-3, 3e-3):
        for waited_s in (took_s, 0.999 * took_s, 2 * took_s):  # an echo may by chance take longer than a megabyte
            rate = LARGE_BYTES / own_seconds(took_s, waited_s)
            assert rate <= LARGE_BYTES / took_s / OWN_SHARE
    assert own_seconds(1.0, 0.1) == 0.9
    assert own_seconds(0.0, 0.0) == LEAST_S
