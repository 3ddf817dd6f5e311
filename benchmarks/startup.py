"""How long commands take to start: fresh processes that import what each command imports, medians of nine.

Light ones load no TensorFlow. What a node loads is timed beside the same packages imported as they come.

Run: python benchmarks/startup.py [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

REPEATS = 9
MODULES = {
    "planner": "nodes.cli.app, nodes.config.loader, nodes.planner.node, scipy.optimize",  # SciPy with the first plan
    "watch": "nodes.cli.app, nodes.config.loader, nodes.watch.app",
    "plan, place, publish": "nodes.cli.app, nodes.config.loader, nodes.client.requests, nodes.cli.tables",
    "node, until it loads models": "nodes.cli.app, nodes.config.loader, nodes.tier.node",
    "--help": "nodes.cli.app",
}
ENGINES = {"as they come": "keras, tensorflow", "as a node loads them": "pipeline.tensorflow_runtime"}
CHECK = "import sys; assert not {'tensorflow', 'keras'} & set(sys.modules)"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    light = started({command: f"{modules}; {CHECK}" for command, modules in MODULES.items()})
    engines = started(ENGINES)
    for command, taken in light.items():
        print(f"trisect {command:28s} {taken * 1e3:6.0f} ms")
    for how, taken in engines.items():
        print(f"TensorFlow and Keras {how:21s} {taken * 1e3:6.0f} ms")
    if arguments.json:
        arguments.json.write_text(json.dumps({"seconds": light | engines}, indent=2) + "\n")


def started(imports: Mapping[str, str]) -> dict[str, float]:
    """Median seconds of processes that import each of these and end; one after the other, again and again."""
    taken: dict[str, list[float]] = {name: [] for name in imports}
    for _ in range(REPEATS):
        for name, modules in imports.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {modules}"], check=True, stderr=subprocess.DEVNULL)
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


if __name__ == "__main__":
    main()
