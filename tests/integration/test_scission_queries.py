"""Scission's own queries on its own data: the same best placements, or none where none is expected."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scission_queries import differences, query_of
from pipeline import scission
from pipeline.cost import Costs, Link
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.partition.priced_plan import NodeSet
from pipeline.partition.search import choose
from pipeline.placement import Tier

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


@pytest.mark.parametrize("entry", [e for e in QUERIES if not e["args"]], ids=lambda e: f"{e['model']}-{e['network']}")
def test_the_exact_plan_is_never_worse_than_scissions_best_five(
    entry: Mapping[str, Any], systems: tuple[scission.System, ...]
) -> None:
    """On its blocks, systems and links; without the answer's way back, which Scission does not count."""
    network = scission.read_network(DATA / entry["network"])
    found = choose(chain_of(systems[0].models[entry["model"]]), list(node_sets(systems, network, entry["model"])))[0]
    assert found.predicted.seconds <= entry["top"][0]["seconds"] + 1e-4


def chain_of(blocks: scission.Blocks) -> ModelGraph:
    """Scission's blocks behind an input of 0.15 MB, which is also the output, so that none comes back."""
    sizes = (int(scission.INPUT_BYTES), *blocks.output_bytes)
    tensors = tuple(Tensor(i, f"t{i}", (1, size), "uint8") for i, size in enumerate(sizes))
    chain = (Block(i, f"b{i}", "chain", (), (i - 1,) if i else (), (i,)) for i in range(len(sizes)))
    return ModelGraph("chain", "", tensors, tuple(chain), (0,), (0,))


def node_sets(systems: tuple[scission.System, ...], network: scission.Network, model: str) -> Iterator[NodeSet]:
    """All combinations; past the edge, a device has its own link to the cloud."""
    by_tier = {tier: [s for s in systems if s.tier is tier] for tier in Tier}
    nothing_in_the_way = Link(float("inf"), 0.0)
    for nodes in product(by_tier[Tier.DEVICE], [*by_tier[Tier.EDGE], None], [*by_tier[Tier.CLOUD], None]):
        used = {system.tier: system for system in nodes if system is not None}
        device, above = used[Tier.DEVICE], [used[t] for t in (Tier.EDGE, Tier.CLOUD) if t in used]
        first = network.link(device.name, above[0].name) if above else nothing_in_the_way
        both = len(above) == len((Tier.EDGE, Tier.CLOUD))
        second = network.link(above[0].name, above[1].name) if both else nothing_in_the_way
        seconds = {tier: (0.0, *system.models[model].seconds) for tier, system in used.items()}
        yield NodeSet({tier: system.name for tier, system in used.items()}, Costs(seconds, first, second))
