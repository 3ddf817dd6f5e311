"""What equal bits on every processor cost, and which engine is faster: unsplit networks, in turns in one process each.

    python benchmarks/forms.py [MODEL ...] [--runs 40] [--json rows.json]

Processor seconds of a run (one thread), medians: LiteRT in plain forms, in canonical forms, and TensorFlow.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.models import PAPERS

SECONDS = 40.0
"""A slow network runs less often, but at least seven times."""
LEAST_RUNS = 7


def main() -> None:
    """Measure the networks named, or both papers', and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(PAPERS))
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.runs)))
        return
    rows = []
    for name in arguments.models:
        command = [sys.executable, __file__, "--one", name, "--runs", str(arguments.runs)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.strip().splitlines()[-1])
        rows.append(row)
        auto = row["canonical"] / min(row["canonical"], row["tensorflow"])
        print(
            f"{name:20s} plain {row['plain'] * 1e3:7.1f} ms, canonical {row['canonical'] * 1e3:7.1f} ms "
            f"({row['canonical_over_plain']:.3f}), tensorflow {row['tensorflow'] * 1e3:7.1f} ms; auto {auto:.2f}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(name: str, most: int) -> dict[str, Any]:
    """Medians of one network, and the median of the ratios of neighbouring runs."""
    from pipeline import engines
    from pipeline.engines.answers import frame
    from pipeline.models.load import load
    from pipeline.models.source import ModelSource

    tensorflow = engines.create("tensorflow", 1)
    model = load(ModelSource(name, name))
    given = frame(model.graph, 0)
    runs = {
        "plain": engines.unsplit(engines.create("litert", 1, everywhere=False), model),
        "canonical": engines.unsplit(engines.create("litert", 1), model),
        "tensorflow": engines.unsplit(tensorflow, model),
    }
    taken: dict[str, list[float]] = {key: [] for key in runs}
    began = time.monotonic()
    while len(taken["plain"]) < LEAST_RUNS or (len(taken["plain"]) < most and time.monotonic() - began < SECONDS):
        for key, segment in runs.items():
            before = time.process_time()
            segment.run(given)
            taken[key].append(time.process_time() - before)
    ratio = statistics.median(c / p for c, p in zip(taken["canonical"], taken["plain"], strict=True))
    return {"model": name, "canonical_over_plain": ratio} | {k: statistics.median(v) for k, v in taken.items()}


if __name__ == "__main__":
    main()
