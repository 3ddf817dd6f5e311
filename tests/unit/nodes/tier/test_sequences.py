"""Sequence numbers over a device's restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodes.tier import sequences


def test_sequence_numbers_never_come_twice_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "state" / "camera.sequence"
    firsts = [sequences.reserve(path) for _ in range(3)]
    assert firsts[0] == 1
    assert firsts == sorted(set(firsts))
    path.write_text("nonsense")
    with pytest.raises(OSError, match="no sequence number"):
        sequences.reserve(path)
