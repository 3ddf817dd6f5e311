"""What trying a plan costs: the loss against the plan that it replaced, both as costs are now."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from nodes.planner.machine.gain import EXPLORATION, next_trial_s
from nodes.planner.machine.stream import PlannedStream
from pipeline.partition.priced_plan import PricedPlan


def worth(value: float) -> PricedPlan:
    return Mock(spec=PricedPlan, value=value)


@pytest.mark.parametrize(
    ("trial", "before", "wait_s"),
    [
        pytest.param(0.3, 0.2, 10.0 * 0.5 / EXPLORATION, id="half as slow again for ten seconds"),
        pytest.param(0.4, 0.4, 0.0, id="both have become slower, so the trial has lost nothing"),
        pytest.param(0.2, 0.3, 0.0, id="a trial that paid"),
        pytest.param(0.3, None, 0.0, id="the plan before cannot be had any more"),
    ],
)
def test_another_trial_waits_for_what_the_last_one_lost(trial: float, before: float | None, wait_s: float) -> None:
    stream = Mock(spec=PlannedStream, published_at=100.0)
    found = next_trial_s(stream, worth(trial), worth(before) if before is not None else None, 110.0)
    assert found == pytest.approx(wait_s)
