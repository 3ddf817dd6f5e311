"""What holds for all tests: Hypothesis without clocks, since machines are slow in some hours; which tests take long."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("trisect", deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("trisect")

SLOW = (
    *("properties", "unit/examples", "unit/pipeline/engines", "unit/pipeline/models", "unit/pipeline/prepare"),
    *("unit/pipeline/verify", "unit/nodes/tier/test_loading.py", "unit/nodes/cli"),
)
"""Folders and files that build networks or try many cases."""


def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Mark what `make quick` leaves out."""
    for item in items:
        where = item.path.relative_to(config.rootpath / "tests").as_posix()
        if where.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
