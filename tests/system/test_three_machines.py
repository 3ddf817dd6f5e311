"""From a wheel and enrolment files to the first result, on three machines that share nothing but the network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ten_minutes import ROOT, Steps, run
from tests.integration.enrolled import reachable_folder

WHEELS = os.environ.get("TRISECT_WHEELS", "")
"""A folder with the wheels of all that trisect needs; made by `benchmarks/ten_minutes.py --wheels FOLDER`."""

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and iproute2"
    ),
    pytest.mark.skipif(
        not WHEELS, reason="TRISECT_WHEELS names no folder of wheels; without one they are fetched from the network"
    ),
]


def test_three_machines_come_from_wheel_and_enrolment_files_to_a_result(tmp_path: Path) -> None:
    base = reachable_folder()
    package = tmp_path / "mobilenet_v2.trisect"
    subprocess.run(
        [sys.executable, "-m", "nodes.cli", "pack", "mobilenet_v2", "-o", str(package)], check=True, cwd=ROOT
    )
    steps = Steps()
    try:
        result = run(package, base, steps, Path(WHEELS))
    finally:
        shutil.rmtree(base, ignore_errors=True)
    assert result["ok"] is True
    assert result["model"] == "mobilenet_v2"
    assert set(steps.seconds) >= {"the first result", "doctor on every machine"}
    print(steps.seconds)
