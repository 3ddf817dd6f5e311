"""Options are checked before any work begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from nodes.cli.app import app

PLAN = ["plan", "mobilenet_v2", "--nodes", "d3-wifi"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*PLAN, "--energy-limit", "nan"], "nan is not a finite number"),
        (["watch", "--once", "--timeout-s", "inf"], "inf is not a finite number"),
        ([*PLAN, "--map", "nowhere/map.svg"], "there is no folder nowhere"),
        ([*PLAN, "--json", "."], ". is a folder; give a file"),
        (["trace", "-o", "nowhere/trace.json"], "there is no folder nowhere"),
        (["trace", "-o", "astray.json"], "there is no folder /nowhere"),
        (["plan", "--front", "latency,energy", "--map", "x.svg"], "--map, --front: only with MODEL"),
        (["plan", "--exclude", "edge-1"], "--exclude: only with MODEL"),
    ],
)
def test_an_option_that_cannot_do_what_it_says_is_refused_at_once(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("astray.json").symlink_to("/nowhere/trace.json")
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 2, ended.output
    assert said in ended.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--exclude", "nobody"], "no node nobody; those of the configuration are gpu-server"),
        (["--upload-limit", "device_edge=1", "--upload-limit", "device_edge=2"], "device_edge is given as 1 and as 2"),
        (["--min-depth", "400"], "min_depth 400 is more than the 67 blocks of mobilenet_v2"),
        (["--objective", "latency=0"], "one of them above, and here all are 0"),
        (["--exclude", "raspberry-pi-4"], "raspberry-pi-4 is where the frames enter"),
        (["--objective", "price"], "planned by price, and no node has price_per_s"),
    ],
)
def test_a_constraint_that_says_nothing_about_the_model_or_its_nodes_is_refused(options: list[str], said: str) -> None:
    assert said in str(CliRunner().invoke(app, [*PLAN, *options]).exception)
