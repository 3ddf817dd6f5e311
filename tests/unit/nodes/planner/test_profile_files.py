"""Profile files that somebody else may have written: read within bounds, or refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nodes.planner.offline import MOST_PROFILE_BYTES, read_codecs, read_profile
from pipeline.errors import PlanError
from pipeline.profiling.profile import PROFILE_VERSION
from pipeline.ranges import MOST_BLOCKS
from tests import graphs

GRAPH = graphs.chain(4, 4)
READERS: tuple[Callable[[Path], Any], ...] = (lambda path: read_profile(path, GRAPH), read_codecs)


def report(count: int = len(GRAPH), **changes: Any) -> str:
    profile = {
        "version": PROFILE_VERSION,
        **dict.fromkeys(("model", "digest", "engine", "engine_version", "hardware"), "x"),
        "threads": 1,
        "seconds": [0.5] * count,
        "spread": [0.0] * count,
        "total_seconds": 1.0,
        "measured_ts": 1.0,
        **changes,
    }
    return json.dumps({"profile": profile, "graph": {"blocks": [{"name": block.name} for block in GRAPH.blocks]}})


def test_a_profile_is_read(tmp_path: Path) -> None:
    (path := tmp_path / "net.json").write_text(report())
    assert read_profile(path, GRAPH) == (0.5,) * len(GRAPH)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (report(MOST_BLOCKS + 1), f"at most {MOST_BLOCKS} items"),
        (report(ratios={str(i): [1.0] for i in range(33)}), "at most 32 items"),
        (report(seconds=[float("nan")] * len(GRAPH)), "finite"),
        (report(seconds=[-1.0] * len(GRAPH)), "greater than or equal to 0"),
        ("[" * 100_000, "not a profile"),
        ("[]", "not a profile"),
        ('{"profile": ' + "9" * 5000 + "}", "not a profile"),
    ],
)
def test_rows_and_values_have_bounds(tmp_path: Path, read: Callable[[Path], Any], text: str, said: str) -> None:
    (path := tmp_path / "net.json").write_text(text)
    with pytest.raises(PlanError, match=said) as refused:
        read(path)
    assert len(str(refused.value)) < 1_000 + len(str(path))


@pytest.mark.parametrize("read", READERS)
def test_a_file_without_end_or_too_large_is_not_read(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    with (path := tmp_path / "net.json").open("wb") as file:
        file.truncate(MOST_PROFILE_BYTES + 1)
    with pytest.raises(PlanError, match=f"at most {MOST_PROFILE_BYTES:,} are read"):
        read(path)
    with pytest.raises(PlanError, match="no ordinary file"):
        read(Path("/dev/zero"))
