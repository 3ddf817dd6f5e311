"""Which blocks of the zoo's networks LiteRT runs as operations of ours, and how near its answers are to TensorFlow's.

    python benchmarks/coverage.py [MODEL ...] [--lower] [--json rows.json]

One process for each network. `--lower` counts blocks only: the largest networks take minutes to run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.models import ZOO


def main() -> None:
    """Measure the networks named, or all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(ZOO))
    parser.add_argument("--lower", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, runs=not arguments.lower)))
        return
    rows = [_in_a_process(name, arguments.lower) for name in arguments.models]
    table = Table("network", "blocks", "ours", "converted", "error", "same top", box=None)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def _in_a_process(name: str, lower: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", name, *(["--lower"] if lower else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"model": name, "blocks": "-", "ours": "-", "foreign": done.stderr.strip().splitlines()[-1][:60]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(name: str, *, runs: bool) -> dict[str, Any]:
    """Blocks of one network by how they run; largest difference of the answers, as a share of the largest value."""
    import numpy as np

    from pipeline import engines
    from pipeline.engines.answers import frame
    from pipeline.models.load import load
    from pipeline.models.source import ModelSource
    from pipeline.prepare.lowering import lower

    tensorflow = engines.create("tensorflow", 1)
    model = load(ModelSource(name, name))
    blocks = lower(model).blocks
    foreign = sum(any(op.kind == "foreign" for op in ops) for ops in blocks)
    row = {"model": name, "blocks": len(blocks), "ours": len(blocks) - foreign, "foreign": foreign}
    if not runs:
        return row | {"error": "", "same_top": ""}
    given = frame(model.graph, 0)
    whole = [engines.unsplit(engine, model).run(given) for engine in (tensorflow, engines.create("litert", 1))]
    pairs = [(whole[0][i], whole[1][i]) for i in model.graph.outputs]
    error = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)
    return row | {"error": f"{error:.1e}", "same_top": all(int(a.argmax()) == int(b.argmax()) for a, b in pairs)}


if __name__ == "__main__":
    main()
