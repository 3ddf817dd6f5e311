"""The tree: no import goes in a circle, every room is on the map, and light commands stay light."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "broker", "nodes")
COMMANDS = {
    "planner": "nodes.cli.app, nodes.config.loader, nodes.planner.node",
    "watch": "nodes.cli.app, nodes.config.loader, nodes.watch.app",
    "plan, of a running pipeline": "nodes.cli.app, nodes.config.loader, nodes.client.requests, nodes.cli.tables",
    "plan MODEL": "nodes.cli.app, nodes.config.loader, nodes.cli.plan, pipeline.pictures",
    "scission": "nodes.cli.app, nodes.cli.scission",
}


def in_circles(imports: Mapping[str, set[str]]) -> set[str]:
    """Those that import themselves through others, and what lies between such circles."""
    left = {module: imported - {module} for module, imported in imports.items()}
    while True:
        imported = set().union(*left.values())
        ends = {m for m, needs in left.items() if not needs & left.keys() or m not in imported}
        if not ends:
            return set(left)
        left = {module: needs - ends for module, needs in left.items() if module not in ends}


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Each module's, those inside of functions included, those for annotations only left out."""
    graph = grimp.build_graph(PACKAGES[0], *PACKAGES[1:], exclude_type_checking_imports=True, cache_dir=None)
    return {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}


def test_circles_are_found() -> None:
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": set()}) == set()
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == {"b", "c"}


def test_no_module_imports_itself_through_others(imports: dict[str, set[str]]) -> None:
    assert len(imports) > 150
    assert in_circles(imports) == set()


def test_no_room_imports_itself_through_others(imports: dict[str, set[str]]) -> None:
    def room(module: str) -> str:
        """A module's first two names: nodes.planner, pipeline.tiles, pipeline.graph."""
        return ".".join(module.split(".")[:2])

    rooms: dict[str, set[str]] = {}
    for module, imported in imports.items():
        rooms.setdefault(room(module), set()).update(map(room, imported))
    assert in_circles(rooms) == set()


@pytest.mark.parametrize("modules", COMMANDS.values(), ids=COMMANDS.keys())
def test_light_commands_load_no_framework(modules: str) -> None:
    code = f"import sys, {modules}; print(*{{'tensorflow', 'keras', 'h5py', 'ai_edge_litert'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


def test_the_map_in_the_docs_has_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    _, _, after = page.partition("## Tree\n```\n")
    shown: list[str] = []
    parents: list[str] = []
    for line in after.partition("```")[0].splitlines():
        if name := line.split()[0] if line.strip() else "":
            parents[(len(line) - len(line.lstrip())) // 2 :] = [name.rstrip("/")]
            shown += ["/".join(parents)] if name.endswith("/") else []
    rooms = {
        file.parent.relative_to(ROOT).as_posix() for package in PACKAGES for file in ROOT.glob(f"{package}/**/*.py")
    }
    assert set(shown) >= rooms
    assert [room for room in shown if not (ROOT / room).is_dir()] == []
