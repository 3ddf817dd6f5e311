"""Files of others: ordinary ones of a bearable size are read, all else is an OSError at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.files import read_bounded


def test_a_file_is_read_whole_up_to_the_bound(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes; at most 4"):
        read_bounded(tmp_path / "a", 4)


def test_a_file_of_a_terabyte_costs_nothing(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="1,099,511,627,776"):
        read_bounded(tmp_path / "sparse", 1 << 20)


@pytest.mark.timeout(20)
def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="no ordinary file"):
            read_bounded(path, 10)
    with pytest.raises(IsADirectoryError):
        read_bounded(tmp_path, 10)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none", 10)
