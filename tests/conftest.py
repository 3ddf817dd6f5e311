"""What holds for all tests: Hypothesis without clocks, since machines are slow in some hours."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("trisect", deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("trisect")
