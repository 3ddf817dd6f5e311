"""Which versions take part together."""

from __future__ import annotations

import pytest

from nodes.protocol.versions import refusal


@pytest.mark.parametrize(
    ("theirs", "ours"), [("0.2.0", "0.2.7"), ("1.0.0", "1.9.2"), ("dev", "dev"), ("0.2.0rc1", "0.2")]
)
def test_those_of_one_series_work_together(theirs: str, ours: str) -> None:
    assert refusal(theirs, ours) is None


@pytest.mark.parametrize(
    ("theirs", "ours"), [("0.1.9", "0.2.0"), ("1.0.0", "2.0.0"), ("0.9.0", "1.0.0"), ("", "0.1.0")]
)
def test_others_are_refused_with_both_versions(theirs: str, ours: str) -> None:
    text = refusal(theirs, ours)
    assert text is not None
    assert theirs in text
    assert ours in text
