"""How long the light commands take to start: fresh processes that import what each command imports, medians of nine.

Run: python benchmarks/startup.py [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPEATS = 9
MODULES = {
    "planner": "nodes.cli, nodes.config, nodes.planner_node, scipy.optimize",  # SciPy with the first plan
    "watch": "nodes.cli, nodes.config, nodes.watch",
    "plan, place, publish": "nodes.cli, nodes.config, nodes.requests, nodes.plan_view",
    "--help": "nodes.cli",
}
CHECK = "import sys; assert not {'tensorflow', 'keras'} & set(sys.modules)"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    seconds = {command: started(modules) for command, modules in MODULES.items()}
    for command, taken in seconds.items():
        print(f"trisect {command:22s} {taken * 1e3:6.0f} ms")
    if arguments.json:
        arguments.json.write_text(json.dumps({"seconds": seconds}, indent=2) + "\n")


def started(modules: str) -> float:
    """Median seconds of a process that imports them and ends."""
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {modules}; {CHECK}"], check=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
