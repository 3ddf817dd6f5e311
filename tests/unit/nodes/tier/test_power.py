"""Measured power: a folder plays sysfs, with processor packages or a battery."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import pytest

from nodes.protocol.reports import WORK_WATTS, read_report
from nodes.tier.meter import Meter
from nodes.tier.power import REPORTS, WATTS, PowerMeter, PowerReader, power_meter

RANGE_UJ = 262_143_328_850


def rapl(sysfs: Path, **zones: tuple[str, int]) -> None:
    """Zones by folder's name (`_` for `:`), each with its own name and microjoules."""
    for folder, (name, counted) in zones.items():
        zone = sysfs / "powercap" / folder.replace("_", ":").replace("rapl", "intel-rapl")
        zone.mkdir(parents=True, exist_ok=True)
        (zone / "name").write_text(f"{name}\n")
        (zone / "energy_uj").write_text(f"{counted}\n")
        (zone / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")


def battery(sysfs: Path, **files: object) -> None:
    supply = sysfs / "power_supply" / "BAT0"
    supply.mkdir(parents=True, exist_ok=True)
    for name, value in ({"type": "Battery", "status": "Discharging"} | files).items():
        (supply / name).write_text(f"{value}\n")


def test_packages_joules_add_up_over_time_sub_zones_are_not_counted_twice_and_a_counter_begins_again(
    tmp_path: Path,
) -> None:
    rapl(tmp_path, rapl_0=("package-0", 1_000_000), rapl_0_0=("core", 500_000), rapl_1=("package-1", RANGE_UJ - 5))
    rapl(tmp_path, rapl_2=("psys", 1))
    reader = PowerReader(tmp_path)
    assert reader.source == "intel-rapl:0, intel-rapl:1"
    assert reader.watts(10.0) is None, "one reading is no rate"
    rapl(tmp_path, rapl_0=("package-0", 21_000_000), rapl_0_0=("core", 9_000_000), rapl_1=("package-1", 9_999_995))
    assert reader.watts(12.0) == pytest.approx((20 + 10) / 2)
    (tmp_path / "powercap" / "intel-rapl:1" / "energy_uj").write_text("?")
    assert reader.watts(13.0) is None


@pytest.mark.parametrize(
    ("files", "watts"),
    [
        ({"power_now": 6_400_000}, 6.4),
        ({"current_now": -500_000, "voltage_now": 12_000_000}, 6.0),
        ({"power_now": 6_400_000, "status": "Charging"}, None),
        ({"power_now": 6_400_000, "type": "Mains"}, None),
        ({"current_now": 500_000}, None),
        ({"power_now": "much"}, None),
    ],
)
def test_a_battery_says_what_it_gives_while_it_gives(
    tmp_path: Path, files: dict[str, object], watts: float | None
) -> None:
    battery(tmp_path, **files)
    found = PowerReader(tmp_path).watts(0.0)
    assert found == (pytest.approx(watts) if watts is not None else None)


def test_what_work_adds_is_the_slope_and_shows_only_when_the_node_worked_more_and_less(tmp_path: Path) -> None:
    battery(tmp_path)
    meter, draw, found = PowerMeter(PowerReader(tmp_path)), random.Random(1), {}
    for number in range(3 * REPORTS):
        assert WORK_WATTS not in found, "a constant share has no slope"
        battery(tmp_path, power_now=round(1e6 * (2.7 + 3.7 * 0.5 + draw.gauss(0, 0.05))))
        found = meter.report(0.5, 1.0, float(number))
    for number in range(3 * REPORTS):
        share = number % 2 * 0.8
        battery(tmp_path, power_now=round(1e6 * (2.7 + 3.7 * share + draw.gauss(0, 0.05))))
        found = meter.report(share * 2, 2.0, float(number))
    assert found[WATTS] == pytest.approx(2.7 + 3.7 * 0.8, abs=0.3)
    assert found[WORK_WATTS] == pytest.approx(3.7, abs=0.2)


def test_a_node_that_may_read_nothing_says_so_and_reports_no_power(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert power_meter(False, tmp_path) is None
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert power_meter(True, tmp_path) is None
    assert "power_w: {idle: WATTS, busy: WATTS}" in caplog.text
    assert not [name for name in Meter().report() if name.startswith("power")]


def test_a_report_has_the_watts_and_the_planner_reads_those_of_work(tmp_path: Path) -> None:
    battery(tmp_path, power_now=5_000_000)
    assert Meter(power_meter(True, tmp_path)).report()[WATTS] == 5.0
    assert read_report(json.dumps({WORK_WATTS: 3.5}).encode()).work_watts == 3.5
    for wrong in (-1.0, 1e12, True, "much"):
        report = read_report(json.dumps({WORK_WATTS: wrong}).encode())
        assert report.work_watts is None
        assert WORK_WATTS in report.wrong
