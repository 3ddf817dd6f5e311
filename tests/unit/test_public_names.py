"""The package `trisect`: what it promises is there."""

from __future__ import annotations

import pytest

import trisect


@pytest.mark.parametrize("name", trisect.__all__)
def test_a_public_name_leads_somewhere(name: str) -> None:
    assert getattr(trisect, name) is not None


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = trisect.nothing
