"""Answers of whole networks on ARM cores under QEMU and on this x86 machine: equal to the bit, or not.

Makes an arm64 Python in the cache folder (the first time about a minute and 400 MB; apt installs mmdebstrap and
qemu-user), runs `trisect verify PACKAGE --fingerprint` in it for each core and natively, and writes the matrix to
docs/exactness.md. QEMU takes about 20 s for 10^9 multiply-accumulates, so a large network takes minutes a frame; what
was computed is kept, and a later call goes on from there. It is kept by what the code that writes segments does, too.

    python benchmarks/aarch64.py                          # all networks of the papers, four cores, one frame: hours
    python benchmarks/aarch64.py --models mobilenet_v2 resnet18 --cores a72 a53
    python benchmarks/aarch64.py --exact machine --models mobilenet_v2 --cores a72    # must differ
    python benchmarks/aarch64.py --blocks                 # block by block, in small tiles: minutes; names what differs
    python benchmarks/aarch64.py --tiles --models mobilenet_v2 --cores a72            # tiles against the whole
    python benchmarks/aarch64.py --node                   # a light node under QEMU as the device of a pipeline
    python benchmarks/aarch64.py --wheels                 # does every base dependency have wheels for aarch64?
    python benchmarks/aarch64.py --report                 # only write docs/exactness.md from what is kept
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.arm_machine import CHECKOUT, CORES, PYTHONS, ArmMachine, lacking
from pipeline import folders
from pipeline.engines.promise import is_known, processor
from pipeline.lite.package import Package
from pipeline.models import PAPERS, store
from pipeline.models.source import ModelSource

NATIVE = "x86"
FIRST = (
    *("mobilenet_v2", "efficientnet_b0", "resnet18", "densenet121"),
    *("resnet50", "darknet53", "inception_v4", "vgg16"),
)
"""The networks that issue 12 names, the cheap ones first."""
MODELS = tuple(dict.fromkeys((*FIRST, *PAPERS)))
DOCUMENT = CHECKOUT / "docs" / "exactness.md"
BEGIN, END = "<!-- aarch64: begin -->", "<!-- aarch64: end -->"
_DECIDES = ("pipeline/lite", "pipeline/verify/fingerprint.py", "pipeline/engines/answers.py")
"""Code on which a network's bits may depend."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One kind of run."""

    frames: int
    exact: str
    threads: int = 1

    def options(self) -> list[str]:
        """As `trisect verify` takes them."""
        return ["--frames", str(self.frames), "--exact", self.exact, "--threads", str(self.threads)]


class Kept:
    """Fingerprints that were computed, in a file: by processor, digest, what was asked, engine version and code."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, str | float]] = json.loads(path.read_text()) if path.exists() else {}

    @staticmethod
    def _key(processor_name: str, package: Path, asked: Asked) -> str:
        from importlib.metadata import version

        digest = Package(package).graph.digest
        parts = (processor_name, digest, *asked.options(), version("ai-edge-litert"), _code())
        return " ".join(parts)

    def get(self, processor_name: str, package: Path, asked: Asked) -> dict[str, str | float] | None:
        """`hash`, `seconds`, `date`, or None."""
        return self._known.get(self._key(processor_name, package, asked))

    def add(self, processor_name: str, package: Path, asked: Asked, found: str, seconds: float) -> None:
        """Keep one more, at once."""
        today = datetime.now(UTC).date().isoformat()
        entry: dict[str, str | float] = {"hash": found, "seconds": round(seconds, 1), "date": today}
        self._known[self._key(processor_name, package, asked)] = entry
        unfinished = self._path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(self._known, indent=1) + "\n")
        unfinished.replace(self._path)


def main() -> None:
    """Run what is asked; exit code 1 if something differs that should not."""
    asked = _arguments()
    folder = folders.cache() / "aarch64"
    if asked.wheels:
        sys.exit(show_wheels())
    machine = ArmMachine(folder)
    machine.make()
    if asked.node:
        from benchmarks.arm_node import run

        sys.exit(run(machine, asked.cores[0], asked.models[0] if asked.models else "mobilenet_v2", asked.frames))
    packages = {name: store.load(ModelSource(name, name, "seed:0")) for name in asked.models or MODELS}
    models = {name: package.path for name, package in packages.items()}  # which stay there while they are open here
    if asked.blocks:
        sys.exit(show_blocks(machine, models, asked.cores))
    if asked.tiles:
        sys.exit(show_tiles(machine, models, asked.cores, asked.stacks))
    kept, wanted = Kept(folder / "fingerprints.json"), Asked(asked.frames, asked.exact)
    if not asked.report:
        for core in (NATIVE, *asked.cores):
            fill(machine, kept, core, models, wanted)
    rows = list(matrix(kept, models, asked.cores, wanted))
    print(as_text(rows, asked.cores, wanted))
    if asked.exact == "everywhere" and not asked.models:
        write(DOCUMENT, as_text(list(matrix(kept, models, list(CORES), wanted)), list(CORES), wanted))
    sys.exit(any("differs" in row for row in rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="default: efficientnet_b0 and the papers' 22")
    parser.add_argument("--cores", nargs="+", default=list(CORES), choices=CORES)
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument("--exact", default="everywhere", choices=("everywhere", "machine"))
    parser.add_argument("--stacks", type=int, default=4, help="of --tiles, for each network")
    for name in ("blocks", "tiles", "node", "wheels", "report"):
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args()


# Fingerprints.


def fill(machine: ArmMachine, kept: Kept, core: str, models: Mapping[str, Path], asked: Asked) -> None:
    """Compute the fingerprints that are not kept, all in one process; each is kept as soon as it is there."""
    missing = {package.stem: package for package in models.values() if kept.get(core, package, asked) is None}
    if not missing:
        return
    arguments = ["-m", "nodes.cli", "verify", "--fingerprint", *asked.options(), *map(str, missing.values())]
    began = time.monotonic()
    for line in _lines(machine, core, arguments):
        found, stem, *_ = line.split()
        seconds, began = time.monotonic() - began, time.monotonic()
        kept.add(core, missing[stem], asked, found, seconds)
        print(f"{core:5} {seconds:7.1f} s  {line}", flush=True)


def _lines(machine: ArmMachine, core: str, arguments: Sequence[str]) -> Iterator[str]:
    command = [sys.executable, *arguments] if core == NATIVE else machine.command(core, arguments)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=CHECKOUT) as child:
        assert child.stdout is not None
        yield from (line.strip() for line in child.stdout)
    if child.returncode:
        raise SystemExit(f"exit code {child.returncode} on {core}: {' '.join(command)}")


def _code() -> str:
    """Of what the code does: another docstring or comment computes nothing else."""
    found = hashlib.sha256()
    for place in _DECIDES:
        path = CHECKOUT / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            tree = ast.parse(file.read_text())
            statements = (node.body for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list))
            for body in statements:
                body[:] = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
            found.update(ast.dump(tree).encode())
    return found.hexdigest()[:12]


def matrix(kept: Kept, models: Mapping[str, Path], cores: Sequence[str], asked: Asked) -> Iterator[list[str]]:
    """Rows of: model, first digits of its hash, a word for each core, seconds of the slowest."""
    for name, package in models.items():
        native = kept.get(NATIVE, package, asked)
        made = [kept.get(core, package, asked) for core in cores]
        words = ["not run" if one is None or native is None else _word(one["hash"], native["hash"]) for one in made]
        seconds = [float(one["seconds"]) for one in made if one is not None]
        digits = str(native["hash"])[:16] if native else ""
        yield [name, f"`{digits}`", *words, f"{max(seconds):.0f}" if seconds else ""]


def _word(found: object, expected: object) -> str:
    return "equal" if found == expected else "**differs**"


def as_text(rows: Sequence[Sequence[str]], cores: Sequence[str], asked: Asked) -> str:
    """Markdown: where, when and with what it was measured, then the table."""
    from importlib.metadata import version

    heading = ["network", f"SHA-256, {asked.frames} frame(s)", *(CORES[core].name for core in cores), "s, the slowest"]
    lines = ["| " + " | ".join(cells) + " |" for cells in (heading, ["---"] * len(heading), *rows)]
    counted = [word for row in rows for word in row[2:-1]]
    numbers = (
        f"{counted.count('equal')} equal, {counted.count('**differs**')} differ, {counted.count('not run')} not run"
    )
    note = (
        f"{datetime.now(UTC).date().isoformat()}, ai-edge-litert {version('ai-edge-litert')}, x86: `{processor()}`"
        f"{'' if is_known() else ' (not one for which equal bits are promised)'} on {platform.system()}, "
        f"ARM: {_qemu()}. Seeded weights (`seed:0`), `exact: {asked.exact}`. {numbers}.\n"
        f"Command: `python benchmarks/aarch64.py --frames {asked.frames}`."
    )
    return f"{note}\n\n" + "\n".join(lines) + "\n"


def _qemu() -> str:
    done = subprocess.run(["qemu-aarch64", "--version"], capture_output=True, text=True, check=True)
    return "QEMU " + done.stdout.partition("version ")[2].split()[0] + " in user mode"


def write(path: Path, text: str) -> None:
    """Put the text between the document's markers."""
    document = path.read_text()
    before, rest = document.split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}")


# Blocks and tiles.


def show_blocks(machine: ArmMachine, models: Mapping[str, Path], cores: Iterable[str]) -> int:
    """Compare each kind of block of the networks by the hash of its answer; those that differ are printed."""
    arguments = ["-m", "benchmarks.arm_blocks", "blocks", *map(str, models.values())]
    expected, wrong = list(_lines(machine, NATIVE, arguments)), 0
    for core in cores:
        began, different = time.monotonic(), 0
        for found, wanted in zip(_lines(machine, core, arguments), expected, strict=True):
            if found != wanted:
                different += 1
                print(f"{core}: {found}; x86: {wanted.split()[-1]}", flush=True)
        wrong += different
        seconds = time.monotonic() - began
        print(f"{core}: {len(expected)} blocks of {len(models)} networks, {different} differ ({seconds:.0f} s)")
    return int(wrong > 0)


def show_tiles(machine: ArmMachine, models: Mapping[str, Path], cores: Iterable[str], stacks: int) -> int:
    """Check stacks in tiles on each core and natively: equal to the stack in one piece there, and to x86."""
    wrong = 0
    for name, package in models.items():
        arguments = ["-m", "benchmarks.arm_blocks", "tiles", str(stacks), str(package)]
        expected = list(_lines(machine, NATIVE, arguments))
        for core in cores:
            found = list(_lines(machine, core, arguments))
            unequal = sum("equal" not in line.split() for line in (*found, *expected))
            foreign = sum(a != b for a, b in zip(found, expected, strict=True))
            wrong += unequal + foreign
            print(f"{name} on {core}: {len(found)} tilings, {unequal} differ from the whole, {foreign} from x86")
            print("\n".join(f"  {line}" for line in found), flush=True)
    return int(wrong > 0)


# Wheels.


def show_wheels() -> int:
    """Ask pip for wheels for aarch64 of all base requirements, for each Python; list those that have none."""
    found = 0
    with tempfile.TemporaryDirectory(prefix="trisect-wheels-", dir="/var/tmp") as folder:
        for python in PYTHONS:
            missing = lacking(python, Path(folder))
            wheels = len(list((Path(folder) / python).glob("*.whl")))
            print(f"Python {python}: {wheels} wheels; without one: {', '.join(missing) or 'none'}", flush=True)
            found += len(missing)
    return int(found > 0)


if __name__ == "__main__":
    main()
