"""The demo, small: it must prove itself, and say so in its exit code and its numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def test_the_demo_proves_itself(tmp_path: Path) -> None:
    numbers = tmp_path / "demo.json"
    command = [
        sys.executable,
        "-m",
        "nodes.cli",
        "demo",
        "--model",
        "resnet18",
        "--frames",
        "18",
        "--json",
        str(numbers),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    proof = json.loads(numbers.read_text())
    assert proof["frames_in"] == proof["results"] == proof["bit_equal"] == 18
    assert proof["lost"] == proof["duplicates"] == 0
    assert proof["plan_changes"] >= 2
    assert proof["tiers_used"] == ["device", "edge", "cloud"]
    assert "18 bit-equal to the unsplit model" in " ".join(run.stdout.split())


def test_the_demo_refuses_an_unknown_model() -> None:
    command = [sys.executable, "-m", "nodes.cli", "demo", "--model", "mobilenet_v9"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 1
    assert "did you mean mobilenet_v2" in run.stderr
    assert "Traceback" not in run.stderr
