"""Measured systems and a network table, as files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pipeline import scission
from pipeline.scission import Network
from tests.unit.pipeline.scission.test_scission import SECONDS, TABLE, _json, _Measured


@pytest.fixture
def network(tmp_path: Path) -> Network:
    path = tmp_path / "network.csv"
    path.write_text(TABLE)
    return scission.read_network(path)


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    directory = tmp_path / "profiles"
    directory.mkdir()
    for tier, name in SECONDS:
        (directory / f"{tier.label}-{name}.json").write_text(json.dumps(_json(tier, name)))
    return directory


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> type[_Measured]:
    monkeypatch.setattr(sys.modules["__main__"], "LayerBenchmark", _Measured, raising=False)
    return _Measured
