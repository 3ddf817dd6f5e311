"""Scission's own queries on its own data: the same best placements, or none where none is expected."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scission_queries import differences, query_of
from pipeline import scission

SHARED = Path(os.environ.get("TRISECT_SHARED") or Path(__file__).parents[3] / "shared")
DATA = SHARED / "data" / "scission"
QUERIES: list[dict[str, Any]] = (
    json.loads((DATA / "queries.json").read_text(encoding="utf-8")) if (DATA / "queries.json").is_file() else []
)
EVERYTHING = 10**6

pytestmark = pytest.mark.skipif(
    not QUERIES,
    reason=f"Scission's data is not at {DATA}; point TRISECT_SHARED to the directory that has data/scission",
)


@pytest.fixture(scope="module")
def systems() -> tuple[scission.System, ...]:
    return scission.load_systems(DATA)


def test_the_data_is_whole(systems: tuple[scission.System, ...]) -> None:
    assert len(QUERIES) == 58
    assert [(s.tier.label, s.name) for s in systems] == [
        ("device", "raspi4"),
        ("edge", "2500"),
        ("edge", "vm2Core"),
        ("cloud", "6700k(GPU)"),
        ("cloud", "6700k(NoGPU)"),
    ]


@pytest.mark.parametrize("entry", QUERIES, ids=lambda e: f"{e['model']}-{e['network']}-{' '.join(e['args'])}")
def test_a_query_has_the_expected_answers(entry: Mapping[str, Any], systems: tuple[scission.System, ...]) -> None:
    network = scission.read_network(DATA / entry["network"])
    answers = scission.search(systems, network, query_of(entry))
    everything = scission.search(systems, network, query_of(entry, top=EVERYTHING))
    assert differences(entry, answers, everything) == []
    if entry["no_result"]:
        assert scission.explain(systems, network, query_of(entry))
