"""Law 4 for files and payloads: whatever bytes come, a reader's own error or a result. Ten million: benchmarks/."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.properties.fuzz_files import FileFuzz, kinds

COUNTS = {"chunks": 5_000, "frames": 3_000, "journals": 150, "packages": 2_000, "containers": 2_000}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What readers log of nonsense is of no interest here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.timeout(120)
def test_readers_survive_whatever_they_are_given(name: str, tmp_path: Path) -> None:
    kind = kinds(tmp_path)[name]
    fuzz = FileFuzz([kind])
    fuzz.run(kind, COUNTS[name])
    assert not fuzz.deaths, fuzz.examples
    assert fuzz.done[name] == COUNTS[name]
    if kind.expected:
        assert 0 < fuzz.refused[name] < COUNTS[name], "all is refused, or nothing"
