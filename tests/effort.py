"""How many cases random tests try. `TIMES=10 make test` tries ten times as many, before a release for instance."""

from __future__ import annotations

import os

import pytest

TIMES = int(os.environ.get("TIMES", "1"))


def examples(few: int) -> int:
    """The number of cases, `few` in an ordinary run."""
    return few * TIMES


in_longer_runs = pytest.mark.skipif(TIMES == 1, reason="in longer runs: TIMES=2 make test")
"""For tests whose parts others have in every run."""
