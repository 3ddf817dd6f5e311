"""Which processors are promised equal bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engines import promise

X86 = "processor : 0\ncpu family\t: {family}\nmodel\t\t: {model}\nflags\t\t: sse2 {flags}\n\nprocessor : 1\n"


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    for known in (promise.processor, promise._cpuinfo):
        known.cache_clear()
    yield
    for known in (promise.processor, promise._cpuinfo):
        known.cache_clear()


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "processor", "known", "in_order"),
    [
        ("x86_64", X86.format(family=25, model=1, flags="avx2 fma"), "x86_64 avx2 fma", True, True),
        ("x86_64", X86.format(family=6, model=85, flags="fma avx2 avx512f"), "x86_64 avx2 avx512f fma", True, True),
        ("x86_64", X86.format(family=6, model=42, flags="avx"), "x86_64", False, True),
        ("x86_64", X86.format(family=23, model=1, flags="avx2 fma"), "x86_64 avx2 fma zen1", False, False),
        ("x86_64", X86.format(family=23, model=49, flags="avx2 fma"), "x86_64 avx2 fma", True, True),
        ("aarch64", "processor : 0\nCPU part : 0xd08\n", "aarch64", True, False),
        ("armv7l", "processor : 0\n", "armv7l", False, False),
    ],
)
def test_processors_are_told_apart_by_what_chooses_kernels(
    machine: str,
    cpuinfo: str,
    processor: str,
    known: bool,
    in_order: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(promise, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert (promise.processor(), promise.is_known(), promise.sums_in_order()) == (processor, known, in_order)


def test_a_machine_that_tells_nothing_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promise, "_CPUINFO", tmp_path / "none")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert not promise.is_known()
