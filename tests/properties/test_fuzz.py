"""No message ends a process: 5,000 mutated ones, of all kinds, into living machines. A million: benchmarks/."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.effort import examples
from tests.properties.fuzz import Fuzz

MESSAGES = 5_000
KINDS = {"applied", "cmd", "info", "link", "model", "out", "plan", "profile", "result", "state", "telemetry"}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What the machines say of nonsense is of no interest here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", range(examples(1)))
@pytest.mark.timeout(120)
def test_machines_survive_whatever_is_sent_to_them(seed: int) -> None:
    fuzz = Fuzz(seed)
    fuzz.run(MESSAGES)
    assert not fuzz.deaths, {name: fuzz.examples[name] for name in fuzz.deaths}
    assert fuzz.sent.keys() >= KINDS
    assert sum(fuzz.sent.values()) == MESSAGES
    assert sum(fuzz.refused.values()) > 0
    assert fuzz.closed_total > 0, "no frame was answered: the machines did not live"
