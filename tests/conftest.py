"""What holds for all tests: Hypothesis without clocks, since machines are slow in some hours; which tests take long."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("trisect", deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("trisect")

SLOW = (
    *("properties", "unit/examples", "unit/pipeline/engines", "unit/pipeline/models", "unit/pipeline/prepare"),
    *("unit/pipeline/verify", "unit/nodes/tier/test_loading.py", "unit/nodes/cli"),
)
"""Folders and files that build networks or try many cases."""
LONG = ("system", "browser", "properties", "unit/pipeline/models", "integration")
"""Folders whose files run for a minute or more come first: side by side, nobody waits long for the last one."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what `make quick` leaves out, and put long files first."""
    for item in items:
        if _where(config, item).startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: _turn(_where(config, item)))


def _where(config: pytest.Config, item: pytest.Item) -> str:
    return item.path.relative_to(config.rootpath / "tests").as_posix()


def _turn(where: str) -> int:
    return next((turn for turn, folder in enumerate(LONG) if where.startswith(folder)), len(LONG))
