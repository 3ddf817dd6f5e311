"""The cost filter's constants, all in one place: what each means, and where it is from. Priors are in `equations`.

*Recordings* are those of tests/cases/telemetry, replayed by tests/unit/nodes/planner/costs/test_recordings.py.
"""

from __future__ import annotations

NOISE = 0.07
"""Deviation of a measurement at least, as a share of it, and before its source's own is known: medians of a quiet
machine vary by 0.02 to 0.05. On recordings errors with 0.05 and 0.1 are the same.
"""
PROBE_NOISE = 0.2
"""The same of a single probe of an idle processor: bursts under a quota differ by that much."""
CLOCK_S = 1e-3
"""How far two nodes' clocks may differ."""
DOUBT = 0.3
"""Deviation of what was foreseen without having been measured, and of a link since its start."""
JUMP = 1.0
"""Deviation of the logarithm of a node's factor once it has changed: large against its model's, which share none of it,
and against PROBE_NOISE, so that a probe is believed. On recordings a third is as good; live, of an edge that had its
processor back a probe then said two thirds, and it was not used again.
"""
GAIN = 0.2
"""How quickly a source's noise follows the differences between its measurements. On recordings 0.1 is as good."""
CLIP = 3.0
"""Deviations beyond which a measurement is an outlier or, twice in a row, a change: the usual three (Huber 1964)."""
QUIET_S, DRIFT_S = 15.0, 60.0
"""So long after it was last measured a part begins to return to its prior; and the time constant with which it does, as
variances do at all times. They decide how soon a node that was left is tried again: under a lasting load about every
three minutes. On recordings 120 s is as good.
"""
WIDENING = 0.9
"""By so much the logarithm of an interval's width grows for a report whose frames are all outside, and so wide it is at
first for a plan of which no frame has been measured. On recordings 0.85 and 1 change the share of frames inside by at
most 0.03.
"""
STEP = 0.05
"""Plans follow what was learned in steps of that share, so that equal costs stay equal: half the planner's margin."""

# Guards, which change nothing as long as telemetry says what can be.

FURTHEST = 1e3
"""No part leaves its prior by a larger factor: nothing is told by what does."""
FASTEST = 5e9
"""Bytes per second, about what a copy in memory has: nodes next to their broker are no further apart than that."""
LEAST_SHARE = 0.25
"""Of two clocks that differ, a leg may seem shorter than nothing; a measurement counts as this share of what was
expected at least.
"""
LEAST_SECONDS = 1e-9
LEAST_S = 0.1
"""Time passes for a part in steps of that: in less its variance hardly grows."""
MOST_STEP, MOST_STEPS = 1.0, 12
"""A logarithm moves by at most MOST_STEP in each of at most MOST_STEPS iterations, until none moves by a hundredth."""
