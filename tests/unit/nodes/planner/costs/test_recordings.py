"""What the filter expects of recorded telemetry, a report ahead, in `benchmarks/replan.py`, `tiles.py`, `headline.py`.

Errors are logarithms of expected over measured seconds; `BEFORE` is what the rules that the filter replaced had on the
same reports. All were recorded on two cores that up to 60 processes shared: `replan` and `replan_loaded` are of steps
in load and links, `noise` of a steady pipeline with noisy neighbours, `tiles` of tiles under load, `resnet18_5g` of a
case of the headline.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from benchmarks.forecasts import Replay

FOLDER = Path(__file__).parents[4] / "cases" / "telemetry"
BEFORE = {"replan": (0.523, 0.282), "replan_loaded": (0.888, 0.857)}
"""Mean absolute errors of segments and of whole frames."""
RECORDINGS = ("replan", "replan_loaded", "resnet18_5g", "tiles", "noise")
WITHIN = 0.87, 0.93
"""Shares of single frames that may lie in the interval in which nine of ten are expected."""


@pytest.mark.parametrize("name", RECORDINGS)
def test_errors_a_report_ahead_are_less_than_those_of_the_rules_before_and_intervals_hold(name: str) -> None:
    replay = Replay.of(FOLDER / f"{name}.jsonl.xz")
    if name in BEFORE:
        segments_before, frames_before = BEFORE[name]
        assert statistics.mean(map(abs, replay.errors["segment"])) < 0.7 * segments_before
        assert statistics.mean(map(abs, replay.errors["frame"])) < 0.7 * frames_before
    least, most = WITHIN
    assert least <= round(statistics.mean(replay.within), 2) <= most
