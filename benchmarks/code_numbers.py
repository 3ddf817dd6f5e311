"""Numbers of the code: files and functions by size, complexity, and what has no docstring.

Complexity is McCabe's, as ruff counts it (branches, loops, handlers and cases, not `and` and `or`).

    python benchmarks/code_numbers.py
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("pipeline", "broker", "nodes")
MOST_LINES = 400
Function = ast.FunctionDef | ast.AsyncFunctionDef


def files(*folders: str) -> dict[str, int]:
    """Lines of each Python file."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}


def functions(folder: str) -> Iterator[tuple[str, Function]]:
    """All functions and methods, with where they are."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Function):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def undocumented() -> list[str]:
    """Public functions and classes without a docstring that ruff's rules want one of."""
    return [found["filename"] for found in _ruff("D100,D101,D103")]


def complex_ones(above: int) -> list[tuple[int, str]]:
    """Functions of more than this complexity, the highest first."""
    found = []
    for complaint in _ruff("C901", f"lint.mccabe.max-complexity={above}"):
        name, number = re.findall(r"`(\S+)` is too complex \((\d+)", complaint["message"])[0]
        where = Path(complaint["filename"]).relative_to(ROOT)
        found.append((int(number), f"{where}:{complaint['location']['row']} {name}"))
    return sorted(found, reverse=True)


def _ruff(select: str, *options: str) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "ruff", "check", "--select", select, "--output-format", "json", *ROOMS]
    command += [part for option in options for part in ("--config", option)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    complaints: list[dict[str, object]] = json.loads(done.stdout)
    return complaints


def spread(sizes: list[int]) -> str:
    """Median, 95th percentile and largest, in words."""
    ordered = sorted(sizes)
    most_of_them = ordered[len(ordered) * 95 // 100]
    return f"median {statistics.median(ordered):.0f}, 95th percentile {most_of_them}, most {ordered[-1]}"


def main() -> int:
    """Print the numbers."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    code, tests = files(*ROOMS), files("tests")
    lengths = [(node.end_lineno or node.lineno) - node.lineno + 1 for room in ROOMS for _, node in functions(room)]
    print(f"code: {len(code)} files, {sum(code.values()):,} lines; lines of a file: {spread(list(code.values()))}")
    print(f"{len(lengths):,} functions; lines of one: {spread(lengths)}")
    print(f"tests: {len(tests)} files, {sum(tests.values()):,} lines; lines of a file: {spread(list(tests.values()))}")
    for name, lines in (code | tests).items():
        if lines > MOST_LINES:
            print(f"  {lines} lines: {name}")
    above = complex_ones(10)
    print(f"complexity above 10: {len(above)} functions, the highest {above[0][0] if above else 'none'}")
    for number, where in above:
        print(f"  {number}: {where}")
    print(f"public functions, classes and modules without a docstring: {len(undocumented())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
