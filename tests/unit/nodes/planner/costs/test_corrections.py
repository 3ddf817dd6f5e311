"""Corrections: one node's load is its own, what all nodes share is nobody's, and noise is nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.planner.costs.corrections import COLDNESS, LARGEST, LEAST_WINDOWS, TURN_WINDOWS, WINDOWS, Corrections, close
from pipeline.plan import NodeId

A, B, IDLE = map(NodeId, ("a", "b", "idle"))
MODEL, BASIS = "net", "a profile"


def measured(**ratios: float) -> Corrections:
    """Nodes that have told often enough."""
    corrections = Corrections()
    for node, ratio in ratios.items():
        tell(corrections, NodeId(node), ratio)
    return corrections


def tell(corrections: Corrections, node: NodeId, *ratios: float, times: int = LEAST_WINDOWS) -> None:
    for ratio in ratios * times:
        corrections.learn(node, MODEL, BASIS, ratio)


def factor(corrections: Corrections, node: NodeId) -> float:
    return corrections.factor_of(node, MODEL, BASIS)


def test_nothing_measured_corrects_nothing() -> None:
    assert factor(Corrections(), A) == 1.0


def test_one_or_two_reports_are_not_believed() -> None:
    corrections = Corrections()
    tell(corrections, A, 3.0, times=LEAST_WINDOWS - 1)
    assert factor(corrections, A) == 1.0
    tell(corrections, A, 3.0, times=1)
    assert factor(corrections, A) == 3.0


@pytest.mark.parametrize(("before", "after"), [(1.0, 3.0), (3.0, 1.0), (1.0, 0.3)])
def test_two_reports_far_beyond_the_others_are_a_change(before: float, after: float) -> None:
    corrections = measured(a=before)
    tell(corrections, A, after, times=TURN_WINDOWS)
    assert factor(corrections, A) == after


@pytest.mark.parametrize("ratio", [0.93, 1.0, 1.08])
def test_what_lies_in_the_dead_band_corrects_nothing(ratio: float) -> None:
    assert factor(measured(a=ratio), A) == 1.0


def test_an_outlier_between_usual_times_changes_nothing() -> None:
    corrections = Corrections()
    tell(corrections, A, 1.0, 50.0, 1.0, 1.02, 50.0, times=1)
    assert factor(corrections, A) == 1.0


def test_what_all_measured_nodes_share_is_charged_to_the_others_too() -> None:
    corrections = measured(a=1.3, b=1.4)
    assert [factor(corrections, node) for node in (A, B, IDLE)] == [1.3, 1.4, 1.3]


def test_where_some_are_slow_and_others_are_not_the_unmeasured_are_not() -> None:
    assert factor(measured(a=3.0, b=1.0), IDLE) == 1.0
    assert factor(measured(a=3.0, b=0.5), IDLE) == 1.0


@pytest.mark.parametrize(("ratio", "charged"), [(1.35, 1.35), (1.5, 1.5), (2.0, 1.125), (3.0, 1.0), (0.5, 0.889)])
def test_a_node_alone_is_taken_for_cold_up_to_a_limit_and_for_loaded_beyond(ratio: float, charged: float) -> None:
    corrections = measured(a=ratio)
    assert (factor(corrections, A), factor(corrections, IDLE)) == (ratio, charged)


def test_a_node_that_is_not_measured_any_more_fades_to_the_others_and_is_charged_with_them() -> None:
    corrections = measured(a=3.0)
    fading = []
    for _ in range(100):
        tell(corrections, B, 1.3, times=1)
        corrections.fade(B, but=[MODEL])
        corrections.fade(A, but=[])
        fading.append(factor(corrections, A))
    assert fading[0] > 2.7
    assert fading == sorted(fading, reverse=True)
    assert fading[-1] == factor(corrections, B) == 1.3


def test_a_node_that_is_found_slow_again_fades_more_slowly_until_it_was_found_quick() -> None:
    corrections = measured(b=1.0)

    def reports_until_faded() -> int:
        tell(corrections, A, 3.0, times=WINDOWS)
        factors = []
        for _ in range(1000):
            corrections.fade(A, but=[])
            factors.append(factor(corrections, A))
        return factors.index(1.0)

    lasted = [reports_until_faded() for _ in range(4)]
    assert all(1.5 * before < after < 3 * before for before, after in pairwise(lasted))
    tell(corrections, A, 1.0, times=WINDOWS)
    assert reports_until_faded() == pytest.approx(lasted[0], abs=2)


def test_a_node_that_is_not_in_use_follows_probes_of_its_processor() -> None:
    corrections = measured(a=3.0)

    def idle(*probes: float) -> float:
        for probe_s in probes:
            corrections.fade(A, but=[], probe_s=probe_s)
        return factor(corrections, A)

    assert idle(0.02, 0.023, 0.018) == 3.0
    assert idle(0.01) == 1.5
    assert idle(0.005, 0.001) == 1.0
    assert idle(0.004) == 4.0
    tell(corrections, A, 1.0, times=WINDOWS)
    assert idle(0.02) == 1.0


def test_a_node_that_nobody_measured_is_not_probed_into_anything() -> None:
    corrections = Corrections()
    for probe_s in (0.01, 0.1):
        corrections.fade(A, but=[], probe_s=probe_s)
    assert factor(corrections, A) == 1.0


def test_nothing_fades_while_nobody_is_measured() -> None:
    corrections = measured(a=3.0)
    for _ in range(1000):
        corrections.fade(A, but=[])
        corrections.fade(B, but=[])
    assert factor(corrections, A) == 3.0


def test_a_node_does_not_fade_below_what_the_others_take_as_well() -> None:
    corrections = measured(a=2.0, b=2.0)
    for _ in range(100):
        corrections.fade(A, but=[])
    assert (factor(corrections, A), factor(corrections, IDLE)) == (2.0, 1.125)


def test_a_factor_is_of_what_was_foreseen_then() -> None:
    corrections = measured(a=3.0)
    assert corrections.factor_of(A, MODEL, "another profile") == 1.0
    corrections.learn(A, MODEL, "another profile", 1.0)
    assert corrections.factor_of(A, MODEL, "another profile") == 1.0
    corrections = measured(a=3.0)
    corrections.forget(A, MODEL)
    assert factor(corrections, A) == 1.0


@given(st.lists(st.floats(0.92, 1.08), min_size=3, max_size=200), st.floats(0.2, 5.0))
def test_a_factor_moves_at_most_now_and_then_under_noise(noise: list[float], true: float) -> None:
    """Medians lie within 8 % of the truth, and a factor within 10 % of them: it never is 20 % off, and rarely moves."""
    corrections, factors = Corrections(), []
    for value in noise:
        corrections.learn(A, MODEL, BASIS, true * value)
        factors.append(factor(corrections, A))
    for found in factors[LEAST_WINDOWS - 1 :]:
        assert close(found, true) or 1 / 1.2 < found / true < 1.2
    moved = [(before, after) for before, after in pairwise(factors) if before != after]
    assert not any(close(before, after) for before, after in moved if 1.0 not in (before, after))


@given(st.lists(st.floats(allow_nan=False, min_value=0.0) | st.just(float("inf")), min_size=1, max_size=20))
def test_any_ratio_gives_a_factor_within_bounds(ratios: list[float]) -> None:
    corrections = Corrections()
    for ratio in ratios:
        corrections.learn(A, MODEL, BASIS, ratio)
        corrections.fade(B, but=[])
        assert 0.99 / LARGEST <= factor(corrections, A) <= LARGEST
        assert 1 / COLDNESS <= corrections.common(MODEL) <= COLDNESS
