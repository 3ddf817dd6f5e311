"""From a wheel and enrolment files to the first result, on three machines that share nothing but the network."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import partial

import pytest

from benchmarks.ten_minutes import Steps, run
from pipeline.lite.sketch import Layer, Sketch, save
from tests.integration.enrolled import reachable_folder
from tests.system.wheel_install import PYTHON, by_copy, foreign_python


def why_not() -> str:
    """What this machine lacks for network namespaces, empty if it has all."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("setpriv") is None:
        return "network namespaces need root, iproute2 and setpriv"
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"network namespaces are not permitted here: {done.stderr.strip()}"
    return "" if foreign_python() else f"no {PYTHON} that other users may run"


pytestmark = [pytest.mark.system, pytest.mark.timeout(600), pytest.mark.skipif(bool(why_not()), reason=why_not())]


def test_three_machines_come_from_wheel_and_enrolment_files_to_a_result() -> None:
    base, steps, python = reachable_folder(), Steps(), foreign_python()
    assert python is not None
    layers = (Layer("conv1", "conv", ("image",), 3, 16), Layer("conv2", "conv", ("conv1",), 3, 32))
    head = (Layer("mean", "mean", ("conv2",)), Layer("head", "dense", ("mean",), 1, 5))
    package = base / "net.trisect"
    save(Sketch("net", (64, 64, 3), (*layers, *head)), package, preprocess="unit")
    try:
        result = run(package, base, steps, partial(by_copy, base / "wheel", python))
    finally:
        shutil.rmtree(base, ignore_errors=True)
    assert result["ok"] is True
    assert result["model"] == "net"
    assert set(steps.seconds) >= {"the first result", "doctor on every machine"}
    print(f"{sum(steps.seconds.values()):.1f} s", steps.seconds)
