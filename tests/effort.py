"""How many cases random tests try. `TIMES=10 make test` tries ten times as many, before a release for instance."""

from __future__ import annotations

import os

TIMES = int(os.environ.get("TIMES", "1"))


def examples(few: int) -> int:
    """The number of cases, `few` in an ordinary run."""
    return few * TIMES
