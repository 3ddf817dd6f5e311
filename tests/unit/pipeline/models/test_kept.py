"""Kept packages: those used longest ago go, and none that a process has open."""

import gc
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import folders
from pipeline.errors import ConfigError, ModelError
from pipeline.graph import Block, ModelGraph, Tensor
from pipeline.lite.package import Draft, write
from pipeline.lite.program import Op
from pipeline.models import kept, store
from pipeline.models.source import ModelSource

GRAPH = ModelGraph(
    "small",
    "a" * 32,
    (Tensor(0, "image", (1, 8), "float32"), Tensor(1, "relu", (1, 8), "float32")),
    (Block(0, "input", "input", (), (), (0,)), Block(1, "relu", "relu", ("relu",), (0,), (1,), 0, 0)),
    (0,),
    (1,),
)
HOLDS = """
import sys
from pathlib import Path
from pipeline.models import kept
package = kept.opened(Path(sys.argv[1]), None)
print("open", flush=True)
sys.stdin.read()
"""
PRUNES = """
import sys
from pathlib import Path
from pipeline.models import kept
print(sorted(path.name for path in kept.prune(Path(sys.argv[1]), float(sys.argv[2]))), flush=True)
"""


def put(folder: Path, name: str, *, age_s: float) -> Path:
    path = folder / f"{name}.trisect"
    write(path, Draft(GRAPH, ((), (Op("relu", (0,), (1,), (), {}),)), ()), {})
    os.utime(path, (time.time() - age_s, time.time() - age_s))
    return path


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """Packages of one size, the oldest first."""
    return [put(tmp_path, name, age_s=age_s) for name, age_s in (("z", 300.0), ("y", 200.0), ("x", 100.0))]


@pytest.fixture
def size(three: list[Path]) -> int:
    return three[0].stat().st_size


@pytest.fixture
def holder(three: list[Path]) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has the oldest package open."""
    command = [sys.executable, "-c", HOLDS, str(three[0])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        os.utime(three[0], (0, 0))  # opening it made it the latest
        yield process
        process.kill()


def test_nothing_goes_while_all_have_room(tmp_path: Path, three: list[Path], size: int) -> None:
    assert kept.prune(tmp_path, 3 * size) == []
    assert all(path.exists() for path in three)


def test_those_used_longest_ago_go_first(
    tmp_path: Path, three: list[Path], size: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert kept.prune(tmp_path, 1.5 * size) == three[:2]
    assert list(tmp_path.iterdir()) == [three[2]]
    assert "for TRISECT_PACKAGES_GB: z.trisect, y.trisect" in caplog.text


def test_use_makes_a_package_the_latest(tmp_path: Path, three: list[Path], size: int) -> None:
    assert kept.opened(three[0], None) is not None
    gc.collect()
    assert kept.prune(tmp_path, 2 * size) == [three[1]]


def test_what_another_process_has_open_stays_until_it_dies(
    tmp_path: Path, three: list[Path], size: int, holder: "subprocess.Popen[str]"
) -> None:
    assert kept.prune(tmp_path, 2 * size) == [three[1]]
    assert kept.prune(tmp_path, 0) == [three[2]]
    assert three[0].exists()
    holder.kill()
    holder.wait()
    assert kept.prune(tmp_path, 0) == [three[0]]


def test_what_this_process_has_open_stays_as_long_as_the_package_lives(tmp_path: Path, three: list[Path]) -> None:
    package = kept.opened(three[1], "named")
    assert package is not None
    assert package.graph.name == "named"
    assert kept.prune(tmp_path, 0) == [three[0], three[2]]
    del package
    gc.collect()
    assert kept.prune(tmp_path, 0) == [three[1]]


def test_processes_that_prune_at_once_remove_no_more_than_has_to_go(tmp_path: Path) -> None:
    made = [put(tmp_path, f"p{index:02}", age_s=1000.0 - index) for index in range(40)]
    size = made[0].stat().st_size
    command = [sys.executable, "-c", PRUNES, str(tmp_path), str(10 * size)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[0] != "" for process in processes] == [True] * 4
    assert all(process.returncode == 0 for process in processes)
    assert sorted(tmp_path.iterdir()) == made[30:]


def test_left_overs_of_dead_processes_go_after_a_day_and_young_ones_stay(tmp_path: Path) -> None:
    names = (".a.trisect-1", "a.lock", ".b.trisect-2", "b.lock")
    for name in names:
        (tmp_path / name).touch()
    for name in names[:2]:
        os.utime(tmp_path / name, (time.time() - 90_000, time.time() - 90_000))
    assert kept.prune(tmp_path, 0) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.trisect-2", "b.lock"]


def test_a_package_that_is_not_there_is_none_and_a_damaged_one_an_error(tmp_path: Path) -> None:
    assert kept.opened(tmp_path / "none.trisect", None) is None
    (tmp_path / "bad.trisect").write_bytes(b"no package")
    with pytest.raises(ModelError, match="is no package"):
        kept.opened(tmp_path / "bad.trisect", None)
    assert kept.prune(tmp_path, 0) == [tmp_path / "bad.trisect"]  # nothing holds it


@pytest.mark.parametrize(("text", "found"), [("", 10e9), ("0", 0.0), ("2.5", 2.5e9), ("inf", float("inf"))], ids=str)
def test_the_limit_is_in_gigabytes(text: str, found: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRISECT_PACKAGES_GB", text)
    assert kept.limit_bytes() == found


@pytest.mark.parametrize("text", ["-1", "nan", "10 GB"])
def test_a_limit_that_is_none_is_refused_with_what_may_stand_there(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRISECT_PACKAGES_GB", text)
    with pytest.raises(
        ConfigError, match=f"TRISECT_PACKAGES_GB is {json.dumps(text)[1:-1]!r}; gigabytes of at least 0"
    ):
        kept.limit_bytes()


def test_a_new_package_makes_room_for_itself_and_is_not_what_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TRISECT_PACKAGES_GB", "0")
    monkeypatch.setattr(store, "make", lambda source, path: put(path.parent, path.stem, age_s=0.0))
    folders.packages().mkdir(parents=True)
    old = put(folders.packages(), "old", age_s=10.0)
    package = store.load(ModelSource("mobilenet_v2", "mobilenet_v2"))
    assert not old.exists()
    assert package.path.exists()
    assert store.load(ModelSource("mobilenet_v2", "mobilenet_v2")).path == package.path
