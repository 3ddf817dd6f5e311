"""Installs the wheel of this checkout as pip would, in a second: made, unpacked and compiled once, then copied.

What it needs is taken from where the tests run, and nothing else of that is there: a package that the wheel does not
name as its dependency cannot be imported.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

from benchmarks.ten_minutes import ROOT, Install, Machine

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
START = """#!{python}
import sys

from nodes.cli.app import main

sys.exit(main())
"""


def foreign_python() -> str | None:
    """An interpreter of this version that any user may run, None where there is none."""
    # by way of a shell: what setpriv executes itself may still lie where only root may go
    user = (
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "sh",
        "-c",
        '"$0" -c "import ctypes, ssl, venv"',
    )
    for path in (os.path.realpath(sys.executable), *map(str, (f"/usr/bin/{PYTHON}", f"/usr/local/bin/{PYTHON}"))):
        try:
            done = subprocess.run([*user, path], capture_output=True, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            return path
    return None


def by_copy(folder: Path, python: str) -> Install:
    """Make the wheel, and what it needs, once; `folder` is one that all users may enter."""
    folder.mkdir()
    made = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    (wheel,) = folder.glob("trisect-*.whl")
    own, others = folder / "own", folder / "others"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(own)
    subprocess.run([python, "-m", "compileall", "-q", str(own)], check=True)
    (info,) = own.glob("trisect-*.dist-info")
    for needed in _closure(Distribution.at(info), "enrol").values():
        _link(needed, others)

    def install(machine: Machine, extra: str) -> None:
        machine.run(python, "-m", "venv", "--without-pip", "trisect")
        packages = machine.home / "trisect" / "lib" / PYTHON / "site-packages"
        shutil.copytree(own, packages, dirs_exist_ok=True)
        (packages / "others.pth").write_text(f"{others}\n")
        program = Path(machine.trisect)
        program.write_text(START.format(python=program.parent / "python"))
        program.chmod(0o755)

    return install


def _closure(root: Distribution, extra: str) -> dict[str, Distribution]:
    """All distributions that `root` with this extra needs, by name."""
    found: dict[str, Distribution] = {}
    waiting = [(root, {"", extra})]
    while waiting:
        each, extras = waiting.pop()
        for text in each.requires or ():
            needed = Requirement(text)
            if needed.marker is not None and not any(needed.marker.evaluate({"extra": one}) for one in extras):
                continue
            if needed.name.lower() not in found:
                found[needed.name.lower()] = distribution(needed.name)
                waiting.append((found[needed.name.lower()], {"", *needed.extras}))
    return found


def _link(needed: Distribution, target: Path) -> None:
    """Link a distribution's files, compiled ones too, into a folder; copy them where that is another file system."""
    site = Path(str(needed.locate_file("")))
    for file in needed.files or ():
        source, link = site / file, target / file
        if ".." in file.parts or not source.is_file():
            continue  # a program, which nobody runs here
        link.parent.mkdir(parents=True, exist_ok=True)
        for one, other in ((source, link), (_compiled(source), _compiled(link))):
            if one.exists() and not other.exists():
                other.parent.mkdir(exist_ok=True)
                try:
                    os.link(one, other)
                except OSError:
                    shutil.copy2(one, other)


def _compiled(source: Path) -> Path:
    return source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
