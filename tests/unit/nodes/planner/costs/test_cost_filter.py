"""The cost filter by itself: what it believes, how soon, and how sure it is."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.planner.costs.constants import CLIP, DRIFT_S, FURTHEST, QUIET_S
from nodes.planner.costs.cost_filter import STEADY, CostFilter, Part, Prior, Term

FACTOR, OWN, ALL = Part("edge-1", "factor"), Part("edge-1", "call"), Part(STEADY, "all")
PRIORS = {"factor": Prior(0.0, 0.2, jump=1.0), "call": Prior(math.log(1e-3), 1.0), "all": Prior(0.0, 0.2)}
SEGMENT = [Term(0.1, (FACTOR, ALL)), Term(1.0, (OWN,))]
NOISE = 0.05


def calm(seconds: float = 0.101) -> CostFilter:
    """A filter that has seen the segment take so long for a while."""
    known = CostFilter(PRIORS)
    for second in range(20):
        known.observe("s", SEGMENT, seconds, NOISE, float(second))
    return known


def test_before_anything_is_measured_priors_hold_and_so_does_their_doubt() -> None:
    known = CostFilter(PRIORS)
    assert known.seconds(SEGMENT) == pytest.approx(0.101)
    assert known.variance(SEGMENT) == pytest.approx(2 * (0.1 * 0.2) ** 2 + 1e-3**2)


def test_of_one_part_the_update_is_the_mean_weighted_by_precision() -> None:
    known, only = CostFilter(PRIORS), [Term(1.0, (FACTOR,))]
    known.observe("s", only, math.exp(0.1), NOISE, 0.0)
    weight = 0.2**2 / (0.2**2 + NOISE**2)
    assert math.log(known.factor(FACTOR)) == pytest.approx(0.1 * weight, rel=1e-6)
    assert known.variance(only) == pytest.approx(known.factor(FACTOR) ** 2 * 0.2**2 * (1 - weight), rel=1e-6)


def test_one_outlier_counts_for_little_and_two_in_a_row_are_a_change() -> None:
    known = calm()
    before = known.seconds(SEGMENT)
    known.observe("s", SEGMENT, 0.5, NOISE, 20.0)
    assert known.seconds(SEGMENT) < before * math.exp(2 * CLIP * NOISE)
    known.observe("s", SEGMENT, 0.5, NOISE, 21.0)
    assert known.seconds(SEGMENT) == pytest.approx(0.5, rel=0.15)
    for second in range(22, 26):
        known.observe("s", SEGMENT, 0.101, NOISE, float(second))
    assert known.seconds(SEGMENT) == pytest.approx(0.101, rel=0.15)


def test_a_confirmed_measurement_is_a_change_at_once_however_far_it_is() -> None:
    known = calm()
    known.observe("s", SEGMENT, 5.0, NOISE, 20.0, is_confirmed=True)
    assert known.seconds(SEGMENT) == pytest.approx(5.0, rel=0.15)
    known.observe("s", SEGMENT, 0.101, NOISE, 21.0, is_confirmed=True)
    assert known.seconds(SEGMENT) == pytest.approx(0.101, rel=0.15)


def test_a_change_is_of_what_jumps_and_leaves_nothing_in_the_rest_when_it_is_over() -> None:
    """A node is slow while it computes a model, and its probe alone says later that it is no longer."""
    model, probe = Part("edge-1", "model"), Part("edge-1", "probe")
    known = CostFilter({**PRIORS, "model": Prior(0.0, 0.07), "probe": Prior(math.log(0.02), 0.3, varies=False)})
    computing, probing = [Term(0.1, (FACTOR, model))], [Term(1.0, (probe, FACTOR))]
    for second in range(20):
        known.observe("s", computing, 0.1 if second < 15 else 0.3, NOISE, float(second) + 0.5)
    known.expect(probe, Prior(math.log(0.06 / known.factor(FACTOR)), 0.3, varies=False), 20.0)
    for second in range(20, 30):
        known.observe("probe", probing, 0.06 if second < 28 else 0.02, NOISE, float(second))
    assert known.seconds(computing) == pytest.approx(0.1, rel=0.1)


def test_outliers_of_both_signs_are_noise() -> None:
    known = calm()
    for second in range(20, 40):
        known.observe("s", SEGMENT, 0.3 if second % 2 else 0.03, NOISE, float(second))
    assert 0.05 < known.seconds(SEGMENT) < 0.2


def test_what_varies_much_from_one_measurement_to_the_next_moves_little() -> None:
    chance, steady, noisy = random.Random(1), calm(), CostFilter(PRIORS)
    for second in range(20):
        noisy.observe("s", SEGMENT, 0.101 * math.exp(chance.gauss(0.0, 0.4)), NOISE, float(second))
    assert (steady.deviation("s") or 0.0) < NOISE
    assert (noisy.deviation("s") or 0.0) == pytest.approx(0.4, rel=0.4)
    before = noisy.seconds(SEGMENT)
    noisy.observe("s", SEGMENT, 1.5 * before, NOISE, 20.0)
    steady.observe("s", SEGMENT, 1.5 * 0.101, NOISE, 20.0)
    assert noisy.seconds(SEGMENT) / before < steady.seconds(SEGMENT) / 0.101


def test_measurements_far_apart_in_time_say_nothing_of_the_noise() -> None:
    known = CostFilter(PRIORS)
    for second in range(0, 2000, 100):
        known.observe("s", SEGMENT, 0.4, NOISE, float(second))
    assert known.deviation("s") == 0.0


def test_a_change_is_the_nodes_and_not_what_nodes_share() -> None:
    known = calm()
    for second in range(20, 24):
        known.observe("s", SEGMENT, 0.4, NOISE, float(second))
    assert known.factor(ALL) < 1.4
    assert known.factor(FACTOR) > 2.2


def test_what_several_nodes_have_alike_is_charged_to_one_that_was_not_seen() -> None:
    known = CostFilter(PRIORS)
    for second in range(30):
        for node in ("edge-1", "edge-2", "edge-3"):
            known.observe(node, [Term(0.1, (Part(node, "factor"), ALL))], 0.13, NOISE, float(second))
    assert known.factor(Part("edge-4", "factor"), ALL) == pytest.approx(1.2, abs=0.07)


def test_what_is_not_measured_returns_to_its_prior_in_mean_and_variance() -> None:
    known, only = CostFilter(PRIORS), [Term(1.0, (FACTOR,))]
    for second in range(10):
        known.observe("s", only, 1.5, NOISE, float(second))
    learned = math.log(known.factor(FACTOR))
    known.advance(FACTOR.block, 9.0 + QUIET_S)
    assert math.log(known.factor(FACTOR)) == pytest.approx(learned, rel=1e-6)
    known.advance(FACTOR.block, 9.0 + QUIET_S + DRIFT_S)
    assert math.log(known.factor(FACTOR)) == pytest.approx(learned / math.e, rel=1e-6)
    known.advance(FACTOR.block, 9.0 + 100 * DRIFT_S)
    assert known.factor(FACTOR) == pytest.approx(1.0, abs=1e-6)
    assert known.variance(only) == pytest.approx(0.2**2, rel=1e-6)


def test_what_two_sums_have_in_common_is_no_doubt_of_their_difference() -> None:
    known, common = CostFilter(PRIORS), [Term(0.1, (FACTOR, ALL))]
    assert known.variance([*common, Term(-0.1, (FACTOR, ALL))]) == pytest.approx(0.0, abs=1e-18)
    assert known.variance([*common, Term(-0.1, (Part("edge-2", "factor"), ALL))]) == pytest.approx(2 * 0.02**2)


def test_a_measurement_is_divided_among_parts_by_their_doubt() -> None:
    known = CostFilter({**PRIORS, "factor": Prior(0.0, 0.3), "all": Prior(0.0, 0.1)})
    known.observe("s", [Term(1.0, (FACTOR, ALL))], math.exp(0.2), NOISE, 0.0)
    assert math.log(known.factor(FACTOR)) == pytest.approx(9 * math.log(known.factor(ALL)), rel=1e-6)


def test_another_prior_begins_again_and_the_same_one_does_not() -> None:
    known, part = CostFilter(PRIORS), Part("edge-1", "up")
    known.expect(part, Prior(1.0, 0.3), 0.0)
    known.observe("s", [Term(1.0, (part,))], math.exp(1.2), NOISE, 0.0)
    learned = known.factor(part)
    known.expect(part, Prior(1.0, 0.3), 1.0)
    assert known.factor(part) == learned
    known.expect(part, Prior(2.0, 0.3), 1.0)
    assert known.factor(part) == pytest.approx(math.exp(2.0))
    known.forget(part)
    assert known.variance([Term(1.0, (part,))]) == pytest.approx((math.exp(2.0) * 0.3) ** 2)


@pytest.mark.parametrize("seed", range(3))
def test_nine_of_ten_measurements_lie_within_the_interval_of_nine_tenths(seed: int) -> None:
    """Of a part that drifts as the filter expects, and is measured all the time."""
    chance, known, within, factor = random.Random(seed), CostFilter(PRIORS), 0, 0.0
    terms, grown = [Term(0.1, (FACTOR,))], 0.2**2 * 2 / DRIFT_S
    for second in range(1500):
        factor += chance.gauss(0.0, math.sqrt(grown)) - factor / DRIFT_S
        measured, expected = 0.1 * math.exp(factor + chance.gauss(0.0, NOISE)), known.seconds(terms)
        doubt = math.sqrt(known.variance(terms) / expected**2 + NOISE**2 + grown)
        within += abs(math.log(measured / expected)) < 1.645 * doubt
        known.observe("s", terms, measured, NOISE, float(second))
    assert 0.87 < within / 1500 < 0.93


@given(
    st.lists(
        st.tuples(
            st.sampled_from([SEGMENT, SEGMENT[:1], SEGMENT[1:]]),
            st.floats(1e-9, 1e9) | st.just(0.0) | st.floats(-1.0, 0.0),
            st.floats(0.01, 10.0),
            st.floats(0.0, 1e4),
        ),
        max_size=30,
    )
)
def test_whatever_is_measured_it_stays_finite_and_within_bounds(
    measured: list[tuple[list[Term], float, float, float]],
) -> None:
    known, now = CostFilter(PRIORS), 0.0
    for terms, seconds, noise, later in measured:
        now += later
        known.observe("s", terms, seconds, noise, now)
        known.validate()
        assert known.variance(SEGMENT) >= 0
    assert abs(math.log(known.factor(FACTOR))) <= math.log(FURTHEST) + 1e-6
