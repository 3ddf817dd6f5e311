"""Mutated MQTT streams, cut anywhere, into the codec of bulk connections; prints what died of them.

    python -m benchmarks.fuzz_codec [STREAMS] [SEED]

Memory is printed as well: it stays flat, since what a peer claims is bounded before anything is allocated.
"""

from __future__ import annotations

import sys
import time

import psutil

from tests.properties.mqtt_fuzz import CodecFuzz

BATCH = 50_000


def main(streams: int = 1_000_000, seed: int = 0) -> int:
    """Returns how many kinds of death there were."""
    began, process, fuzz = time.monotonic(), psutil.Process(), CodecFuzz(seed)
    while fuzz.streams < streams:
        fuzz.run(min(BATCH, streams - fuzz.streams))
        packets, refused, deaths = (sum(counts.values()) for counts in (fuzz.packets, fuzz.refused, fuzz.deaths))
        print(
            f"{fuzz.streams:>9,} streams, {packets:>9,} packets, {refused:>9,} refused in {len(fuzz.refused)} ways, "
            f"{deaths} deaths, {process.memory_info().rss / 1e6:.0f} MB, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    for name, count in fuzz.deaths.most_common():
        print(f"{count:>6} {name}\n       {fuzz.examples[name][:200]!r}")
    return len(fuzz.deaths)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])) > 0)
