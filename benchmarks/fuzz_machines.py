"""A million mutated messages of all kinds into the machines of a tier node and the planner; prints what died of them.

    python -m benchmarks.fuzz_machines [MESSAGES] [SEED]

Memory is printed as well: it stays flat, since the machines forget and refuse what is too much.
"""

from __future__ import annotations

import logging
import sys
import time

import psutil

from tests.properties.fuzz import Fuzz

BATCH = 20_000


def main(messages: int = 1_000_000, seed: int = 0) -> int:
    """Returns how many kinds of death there were."""
    logging.disable(logging.CRITICAL)
    began, process = time.monotonic(), psutil.Process()
    fuzz = Fuzz(seed)
    for done in range(BATCH, messages + BATCH, BATCH):
        fuzz.run(min(BATCH, messages - done + BATCH))
        sent, refused, deaths = (sum(counts.values()) for counts in (fuzz.sent, fuzz.refused, fuzz.deaths))
        took_s, megabytes = time.monotonic() - began, process.memory_info().rss / 1e6
        print(
            f"{sent:>9,} sent, {refused:>9,} refused, {fuzz.closed_total:>7,} frames answered, {deaths} deaths of "
            f"{len(fuzz.deaths)} kinds, {megabytes:.0f} MB, {took_s:.0f} s",
            flush=True,
        )
    for name, count in fuzz.deaths.most_common():
        topic, payload = fuzz.examples[name]
        print(f"{count:>6} {name}\n       {topic}: {payload[:200]!r}")
    return len(fuzz.deaths)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])) > 0)
