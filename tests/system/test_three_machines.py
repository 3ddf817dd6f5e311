"""From a wheel and enrolment files to the first result, on three machines that share nothing but the network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from benchmarks.ten_minutes import FIRST_USER, Install, Machine, Steps, run
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
    installs: list[Install] = []

    def prepare() -> Install:
        installs.append(by_copy(base / "wheel", python))
        return installs[0]

    try:
        result = run(package, base, steps, prepare)
        with steps.step("the demo, where nothing but the wheel is"):
            alone = Machine("alone", FIRST_USER + 3, base / "alone")
            installs[0](alone, "")
            shown = alone.run(alone.trisect, "demo", "--frames", "9", "--json", "proof.json").stdout
            proof = json.loads((alone.home / "proof.json").read_text())
    finally:
        shutil.rmtree(base, ignore_errors=True)
    assert result["ok"] is True
    assert result["model"] == "net"
    assert set(steps.seconds) >= {"the first result", "doctor on every machine"}
    assert "a small network, drawn for this" in shown
    assert proof["frames_in"] == proof["results"] == proof["bit_equal"] == 9
    print(f"{sum(steps.seconds.values()):.1f} s", steps.seconds)
