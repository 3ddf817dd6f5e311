"""The tables of `benchmarks/headline.py`: ratios to the best baseline, bytes on the backbone, predictions."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

SINGLE = frozenset({"device-only", "edge-only", "cloud-only"})
READINGS = {"a": "a: every planner may send the photo, and codecs", "b": "b: baselines send float32, as published"}
WITHIN = 0.1


def seconds(case: Mapping[str, Any], planner: str) -> float:
    """A planner's latency in a case: the median of its plan's rounds."""
    return statistics.median(case["plans"][case["chosen"][planner]]["rounds"])


def baselines(case: Mapping[str, Any], reading: str) -> dict[str, float]:
    """Latency of each baseline in a reading."""
    return {name[:-2]: seconds(case, name) for name in case["chosen"] if name[-1] == reading and name[:-2] != "exact"}


def ratio(case: Mapping[str, Any], reading: str) -> float:
    """The best baseline's latency by that of the exact plan."""
    return min(baselines(case, reading).values()) / seconds(case, "exact a")


def backbone(case: Mapping[str, Any], planner: str) -> int:
    """Bytes of a frame between edge and cloud."""
    return int(case["plans"][case["chosen"][planner]]["backbone_bytes"])


def backbone_ratio(case: Mapping[str, Any], reading: str) -> float | None:
    """The fewest bytes of a baseline that is as quick as the exact plan, by the exact plan's; None if none is."""
    exact_s, exact = seconds(case, "exact a"), backbone(case, "exact a")
    able = [backbone(case, f"{n} {reading}") for n, s in baselines(case, reading).items() if s <= exact_s * 1.02]
    fewest = min(able, default=None)
    if fewest is None:
        return None
    return fewest / exact if exact else (float("inf") if fewest else 1.0)


def predictions(case: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Predicted by measured seconds, less 1, of each planner in both readings."""
    for planner, key in case["chosen"].items():
        plan = case["plans"][key]
        yield planner, plan["predicted_s"] / statistics.median(plan["rounds"]) - 1


def line(key: str, case: Mapping[str, Any]) -> str:
    """A case in a line."""
    exact = seconds(case, "exact a")
    bests = {r: min(baselines(case, r).items(), key=lambda pair: pair[1]) for r in READINGS}
    words = ", ".join(f"{r}: {name} {s * 1e3:.1f} ms ({s / exact:.2f})" for r, (name, s) in bests.items())
    return f"{key}: exact {exact * 1e3:.1f} ms ({case['chosen']['exact a'][:90]}); {words}"


def show(cases: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Print what the cases say."""
    for edges in sorted({key.rpartition("/")[2] for key in cases}, reverse=True):
        mine = {key: case for key, case in cases.items() if key.endswith(f"/{edges}")}
        console.print(_cases(mine, edges))
        console.print(_summary(mine, edges))
    if live := {key: case for key, case in cases.items() if "replayed" in case}:
        console.print(_agreement(live))


def _cases(cases: Mapping[str, Mapping[str, Any]], edges: str) -> Table:
    table = Table(title=f"{edges} edge nodes: milliseconds a frame, +- over rounds")
    for column in ("case", "exact", "best a", "a / exact", "best b", "b / exact", "period exact", "predicted", "kB"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for key, case in cases.items():
        plan = case["plans"][case["chosen"]["exact a"]]
        rounds = plan["rounds"]
        spread = statistics.stdev(rounds) if len(rounds) > 1 else 0.0
        cells = [key, f"{seconds(case, 'exact a') * 1e3:.1f} +- {spread * 1e3:.1f}"]
        for reading in READINGS:
            name, best = min(baselines(case, reading).items(), key=lambda pair: pair[1])
            cells += [f"{name} {best * 1e3:.1f}", f"{ratio(case, reading):.2f}"]
        period = plan["period_s"]
        cells += [f"{period * 1e3:.1f}" if period else "-", f"{plan['predicted_s'] * 1e3:.1f}"]
        table.add_row(*cells, f"{plan['backbone_bytes'] / 1e3:.1f}")
    return table


def _summary(cases: Mapping[str, Mapping[str, Any]], edges: str) -> Table:
    table = Table(title=f"{edges} edge nodes, {len(cases)} cases")
    table.add_column("what")
    for words in READINGS.values():
        table.add_column(words, justify="right")
    ratios = {reading: [ratio(case, reading) for case in cases.values()] for reading in READINGS}
    for what, of in (("best case", max), ("median", statistics.median), ("least", min)):
        table.add_row(f"latency, best baseline / exact: {what}", *(f"{of(ratios[r]):.2f}" for r in READINGS))
    bytes_of = {r: [b for case in cases.values() if (b := backbone_ratio(case, r)) is not None] for r in READINGS}
    cells = (f"{max(found):.2f} of {len(found)} cases" if found else "no baseline is" for found in bytes_of.values())
    table.add_row("backbone bytes, of baselines as quick / exact: best case", *cells)
    off = [abs(value) for case in cases.values() for planner, value in predictions(case) if planner[-1] == "a"]
    both = [abs(value) for case in cases.values() for _, value in predictions(case)]
    table.add_row("predictions within 10 %", *(f"{_share(values)}" for values in (off, both)))
    return table


def _agreement(cases: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="plans that both ran: live, and a replay of the nodes' own block times under the same quotas")
    for column in ("case", "plan", "live ms", "replay ms", "replay / live"):
        table.add_column(column, justify="left" if column in ("case", "plan") else "right")
    for key, case in cases.items():
        for plan in case["plans"].keys() & case["replayed"]["plans"].keys():
            live, replay = (statistics.median(c["plans"][plan]["rounds"]) for c in (case, case["replayed"]))
            table.add_row(key, plan[:70], f"{live * 1e3:.0f}", f"{replay * 1e3:.0f}", f"{replay / live:.3f}")
    return table


def _share(off: list[float]) -> str:
    good = sum(value <= WITHIN for value in off)
    return f"{good} of {len(off)} ({good / len(off):.0%}), median {statistics.median(off):.1%} off"
