"""The watts that a machine draws for a node's work, measured by counters that Linux has: RAPL's, or a battery's.

RAPL counts the microjoules of each processor package since some moment, and begins again at a known number; since 2020
only root may read it, unless an administrator allows it. A battery says what it gives, when it gives something. What
work adds to idle power is the slope of a straight line through reports: watts over the share of time spent computing.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nodes.protocol.reports import WORK_WATTS

_log = logging.getLogger(__name__)

SYSFS = Path("/sys/class")
WATTS = "power.watts"
MICRO = 1e-6
REPORTS, LEAST_SPREAD, KEPT = 20, 0.1, 0.99
"""Reports from which a slope is believed; the standard deviation that shares of time must have for that; and what each
report leaves of those before."""
LEAST_S = 1e-3


class PowerReader:
    """Reads `powercap/intel-rapl:N/energy_uj` and `power_supply/*/power_now` below a folder, sysfs unless told."""

    def __init__(self, sysfs: Path = SYSFS) -> None:
        zones = sorted((sysfs / "powercap").glob("intel-rapl:*"))
        # sub-zones, and the platform's, count the same joules again
        self._packages = [z for z in zones if _text(z / "name").startswith("package") and _number(z / "energy_uj")]
        self._supplies = sorted((sysfs / "power_supply").glob("*"))
        self._counted: dict[Path, tuple[float, float]] = {}

    @property
    def source(self) -> str:
        """What it reads, for people; empty if there is nothing that it may read."""
        batteries = [supply for supply in self._supplies if _text(supply / "type") == "Battery"]
        return ", ".join(path.name for path in self._packages or batteries)

    def watts(self, now: float) -> float | None:
        """Mean watts of all packages since the last call, else what batteries give now; None where nothing says so.

        `now` in seconds. Packages say nothing at the first call.
        """
        if self._packages:
            found = [self._package_watts(package, now) for package in self._packages]
            return sum(watts for watts in found if watts is not None) if None not in found else None
        given = list(self._given())
        return sum(given) if given else None

    def _package_watts(self, package: Path, now: float) -> float | None:
        counted = _number(package / "energy_uj")
        before = self._counted.pop(package, None)
        if counted is None:
            return None
        self._counted[package] = counted, now
        if before is None or now - before[1] < LEAST_S:
            return None
        used = counted - before[0]
        if used < 0:  # it has begun again
            used += _number(package / "max_energy_range_uj") or 0.0
        return used * MICRO / (now - before[1]) if used >= 0 else None

    def _given(self) -> Iterator[float]:
        for supply in self._supplies:
            if _text(supply / "type") != "Battery" or _text(supply / "status") != "Discharging":
                continue
            power = _number(supply / "power_now")
            current, voltage = _number(supply / "current_now"), _number(supply / "voltage_now")
            if power is not None:
                yield abs(power) * MICRO
            elif current is not None and voltage is not None:
                yield abs(current) * MICRO * voltage * MICRO


def power_meter(is_wanted: bool, sysfs: Path = SYSFS) -> PowerMeter | None:
    """A meter if one is wanted and there is something to read; says in the log what it reads, or that it cannot."""
    if not is_wanted:
        return None
    reader = PowerReader(sysfs)
    if not reader.source:
        _log.warning(
            "power_w: measured, and below %s there is neither a processor package in powercap whose energy_uj it "
            "may read nor a battery in power_supply: no energy is counted; give power_w: {idle: WATTS, busy: WATTS}",
            sysfs,
        )
        return None
    _log.info("power is measured by %s", reader.source)
    return PowerMeter(reader)


class PowerMeter:
    """What work adds to idle power, by all reports so far, old ones fading."""

    def __init__(self, reader: PowerReader) -> None:
        self._reader = reader
        self._reports = 0
        self._sums = np.zeros(5)
        """Of weights, shares, watts, shares squared, shares times watts."""

    def report(self, busy_s: float, seconds: float, now: float) -> dict[str, float]:
        """Watts of a report's `seconds`, of which the node computed for `busy_s`; and those of work, once they show."""
        watts = self._reader.watts(now)
        if watts is None:
            return {}
        share = min(busy_s / max(seconds, LEAST_S), 1.0)
        self._reports += 1
        self._sums = KEPT * self._sums + np.array([1.0, share, watts, share * share, share * watts])
        slope = self._slope()
        return {WATTS: round(watts, 3)} | ({} if slope is None else {WORK_WATTS: round(slope, 3)})

    def _slope(self) -> float | None:
        weight, share, watts, squared, product = self._sums.tolist()
        variance = squared / weight - (share / weight) ** 2
        if self._reports < REPORTS or variance < LEAST_SPREAD**2:
            return None
        return max(0.0, (product / weight - share * watts / weight**2) / variance)


def _text(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return path.read_text(encoding="ascii").strip()
    return ""


def _number(path: Path) -> float | None:
    with contextlib.suppress(ValueError):
        return float(int(_text(path)))
    return None
