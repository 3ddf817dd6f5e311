"""What control groups say of a process's share of the processor, as both versions of them write it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.profiling.profile import hardware
from pipeline.timing import cpu_quota
from pipeline.timing.contention import typical_seconds, uncontended_seconds


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mount of control groups and a list of this process's, both empty."""
    monkeypatch.setattr(cpu_quota, "_MOUNT", tmp_path)
    monkeypatch.setattr(cpu_quota, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    return tmp_path


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_version_1_with_a_quota(groups: Path) -> None:
    write(groups, cgroup="8:pids:/\n4:cpu,cpuacct:/small\n")
    stat = "nr_periods 8\nnr_throttled 2\nthrottled_time 1500000000\n"
    write(groups / "cpu" / "small", cpu__cfs_quota_us="1250\n", cpu__cfs_period_us="5000\n", cpu__stat=stat)
    assert cpu_quota.cores() == 0.25
    assert cpu_quota.throttled_seconds() == 1.5
    assert hardware().endswith(" x2, 0.25 of them")


def test_version_2_in_a_container_that_sees_its_own_root(groups: Path) -> None:
    write(groups, cgroup="0::/\n", cpu__max="150000 100000\n", cpu__stat="usage_usec 9\nthrottled_usec 250000\n")
    assert cpu_quota.cores() == 1.5
    assert cpu_quota.throttled_seconds() == 0.25


@pytest.mark.parametrize("limit", ["max 100000\n", "400000 100000\n", "nonsense", ""])
def test_no_limit_below_what_there_is_is_none(groups: Path, limit: str) -> None:
    write(groups, cgroup="0::/\n", cpu__max=limit)
    assert cpu_quota.cores() is None
    assert cpu_quota.throttled_seconds() == 0.0
    assert hardware().endswith(" x2")


def test_a_machine_without_control_groups_has_no_limit(groups: Path) -> None:
    assert cpu_quota.cores() is None
    assert cpu_quota.throttled_seconds() == 0.0


def test_time_under_a_quota_is_the_runs_own(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = iter([{"1": (0, 0)}, {"1": (10, 3_000_000_000)}] * 2)
    throttled = iter([1.0, 3.5, 0.0, 0.0])
    now = iter([100.0, 104.0] * 2)
    monkeypatch.setattr("pipeline.timing.contention._waits", lambda: next(waits))
    monkeypatch.setattr("pipeline.timing.contention.throttled_seconds", lambda: next(throttled))
    monkeypatch.setattr("pipeline.timing.contention.time.perf_counter", lambda: next(now))
    assert uncontended_seconds(lambda: None) == 3.5
    assert uncontended_seconds(lambda: None) == 1.0


def test_the_shares_of_blocks_are_right_under_a_quota() -> None:
    """A process runs for 1 ms in each 5; its runs begin anywhere in that."""
    blocks, random = np.array([6e-3, *[2e-4] * 30]), np.random.default_rng(0)
    runs = np.array([under_quota(blocks, random.uniform(0.0, 1e-3)) for _ in range(12)])
    typical = typical_seconds(runs, throttled_s=0.8 * float(runs.sum()))
    assert typical[0] / typical.sum() == pytest.approx(0.5, abs=0.05)
    assert typical_seconds(runs, throttled_s=0.0).tolist() == np.median(runs, axis=0).tolist()
    assert typical_seconds(runs, throttled_s=0.0)[0] / np.median(runs, axis=0).sum() > 0.7


def under_quota(blocks: NDArray[np.float64], used: float) -> list[float]:
    """Seconds by the wall of blocks that take so long of a core, the first period's 1 ms already used so far."""
    ends = (used + np.cumsum(blocks)) / 1e-3
    walls = ends * 1e-3 + np.floor(ends) * 4e-3
    return np.diff(np.concatenate([[used], walls])).tolist()  # type: ignore[no-any-return]
