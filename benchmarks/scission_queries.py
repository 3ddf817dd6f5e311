"""Scission's own queries on its own data: milliseconds of each after loading, seconds of all with loading, agreement.

A query is read from its words, searched, and explained where nothing is left. Agreement is with the expected answers
beside the data, ties in any order.

Run: python benchmarks/scission_queries.py [DIR] (default ../shared/data/scission) [--repeats N] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from pipeline import scission
from pipeline.placement import Tier
from pipeline.scission.filters import MEGABYTE

MOST_QUERY_MS, MOST_ALL_S = 20.0, 3.0
TOLERANCE = 1e-4
_TIERS = {"-d": Tier.DEVICE, "-e": Tier.EDGE, "-c": Tier.CLOUD}

Row: TypeAlias = tuple[float, float, tuple[object, ...]]


def main() -> None:
    """Measure and print."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=Path("../shared/data/scission"))
    parser.add_argument("--repeats", type=int, default=1, help="of each query; the median counts")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args()
    queries = json.loads((arguments.directory / "queries.json").read_text(encoding="utf-8"))
    systems = scission.load_systems(arguments.directory)
    networks = {
        name: scission.read_network(arguments.directory / name) for name in sorted({q["network"] for q in queries})
    }
    loaded = time.perf_counter()
    took, wrong = [], []
    for number, entry in enumerate(queries):
        times = []
        for _ in range(arguments.repeats):
            start = time.perf_counter()
            query = query_of(entry)
            answers = scission.search(systems, networks[entry["network"]], query)
            if not answers:
                scission.explain(systems, networks[entry["network"]], query)
            times.append(time.perf_counter() - start)
        took.append(1e3 * statistics.median(times))
        everything = scission.search(systems, networks[entry["network"]], query_of(entry, top=10**6))
        wrong += [f"query {number} {d}" for d in differences(entry, answers, everything)]
    # What comparing takes is not counted; loading and each query once is.
    all_s = loaded - began + sum(took) / 1e3
    worst = max(range(len(took)), key=lambda index: took[index])
    print(f"{len(queries)} queries, {len(systems)} systems, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"a query after loading: median {statistics.median(took):.2f} ms, worst {took[worst]:.2f} ms", end="")
    print(f" (query {worst}, {queries[worst]['model']}; at most {MOST_QUERY_MS:g})")
    print(f"all: {all_s:.3f} s, of which loading {loaded - began:.3f} s (at most {MOST_ALL_S:g})")
    print("\n".join(wrong) or "all answers as expected")
    if arguments.json:
        numbers = {"query_ms": took, "load_s": loaded - began, "all_s": all_s, "wrong": wrong}
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def query_of(entry: Mapping[str, Any], top: int = scission.TOP) -> scission.Query:
    """A query of the file, from the words of Scission's command line."""
    filters: list[scission.Filter] = []
    input_bytes = scission.INPUT_BYTES
    for option, _, text in (word.partition("=") for word in entry["args"]):
        if option in _TIERS:
            filters += scission.tier_filters(_TIERS[option], [text])
        elif option == "-i":
            input_bytes = float(text) * MEGABYTE
        else:
            label, _, kind = option.removeprefix("--").partition("-")
            tier = Tier.named(label)
            one = scission.upload_filter(tier, float(text)) if kind == "upload" else scission.time_filter(tier, text)
            filters.append(one)
    return scission.Query(entry["model"], tuple(filters), input_bytes, top)


def differences(
    entry: Mapping[str, Any], answers: Sequence[scission.Answer], everything: Sequence[scission.Answer]
) -> list[str]:
    """In what the answers differ from those expected; `everything` is all that passes, to know the ties by."""
    expected, got, all_rows = [_expected(a) for a in entry["top"]], [_row(a) for a in answers], map(_row, everything)
    if len(expected) != len(got) or (not got) != entry["no_result"]:
        return [f"has {len(got)} answers, expected {len(expected)}"]
    found = {placement: (seconds, megabytes) for seconds, megabytes, placement in all_rows}
    wrong = []
    for rank, (mine, (seconds, megabytes, placement)) in enumerate(zip(got, expected, strict=True), start=1):
        if abs(mine[0] - seconds) > TOLERANCE:
            wrong.append(f"rank {rank}: {mine[0]} s, expected {seconds}")
        own = found.get(placement)
        if own is None or max(abs(own[0] - seconds), abs(own[1] - megabytes)) > TOLERANCE:
            wrong.append(f"rank {rank}: {placement} gives {own}, expected {(seconds, megabytes)}")
    wanted = {placement for _, _, placement in expected}
    last = max((seconds for seconds, _, _ in expected), default=0.0)
    extra = [row for row in got if row[2] not in wanted and row[0] < last - TOLERANCE]
    return wrong + [f"has {row}, which is not expected" for row in extra]


def _row(answer: scission.Answer) -> Row:
    return answer.seconds, answer.megabytes, tuple((s.system, s.layers) for s in answer.stages.values())


def _expected(value: Mapping[str, Any]) -> Row:
    """From Scission's words: inclusive layers, -1 to -1 for an unused tier and "None" for its system."""
    stages = []
    for tier in Tier:
        system, (first, last) = value[tier.label]["system"], value[tier.label]["layers"]
        stages.append((None if system == "None" else system, None if first < 0 else (first, last + 1)))
    return value["seconds"], value["megabytes"], tuple(stages)


if __name__ == "__main__":
    main()
