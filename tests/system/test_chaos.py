"""A few random faults on a running pipeline with two streams; benchmarks/chaos.py does it with a hundred."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import chaos, chaos_faults
from tests.effort import in_longer_runs

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@in_longer_runs  # test_faults and test_streams have one fault in each test
def test_faults_of_several_kinds_neither_lose_nor_repeat_nor_change_a_bit(tmp_path: Path) -> None:
    kinds = (
        "cut cloud-1",
        "starve edge-1",
        "clock edge-1",
    )
    assert set(kinds) <= set(chaos_faults.KINDS)
    report = chaos.run(kinds, 3, tmp_path / "run", scale=0.4)
    assert chaos.holds(report), report
    assert report["faults"] == len(kinds)
    assert report["plans_refused"] == 2, "one of each stream"
