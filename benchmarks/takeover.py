"""How soon a slow device takes its whole network over, with it standing by and without.

The device has a fifth of a core, edge and cloud have what is left. Frames run, one in flight, with all blocks but the
first on the edge; then the whole network is placed on the device by hand, and back, again and again. Needs root.

    python benchmarks/takeover.py --json takeover.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

from benchmarks.network import Network
from benchmarks.testbed import CLOUD, DEVICE, EDGE, Testbed
from nodes.cli import demo
from nodes.client import requests
from pipeline.errors import TrisectError

SHARES = {DEVICE: 0.2, EDGE: 0.6, CLOUD: 0.9}
STANDING_BY_S, CALM_S = 120.0, 6.0
"""At most until the network stands by; between placements."""


def main() -> int:
    """The command line; 2 when this machine cannot do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report = {}
    for standby in (False, True):
        try:
            report["standing by" if standby else "compiled then"] = taken_over(
                arguments.model, arguments.repeats, standby
            )
        except TrisectError as error:
            print(f"not measured: {error}")
            return 2
    for how, rows in report.items():
        active, gaps = zip(*rows, strict=True)
        print(f"{how}: active after s {_listed(active)}; longest gap s {_listed(gaps)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def taken_over(model: str, repeats: int, standby: bool) -> list[tuple[float, float]]:
    """Seconds from each request until the device runs all blocks, and the longest seconds between results meanwhile."""
    with tempfile.TemporaryDirectory(prefix="trisect-takeover-") as folder, ExitStack() as stack:
        nodes = {node: {"tier": node.split("-")[0], "standby": standby} for node in SHARES}
        network = stack.enter_context(Network([DEVICE, CLOUD]))
        bed = Testbed(Path(folder), network, stack, model=model, nodes=nodes)
        bed.start(SHARES)
        if standby:
            log, give_up = bed.processes.log(DEVICE), time.monotonic() + STANDING_BY_S
            bed.wait(lambda: "standing by" in log.read_text() or time.monotonic() > give_up)
        with bed.feeding():
            return [_once(bed) for _ in range(repeats)]


def _once(bed: Testbed) -> tuple[float, float]:
    requests.place(bed.config, demo.STREAM, edge_from="1")
    time.sleep(CALM_S)
    began = time.monotonic()
    requests.place(bed.config, demo.STREAM)
    active = time.monotonic()
    time.sleep(CALM_S)
    arrivals = sorted(bed.client.collected.arrivals.values())
    return active - began, max(b - a for a, b in pairwise(arrivals) if b >= began and a <= active + 1.0)


def _listed(seconds: tuple[float, ...]) -> str:
    return f"{', '.join(f'{s:.2f}' for s in seconds)} (median {statistics.median(seconds):.2f})"


if __name__ == "__main__":
    sys.exit(main())
