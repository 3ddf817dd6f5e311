"""Ten million mutated chunks, frames, journals, packages and .keras containers; prints what died of them, and memory.

    python -m benchmarks.fuzz_files [TOTAL] [--state FILE] [--kinds chunks,frames,...]

With a state file a run that was stopped goes on where it stopped. Shares of the total are by what an input costs.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from pipeline.allocator import keep_small
from tests.properties.fuzz_files import FileFuzz, kinds

SHARES = {"chunks": 0.62, "frames": 0.2, "packages": 0.08, "containers": 0.098, "journals": 0.002}
ROUNDS = 100
WARM_UP = 0.01
"""Of the run: until then caches fill."""


def main(arguments: list[str]) -> int:
    """Returns 1 if anything died or memory was not flat within 5 %."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("total", nargs="?", type=int, default=10_000_000)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--kinds", default=",".join(SHARES))
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    keep_small()  # as each node does: else glibc keeps up to 64 MB of what one large picture took
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory, prefix="trisect-fuzz-") as folder:
        known = kinds(Path(folder))
        chosen = [known[name] for name in options.kinds.split(",")]
        fuzz = FileFuzz(chosen)
        if options.state and options.state.exists():
            held = json.loads(options.state.read_text())
            fuzz.done, fuzz.refused, fuzz.deaths = (Counter(held[key]) for key in ("done", "refused", "deaths"))
        whole = sum(SHARES[kind.name] for kind in chosen)
        target = {kind.name: round(options.total * SHARES[kind.name] / whole) for kind in chosen}
        return _run(fuzz, target, options.state)


def _run(fuzz: FileFuzz, target: dict[str, int], state: Path | None) -> int:
    began, before, process = time.monotonic(), sum(fuzz.done.values()), psutil.Process()
    megabytes: list[float] = []
    for number in range(1, ROUNDS + 1):
        for kind in fuzz.kinds:
            fuzz.run(kind, max(0, target[kind.name] * number // ROUNDS - fuzz.done[kind.name]))
        done, took_s = sum(fuzz.done.values()), time.monotonic() - began
        if done - before >= WARM_UP * sum(target.values()):
            megabytes.append(process.memory_info().rss / 1e6)
        if state:
            held = {"done": fuzz.done, "refused": fuzz.refused, "deaths": fuzz.deaths}
            state.write_text(json.dumps(held))
        if megabytes:
            print(
                f"{done:>10,} read, {sum(fuzz.refused.values()):>10,} refused, {sum(fuzz.deaths.values())} deaths, "
                f"{megabytes[-1]:.1f} MB ({min(megabytes):.1f} to {max(megabytes):.1f}), {took_s:.0f} s",
                flush=True,
            )
    for kind in fuzz.kinds:
        print(f"{kind.name:>12} {fuzz.done[kind.name]:>10,} read, {fuzz.refused[kind.name]:>10,} refused")
    for why, count in fuzz.deaths.most_common():
        print(f"{count:>8} {why}")
    for why, (name, number) in fuzz.examples.items():
        print(f"         {name} {number}: {why}")
    grown = max(megabytes) / megabytes[0] - 1 if megabytes else 0.0
    print(f"memory: {grown:+.1%} at most since the warm-up")
    return int(bool(fuzz.deaths) or grown > 0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
